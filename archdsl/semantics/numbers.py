"""Arithmetic on the numbers of a spec."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from archdsl.diagnostics import Span
from archdsl.semantics.values import POISON, Function, Poison, Scalar, Value, describe
from archdsl.syntax import ast

OPERATIONS: dict[str, Callable[[Any, Any], int | float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": lambda left, right: int(left // right),
    "%": operator.mod,
}
# Larger than any number of a model; a product of two is still fast and readable.
LARGEST = 10**30

ReportError = Callable[..., Poison]


class Undefined(ArithmeticError):
    """Raised by a function that has no value for its arguments, with a code and a message."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


def _sqrt(x: int | float) -> float:
    if x < 0:
        raise Undefined("arithmetic", "square root of a negative number")
    return float(x**0.5)


def _ln(x: int | float) -> float:
    if x <= 0:
        raise Undefined("arithmetic", "logarithm of a number that is not above 0")
    return math.log(x)


def _item(text: str, i: int | float) -> int | float | str:
    words = text.split()
    if not isinstance(i, int) or not 0 <= i < len(words):
        what = f"the text has {len(words)} words, so it has no word {i}"
        raise Undefined("argument-value", what)
    for kind in (int, float):
        with suppress(ValueError):
            if math.isfinite(number := kind(words[i])):
                return number
    return words[i]


def _has(text: str, n: int | float) -> bool:
    return any(_item(text, i) == n for i in range(len(text.split())))


# `sqrt` is also an operator, on tensors. `item(text, i)` is word i of a string, counted from 0,
# as a number if it is one; `has(text, n)` is whether one of them is the number n.
FUNCTIONS = {
    "sqrt": Function(_sqrt, ("x",)),
    "ln": Function(_ln, ("x",)),
    "item": Function(_item, ("text", "i"), texts=("text",)),
    "has": Function(_has, ("text", "n"), texts=("text",)),
}


def calculate(
    op: str, left: Value, right: Value, span: Span, report_error: ReportError
) -> Scalar | Poison:
    """The value of `left op right`."""
    if isinstance(left, Poison) or isinstance(right, Poison):
        return POISON
    for side in (left, right):
        if not isinstance(side, Scalar) or isinstance(side.value, bool | str):
            return report_error(
                "arithmetic", f"`{op}` needs numbers", span, found=describe(side)
            )
    assert isinstance(left, Scalar)
    assert isinstance(right, Scalar)
    try:
        value = OPERATIONS[op](left.value, right.value)
    except ZeroDivisionError:
        return report_error("arithmetic", "division by zero", span)
    except OverflowError:
        return report_error("arithmetic", "the number is too large", span)
    return to_scalar(value, span, report_error)


def call_function(
    function: Function, call: ast.Call, args: list[Any], report_error: ReportError
) -> Scalar | Poison:
    """The value of a function of numbers; its arguments are named or in order."""
    given: dict[str, int | float | str] = {}
    for arg, value in zip(call.args, args, strict=True):
        free = [p for p in function.params if p not in given]
        name = arg.name.id if arg.name else (free[0] if free else None)
        if name not in free:
            problem = f"has no parameter `{name}`" if arg.name else "has too many arguments"
            return report_error(
                "unknown-argument",
                f"`{call.callee.id}` {problem}",
                arg.span,
                expected=f"{call.callee.id}({', '.join(function.params)})",
            )
        text = name in function.texts
        if isinstance(value.value, bool) or isinstance(value.value, str) != text:
            what = "a string" if text else "a number"
            return report_error(
                "arithmetic", f"{what} is needed here", arg.span, found=describe(value)
            )
        given[name] = value.value
    missing = [p for p in function.params if p not in given]
    if missing and not function.optional:
        return report_error(
            "missing-argument",
            f"`{call.callee.id}` needs `{missing[0]}`",
            call.span,
            expected=f"{call.callee.id}({', '.join(function.params)})",
        )
    try:
        value = function.call(**given)
    except Undefined as undefined:
        return report_error(undefined.code, str(undefined), call.span)
    if isinstance(value, str):
        return Scalar(value, None, call.span)
    return to_scalar(value, call.span, report_error)


def to_scalar(value: int | float, span: Span, report_error: ReportError) -> Scalar | Poison:
    """A number, unless it is too large."""
    if not math.isfinite(value) or abs(value) > LARGEST:
        return report_error("arithmetic", "the number is too large", span)
    return Scalar(value, None, span)
