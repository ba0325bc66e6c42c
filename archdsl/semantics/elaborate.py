"""Evaluates the expressions of a model: names, numbers, types and graph nodes in one pass.

An expression with a mistake has the value `POISON`. The mistake is reported once, where it is;
whatever uses the value is still checked, and reports nothing about it.
"""

from __future__ import annotations

from typing import TypeGuard

from archdsl.graph.ops import OPS
from archdsl.graph.types import Varying
from archdsl.semantics.arithmetic import Arithmetic
from archdsl.semantics.binding import is_mask
from archdsl.semantics.blocks import Blocks
from archdsl.semantics.conditions import Conditions
from archdsl.semantics.evaluators import Evaluators
from archdsl.semantics.graph_builder import GraphBuilder
from archdsl.semantics.mask_values import Masks
from archdsl.semantics.numbers import call_function, to_scalar
from archdsl.semantics.operators import Operators
from archdsl.semantics.report import Report
from archdsl.semantics.shapes import Shapes
from archdsl.semantics.steps import Steps
from archdsl.semantics.values import (
    POISON,
    Env,
    Flow,
    Function,
    Poison,
    Scalar,
    Several,
    Symbol,
    Tensor,
    Value,
    describe,
)
from archdsl.semantics.weights import Weights
from archdsl.syntax import ast
from archdsl.syntax.printer import expression


class Elaborator:
    """Evaluates expressions, and adds the nodes that they stand for to `builder`."""

    def __init__(self, report: Report, varying: dict[str, Varying]):
        self.report = report
        self.builder = GraphBuilder(report, varying)
        self.report_error = self.builder.report_error
        self.operators = Operators(self.builder)
        self.arithmetic = Arithmetic(self.builder, self.operators)
        self.shapes = Shapes(report, varying, self.number)
        evaluators = Evaluators(
            self.evaluate, self.resolve, self.number, self.tensor, self.shapes.extent, self.flow
        )
        self.conditions = Conditions(self.builder, evaluators)
        weights = Weights(self.builder, self.operators, self.shapes, evaluators)
        self.blocks = Blocks(self.builder, weights, self.shapes, evaluators)
        self.masks = Masks(self.builder, evaluators)
        self.steps = Steps(
            self.builder, self.operators, self.blocks, self.conditions, evaluators
        )

    def evaluate(self, expr: ast.Expr | ast.Typed, env: Env) -> Value:
        """The value of an expression; an unbound name is a `Symbol`."""
        match expr:
            case ast.Bool() | ast.String():
                return Scalar(expr.value, None, expr.span)
            case ast.Int() | ast.Float():
                return to_scalar(expr.value, expr.span, self.report_error)
            case ast.Name():
                return env.names.get(expr.id) or Symbol(expr.id, expr.span)
            case ast.Negate():
                return self.arithmetic.negate(expr, self.resolve(expr.operand, env), env)
            case ast.Not():
                operand = self.evaluate(expr.operand, env)
                if _is_switch(operand, expr.operand):
                    return Scalar(not operand.value, None, expr.span)
                return self.masks.combined(expr, (operand,))
            case ast.Binary(op="&" | "|"):
                sides = self.evaluate(expr.left, env), self.evaluate(expr.right, env)
                return self.masks.combined(expr, sides)
            case ast.Binary(op="and" | "or"):
                return self._condition(expr, env)
            case ast.Compare():
                left, right = self.conditions.sides(expr, env)
                return self._compare(expr, left, right, env)
            case ast.Binary():
                left, right = self.resolve(expr.left, env), self.resolve(expr.right, env)
                return self.arithmetic.binary(expr, left, right, env)
            case ast.Call():
                return self._call(expr, env, None)
            case ast.Labeled():
                return self._labeled(expr, env)
            case ast.Chain():
                head, *steps = expr.steps
                return self.steps.run(self.resolve(head.value, env), head.value, steps, env)
            case ast.When():
                return self._when(expr, env)
            case ast.Several():
                values = [self.tensor(each, env) for each in expr.values]
                tensors = tuple(each for each in values if isinstance(each, Tensor))
                return Several(tensors) if len(tensors) == len(values) else POISON
            case ast.Lambda() | ast.Repeat():
                self.builder.skip(expr)
                return self.report_error(
                    "not-a-tensor",
                    "a value is needed here, and this is a block",
                    expr.span,
                    help="apply it to a tensor: `x -> { … }`",
                )
            case ast.Typed():
                return self.report_error(
                    "not-a-tensor",
                    f"the input `{expr.name.id}` cannot be declared here",
                    expr.span,
                    help="only a loss can declare an input among its arguments",
                )

    def resolve(self, expr: ast.Expr | ast.Typed, env: Env) -> Value:
        """The value of an expression; an unbound name is a mistake."""
        value = self.evaluate(expr, env)
        if isinstance(value, Symbol):
            return self.builder.report_unknown(value.name, value.span, env)
        return value

    def number(self, expr: ast.Expr, env: Env) -> Scalar | Poison:
        value = self.resolve(expr, env)
        if isinstance(value, Scalar | Poison):
            return value
        return self.report_error(
            "arithmetic",
            "a number is needed here",
            expr.span,
            found=describe(value),
            help=f"call it: `{expression(expr)}(…)`" if isinstance(value, Function) else None,
        )

    def tensor(self, expr: ast.Expr | ast.Typed, env: Env) -> Tensor | Poison:
        value = self.flow(expr, env)
        if isinstance(value, Tensor | Poison):
            return value
        return self.report_error(
            "not-a-tensor",
            "one tensor is needed here",
            expr.span,
            found=describe(value),
            help="name each: `a, b = …`",
        )

    def flow(self, expr: ast.Expr | ast.Typed, env: Env) -> Flow:
        """The value of an expression that is one tensor, or several."""
        value = self.resolve(expr, env)
        if isinstance(value, Tensor | Several | Poison):
            return value
        return self.report_error(
            "not-a-tensor", "a tensor is needed here", expr.span, found=describe(value)
        )

    def _condition(self, expr: ast.Expr, env: Env) -> Value:
        """A condition as a value: a switch."""
        holds = self.conditions.holds(expr, env)
        return holds if isinstance(holds, Poison) else Scalar(holds, None, expr.span)

    def _compare(self, expr: ast.Compare, left: Value, right: Value, env: Env) -> Value:
        """A comparison: of tensors a bool tensor, else a switch."""
        if isinstance(left, Tensor) or isinstance(right, Tensor):
            for side in (left, right):
                if isinstance(side, Symbol):
                    return self.builder.report_unknown(side.name, side.span, env)
            return self.arithmetic.compare(expr, left, right, env)
        holds = self.conditions.compare(expr, left, right)
        return holds if isinstance(holds, Poison) else Scalar(holds, None, expr.span)

    def _labeled(self, expr: ast.Labeled, env: Env) -> Value:
        if isinstance(expr.value, ast.Call):
            return self._call(expr.value, env, expr.label)
        self.builder.skip(expr)
        return self.report_error(
            "not-a-block",
            "only the call of a block can have a label",
            expr.span,
            expected="label: block(…)",
        )

    def _when(self, expr: ast.When, env: Env) -> Value:
        chosen = self.conditions.choose(expr, env)
        if isinstance(chosen, Poison):
            return chosen
        if chosen is None:
            return self.report_error(
                "not-a-tensor",
                "the condition is false, and there is no value for that case",
                expr.span,
                help="add a value: `a if condition else b`; only a step can be left out",
            )
        return self.evaluate(chosen, env)

    def _call(self, call: ast.Call, env: Env, label: ast.Name | None) -> Value:
        """A call whose tensor is among its arguments, or a function of numbers."""
        function = env.names.get(call.callee.id)
        if is_mask(call.callee.id, env.names, env.scope):
            return self.masks.atom(call, env)
        if not isinstance(function, Function):
            return self.steps.call(call, env, None, label, named=True)
        if call.callee.id in OPS and len(call.args) == 1:
            x = self.resolve(call.args[0].value, env)
            if isinstance(x, Tensor):
                return self.steps.elementwise(call, x, env, label)
        args = [self.number(a.value, env) for a in call.args]  # type: ignore[arg-type]
        if any(isinstance(a, Poison) for a in args):
            return POISON
        return call_function(function, call, args, self.report_error)


def _is_switch(value: Value, expr: ast.Expr) -> TypeGuard[Scalar]:
    """Whether a value is `true` or `false`; one that is named `causal` is a mask."""
    named = isinstance(expr, ast.Name) and expr.id == "causal"
    return isinstance(value, Scalar) and isinstance(value.value, bool) and not named
