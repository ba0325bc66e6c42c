"""Arithmetic on the numbers of a spec."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from archdsl.diagnostics import Span
from archdsl.semantics.values import Function, Poison, Scalar, Value, describe
from archdsl.syntax import ast

_OPERATIONS: dict[str, Callable[[Any, Any], int | float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
}
# Far beyond any model, and small enough that no product of two takes long or prints badly.
LARGEST = 10**30

Wrong = Callable[..., Poison]

SQRT = Function(lambda x: x**0.5, ("x",))


def arithmetic(op: str, left: Value, right: Value, span: Span, wrong: Wrong) -> Scalar | Poison:
    """The value of `left op right`; `wrong` reports what cannot be computed."""
    for side in (left, right):
        if isinstance(side, Poison):
            return side
        if not isinstance(side, Scalar) or isinstance(side.value, bool | str):
            return wrong("arithmetic", f"`{op}` needs numbers", span, found=describe(side))
    assert isinstance(left, Scalar)
    assert isinstance(right, Scalar)
    try:
        value = _OPERATIONS[op](left.value, right.value)
    except ZeroDivisionError:
        return wrong("arithmetic", "division by zero", span)
    except OverflowError:
        return wrong("arithmetic", "the number is too large", span)
    return bounded(value, span, wrong)


def called(
    function: Function, call: ast.Call, args: list[Any], wrong: Wrong
) -> Scalar | Poison:
    """A function of numbers at its arguments, which are named or in order."""
    given: dict[str, int | float] = {}
    for arg, value in zip(call.args, args, strict=True):
        free = [p for p in function.params if p not in given]
        name = arg.name.id if arg.name else (free[0] if free else None)
        if name not in free:
            lack = f"has no parameter `{name}`" if arg.name else "takes no further argument"
            return wrong(
                "unknown-argument",
                f"`{call.callee.id}` {lack}",
                arg.span,
                expected=f"{call.callee.id}({', '.join(function.params)})",
            )
        if isinstance(value.value, bool | str):
            return wrong(
                "arithmetic", "a number is needed here", arg.span, found=describe(value)
            )
        given[name] = value.value
    lacking = [p for p in function.params if p not in given]
    if lacking and not function.optional:
        return wrong(
            "missing-argument",
            f"`{call.callee.id}` needs `{lacking[0]}`",
            call.span,
            expected=f"{call.callee.id}({', '.join(function.params)})",
        )
    value = function.call(**given)
    if isinstance(value, complex):
        return wrong("arithmetic", "the square root of a negative number", call.span)
    return bounded(value, call.span, wrong)


def bounded(value: int | float, span: Span, wrong: Wrong) -> Scalar | Poison:
    """A number, unless it is beyond all use."""
    if not math.isfinite(value) or abs(value) > LARGEST:
        return wrong("arithmetic", "the number is too large", span)
    return Scalar(value, None, span)
