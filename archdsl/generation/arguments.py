"""Token ids as users give them, to rows of integers."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, NoReturn

import numpy as np

from archdsl.diagnostics import fail


def token_rows(ids: Any) -> list[list[int]]:
    """One row of token ids or several, as rows of Python integers.

    >>> token_rows([3, 1]), token_rows([[3], [1, 2]])
    ([[3, 1]], [[3], [1, 2]])
    """
    if hasattr(ids, "tolist"):  # an array or a tensor
        ids = ids.tolist()
    if not isinstance(ids, Sequence) or isinstance(ids, str | bytes):
        _refuse_ids(ids)
    if any(_is_row(each) for each in ids):
        return [[_token(token) for token in _row(each)] for each in ids]
    return [[_token(token) for token in ids]]


def _is_row(value: Any) -> bool:
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes)


def _row(value: Any) -> Sequence[Any]:
    if not _is_row(value):
        _refuse_ids(value)
    row: Sequence[Any] = value.tolist() if hasattr(value, "tolist") else value
    return row


def _token(value: Any) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool):
        _refuse_ids(value)
    return int(value)


def _refuse_ids(found: Any) -> NoReturn:
    fail(
        "input",
        "the prompt is not a list of token ids",
        expected="a list of whole numbers, or one such list per row",
        found=f"{found!r:.80}",
        help="a tokenizer turns text into ids: `tokenizer.encode(text)`, or use `stream_text`"
        if isinstance(found, str)
        else None,
    )
