"""Conditions: what is known when a model is compiled, and decides what stands in it.

A condition is a switch (`tied`, `not tied`), a comparison of numbers (`kv_heads < heads`), or
of a choice with one of its names (`act == gelu`, `window == none`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from archdsl.semantics.values import Env, Poison, Scalar, Symbol, Value, describe
from archdsl.syntax import ast

if TYPE_CHECKING:
    from archdsl.semantics.elaborate import Elaborator

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


class Conditions:
    """Decides conditions with the names that stand around them."""

    def __init__(self, work: Elaborator):
        self.work = work

    def holds(self, node: ast.Condition, env: Env) -> bool | Poison:
        match node:
            case ast.Not():
                holds = self._switch(node.operand, env)
                return holds if isinstance(holds, Poison) else not holds
            case ast.Compare():
                return self._compares(node, env)
            case _:
                return self._switch(node, env)

    def _switch(self, node: ast.Expr, env: Env) -> bool | Poison:
        value = self.work.known(node, env)
        if isinstance(value, Poison):
            return value
        if isinstance(value, Scalar) and isinstance(value.value, bool):
            return value.value
        return self.work.wrong(
            "argument-value",
            "a condition is a switch or a comparison",
            node.span,
            expected="`tied`, `not tied`, `depth > 1` or `act == gelu`",
            found=describe(value),
        )

    def _compares(self, node: ast.Compare, env: Env) -> bool | Poison:
        left, right = self.work.value(node.left, env), self.work.value(node.right, env)
        for side in (left, right):
            if isinstance(side, Poison):
                return side
        if isinstance(left, Scalar) and isinstance(right, Scalar):
            number = all(not isinstance(s.value, bool | str) for s in (left, right))
            if number or node.op == "==":
                return COMPARISONS[node.op](left.value, right.value)
        elif node.op == "==" and isinstance(left, _PLAIN) and isinstance(right, _PLAIN):
            # A number is no name: `window == none` does not hold of 4096.
            names = [s.name for s in (left, right) if isinstance(s, Symbol)]
            return len(names) == 2 and names[0] == names[1]
        return self._incomparable(node, left, right)

    def _incomparable(self, node: ast.Compare, left: Value, right: Value) -> Poison:
        return self.work.wrong(
            "arithmetic",
            f"`{node.op}` cannot compare {describe(left)} with {describe(right)}",
            node.span,
            expected="two numbers, or `==` between a choice and a name",
        )


_PLAIN = Scalar | Symbol
