"""Checks the arguments that users give in Python: choices and numbers."""

from __future__ import annotations

from collections.abc import Collection
from numbers import Integral, Real
from typing import Any

from archdsl.diagnostics import did_you_mean, fail, listing


def check_choice(message: str, value: object, known: Collection[str]) -> str:
    """Returns `value` if it is one of `known`; else raises `ArchError`."""
    if not isinstance(value, str) or value not in known:
        fail(
            "argument-value",
            f"{message} {value!s:.80}",
            expected=listing(known),
            help=did_you_mean(value, known) if isinstance(value, str) else None,
        )
    return value


def whole_number(name: str, value: Any, least: int = 0) -> int:
    """An argument that must be a whole number of at least `least`; else raises `ArchError`.

    >>> whole_number("seed", 7)
    7
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        fail(
            "argument-value",
            f"{name} cannot be {value!r:.80}",
            expected=f"a whole number, at least {least}",
        )
    return int(value)


def is_number(value: object) -> bool:
    """Whether an argument is a real number; NaN and infinity are.

    >>> is_number(0.5), is_number("0.5"), is_number(True)
    (True, False, False)
    """
    return isinstance(value, Real) and not isinstance(value, bool)
