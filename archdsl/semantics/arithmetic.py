"""Arithmetic in expressions: of numbers, and of tensors with tensors or numbers.

A number is not a node of the graph: `1 - x` is `scale` by -1, then `shift` by 1.
"""

from __future__ import annotations

from archdsl.graph.elementwise import COMPARISONS
from archdsl.graph.ops import OPS
from archdsl.semantics.binding import Arguments, Bound
from archdsl.semantics.graph_builder import GraphBuilder
from archdsl.semantics.numbers import calculate
from archdsl.semantics.operators import Operators
from archdsl.semantics.values import Env, Poison, Scalar, Symbol, Tensor, Value, describe
from archdsl.semantics.whole_numbers import renumbering
from archdsl.syntax import ast

_COMPARED = {sign: kind for kind, sign in COMPARISONS.items()}
_SWAPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}  # the sides in the other order
_PAIRS = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide"}


class Arithmetic:
    """Computes sums, differences, products and quotients."""

    def __init__(self, builder: GraphBuilder, operators: Operators):
        self.builder = builder
        self.operators = operators

    def negate(self, expr: ast.Negate, value: Value, env: Env) -> Value:
        if isinstance(value, Tensor):
            return self._by(value, "scale", Scalar(-1), expr, expr, env)
        return calculate("-", Scalar(0), value, expr.span, self.builder.report_error)

    def binary(self, expr: ast.Binary, left: Value, right: Value, env: Env) -> Value:
        if found := renumbering(expr, left, right):
            return self.operators.apply(OPS["renumber"], found, expr.span, "renumber", env)
        match expr.op, left, right:
            case _, Poison(), _:
                return left
            case _, _, Poison():
                return right
            case op, Tensor(), Tensor() if op in _PAIRS:
                slots = {
                    "x": [Bound(expr.left, left, expr.left.span)],
                    "other": [Bound(expr.right, right, expr.right.span)],
                }
                name = _PAIRS[op]
                return self.operators.apply(OPS[name], Arguments(slots), expr.span, name, env)
            case op, Tensor(), Scalar() if op in _PAIRS:
                return self._tensor_first(expr, left, right, env)
            case op, Scalar(), Tensor() if op in _PAIRS:
                return self._number_first(expr, left, right, env)
            case (_, Tensor(), _) | (_, _, Tensor()):
                return self.builder.report_error(
                    "arithmetic",
                    f"`{expr.op}` is not defined for {describe(left)} and {describe(right)}",
                    expr.span,
                    expected="`+`, `-`, `*` or `/` of two tensors, or of a tensor and a number",
                )
            case _:
                return calculate(expr.op, left, right, expr.span, self.builder.report_error)

    def compare(self, expr: ast.Compare, left: Value, right: Value, env: Env) -> Value:
        """A comparison of two tensors, or of a tensor and a number."""
        kind, swapped = _COMPARED[expr.op], _COMPARED[_SWAPPED.get(expr.op, expr.op)]
        by: tuple[str, Value, ast.Expr]
        match left, right:
            case (Poison(), _) | (_, Poison()):
                return left if isinstance(left, Poison) else right
            case Tensor(), Tensor():
                x, at, by = left, expr.left, ("other", right, expr.right)
            case Tensor(), Scalar() if right.is_number:
                x, at, by = left, expr.left, ("to", right, expr.right)
            case Scalar(), Tensor() if left.is_number:
                x, at, by, kind = right, expr.right, ("to", left, expr.left), swapped
            case _:
                return self.builder.report_error(
                    "arithmetic",
                    f"`{expr.op}` cannot compare {describe(left)} with {describe(right)}",
                    expr.span,
                    expected="two tensors, or a tensor and a number",
                )
        param, value, second = by
        slots = {
            "x": [Bound(at, x, at.span)],
            "kind": [Bound(None, Symbol(kind, expr.span), expr.span)],
            param: [Bound(second, value, second.span)],
        }
        return self.operators.apply(OPS["compare"], Arguments(slots), expr.span, "compare", env)

    def _tensor_first(self, expr: ast.Binary, x: Tensor, number: Scalar, env: Env) -> Value:
        """`x + n`, `x - n`, `x * n` or `x / n`."""
        match expr.op:
            case "+":
                by: Scalar | Poison = number
            case "-":
                by = self._number("-", Scalar(0), number, expr)
            case "*":
                by = number
            case _:
                by = self._number("/", Scalar(1), number, expr)
        name = "shift" if expr.op in "+-" else "scale"
        return by if isinstance(by, Poison) else self._by(x, name, by, expr, expr.right, env)

    def _number_first(self, expr: ast.Binary, number: Scalar, x: Tensor, env: Env) -> Value:
        """`n + x`, `n - x`, `n * x` or `n / x`."""
        y: Tensor | Poison = x
        if expr.op == "-":
            y = self._by(x, "scale", Scalar(-1), expr, expr.right, env)
        if expr.op == "/":
            slots = {"x": [Bound(expr.right, x, expr.right.span)]}
            reciprocal = OPS["reciprocal"]
            y = self.operators.apply(reciprocal, Arguments(slots), expr.span, "reciprocal", env)
            if number.value == 1 and not isinstance(number.value, bool):
                return y
        if isinstance(y, Poison):
            return y
        name = "shift" if expr.op in "+-" else "scale"
        return self._by(y, name, number, expr, expr.left, env)

    def _by(
        self, x: Tensor, name: str, by: Scalar, expr: ast.Expr, at: ast.Expr, env: Env
    ) -> Tensor | Poison:
        """`scale` or `shift` by a number, which is written at `at`."""
        slots = {"x": [Bound(None, x, expr.span)], "by": [Bound(at, by, at.span)]}
        return self.operators.apply(OPS[name], Arguments(slots), expr.span, name, env)

    def _number(
        self, op: str, left: Scalar, right: Scalar, expr: ast.Binary
    ) -> Scalar | Poison:
        return calculate(op, left, right, expr.span, self.builder.report_error)
