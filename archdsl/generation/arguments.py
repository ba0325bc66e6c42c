"""Token ids as users give them, to rows of integers."""

from __future__ import annotations

from collections.abc import Collection
from numbers import Integral
from typing import Any

from archdsl.diagnostics import fail


def token_rows(ids: Any) -> list[list[int]]:
    """One row of token ids or several, as rows of Python integers.

    >>> token_rows([3, 1]), token_rows([[3], [1, 2]])
    ([[3, 1]], [[3], [1, 2]])
    """
    found = _plain(ids)
    several = _is_list(found) and any(_is_list(_plain(each)) for each in found)
    expected = "a list of whole numbers, or one such list per row"
    return [token_row("the prompt", row, expected) for row in (found if several else [found])]


def token_row(name: str, ids: Any, expected: str = "a list of whole numbers") -> list[int]:
    """Token ids as Python integers; `name` and `expected` are for the message."""
    found = _plain(ids)
    wrong = [each for each in found if not _is_token(each)] if _is_list(found) else [found]
    if wrong:
        encode = (
            "a tokenizer turns text into ids: `tokenizer.encode(text)`, or use `stream_text`"
        )
        fail(
            "input",
            f"{name} is not a list of token ids",
            expected=expected,
            found=f"{wrong[0]!r:.80}",
            help=encode if isinstance(wrong[0], str) else None,
        )
    return [int(each) for each in found]


def _plain(ids: Any) -> Any:
    """An array or a tensor as a list."""
    return ids.tolist() if hasattr(ids, "tolist") else ids


def _is_list(value: Any) -> bool:
    return isinstance(value, Collection) and not isinstance(value, str | bytes)


def _is_token(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
