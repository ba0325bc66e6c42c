"""Conditions, which are decided when a model is compiled.

A condition is a switch (`tied`, `not tied`), a comparison of numbers (`kv_heads < heads`), a
comparison of a choice with a name (`act == gelu`, `window == none`), or two of them joined by
`and` or `or`. The second one is read only if the first one does not decide: in
`n != none and n > 4`, n is then a number.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from archdsl.semantics.evaluators import Evaluators
from archdsl.semantics.graph_builder import GraphBuilder
from archdsl.semantics.values import POISON, Env, Poison, Scalar, Symbol, Value, describe
from archdsl.syntax import ast

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


_OPPOSITE = {"==": "!=", "!=": "==", "<=": ">", ">=": "<", "<": ">=", ">": "<="}


class Conditions:
    """Decides conditions."""

    def __init__(self, builder: GraphBuilder, evaluators: Evaluators):
        self.builder = builder
        self.evaluators = evaluators

    def holds(self, node: ast.Expr, env: Env) -> bool | Poison:
        match node:
            case ast.Not():
                holds = self.holds(node.operand, env)
                return holds if isinstance(holds, Poison) else not holds
            case ast.Binary(op="and" | "or"):
                holds = self.holds(node.left, env)
                if isinstance(holds, Poison) or holds == (node.op == "or"):
                    return holds
                return self.holds(node.right, env)
            case ast.Compare():
                return self.compare(node, *self.sides(node, env))
            case _:
                return self._switch(node, env)

    def choose(self, expr: ast.When, env: Env) -> ast.Expr | Poison | None:
        """The chosen side of `a if condition else b`; None if there is no side to choose."""
        holds = self.holds(expr.condition, env)
        if isinstance(holds, Poison):
            return self.builder.skip(expr.value, expr.otherwise)
        return expr.value if holds else expr.otherwise

    def _switch(self, node: ast.Expr, env: Env) -> bool | Poison:
        value = self.evaluators.resolve(node, env)
        if isinstance(value, Poison):
            return value
        if isinstance(value, Scalar) and isinstance(value.value, bool):
            return value.value
        if isinstance(value, Scalar) and not self.builder.is_first(value):
            return POISON
        return self.builder.report_error(
            "argument-value",
            "a condition must be a switch or a comparison",
            node.span,
            expected="`tied`, `not tied`, `depth > 1` or `act == gelu`",
            found=describe(value),
        )

    def sides(self, node: ast.Compare, env: Env) -> tuple[Value, Value]:
        """The two values that are compared."""
        if isinstance(node.left, ast.Not):
            poison = self.builder.report_error(
                "arithmetic",
                f"`not` cannot stand before `{node.op}`",
                node.span,
                help=f"write the comparison as `{_OPPOSITE[node.op]}`",
            )
            return poison, poison
        return self.evaluators.evaluate(node.left, env), self.evaluators.evaluate(
            node.right, env
        )

    def compare(self, node: ast.Compare, left: Value, right: Value) -> bool | Poison:
        """Whether a comparison of two numbers, or of a choice and a name, holds."""
        for side in (left, right):
            if isinstance(side, Poison):
                return side
        if isinstance(left, Scalar) and isinstance(right, Scalar):
            number = all(not isinstance(s.value, bool | str) for s in (left, right))
            if number or node.op in ("==", "!="):
                return COMPARISONS[node.op](left.value, right.value)
        elif node.op in ("==", "!=") and isinstance(left, _PLAIN) and isinstance(right, _PLAIN):
            # A number never equals a name: `window == none` is false for 4096.
            names = [s.name for s in (left, right) if isinstance(s, Symbol)]
            equal = len(names) == 2 and names[0] == names[1]
            return equal == (node.op == "==")
        return self._report_incomparable(node, left, right)

    def _report_incomparable(self, node: ast.Compare, left: Value, right: Value) -> Poison:
        return self.builder.report_error(
            "arithmetic",
            f"`{node.op}` cannot compare {describe(left)} with {describe(right)}",
            node.span,
            expected="two numbers, or `==` or `!=` between a choice and a name",
        )


_PLAIN = Scalar | Symbol
