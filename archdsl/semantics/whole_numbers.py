"""Arithmetic of whole-number tensors, such as positions, with numbers."""

from __future__ import annotations

from archdsl.semantics.binding import Arguments, Bound
from archdsl.semantics.values import Scalar, Tensor, Value
from archdsl.syntax import ast


def renumbering(expr: ast.Binary, left: Value, right: Value) -> Arguments | None:
    """The arguments of `renumber` for `p + 2`, `13 - p`, `p * 2`, `p // 14` or `p % 14`; None
    if the operation is another one."""
    match left, right:
        case Tensor() as x, Scalar() as n:
            number = expr.right
        case Scalar() as n, Tensor() as x:
            number = expr.left
        case _:
            return None
    if x.type.dtype != "int" or type(n.value) is not int:
        return None
    match expr.op, x is left:
        case "+", _:
            given = {"plus": n}
        case "-", True:
            given = {"plus": Scalar(-n.value, origin=n.origin)}
        case "-", False:
            given = {"times": Scalar(-1), "plus": n}
        case "*", _:
            given = {"times": n}
        case "//", True:
            given = {"by": n}
        case "%", True:
            given = {"modulo": n}
        case _:
            return None
    slots = {param: [Bound(number, value, number.span)] for param, value in given.items()}
    return Arguments({"x": [Bound(None, x, expr.span)], **slots})
