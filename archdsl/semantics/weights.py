"""`weight name: type = start`: a trained tensor as a value of a body."""

from __future__ import annotations

from dataclasses import replace

from archdsl.diagnostics import did_you_mean
from archdsl.graph.nodes import Apply
from archdsl.graph.ops import OPS
from archdsl.graph.types import Type
from archdsl.semantics.binding import Arguments, Bound
from archdsl.semantics.evaluators import Evaluators
from archdsl.semantics.graph_builder import GraphBuilder
from archdsl.semantics.operators import Operators
from archdsl.semantics.shapes import Shapes
from archdsl.semantics.values import POISON, Env, Poison, Scalar, Symbol, Tensor, describe
from archdsl.syntax import ast

# Names of how a weight starts: with this number, or, for None, as the model's `init` says.
_STARTS = {"zeros": 0.0, "ones": 1.0, "none": None}
_EXPECTED = "`zeros`, `ones`, a number, or `normal(std = 0.02)`"


class Weights:
    """Adds trained tensors to the graph."""

    def __init__(
        self,
        builder: GraphBuilder,
        operators: Operators,
        shapes: Shapes,
        evaluators: Evaluators,
    ):
        self.builder = builder
        self.operators = operators
        self.shapes = shapes
        self.evaluators = evaluators

    def value(self, node: ast.Weight, env: Env) -> Tensor | Poison:
        """The tensor of a statement; its path is its name in the body."""
        type = self._type(node, env)
        start = self._start(node.start, env)
        if type is None or start is None:
            return POISON
        sizes = (Scalar(axis.size.value or 0) for axis in type.axes)
        slots = {"sizes": [Bound(None, size, node.type.span) for size in sizes]}
        slots |= {name: [each] for name, each in start.items()}
        slots = {name: bounds for name, bounds in slots.items() if bounds}
        made = self.operators.apply(
            OPS["weight"], Arguments(slots), node.span, node.name.id, env, node.name
        )
        if isinstance(made, Poison):
            return made
        *before, new = self.builder.nodes
        path = new.path
        for each in before:
            if isinstance(each, Apply) and (each.op, each.path) == ("weight", path):
                self.builder.nodes.pop()  # a block that is used again has the same weights
                return Tensor(each.id, type)
        self.builder.nodes[-1] = replace(new, type=type)  # with the names of its axes
        return Tensor(made.ref, type)

    def _type(self, node: ast.Weight, env: Env) -> Type | None:
        """The type of a weight, or None after a report."""
        if node.type.dtype != "float":
            self.builder.report_error(
                "type-mismatch",
                "a weight has float values",
                node.type.span,
                expected="float[…]",
                found=node.type.dtype,
            )
            return None
        type = self.shapes.written(node.type, env)
        if type is not None and (varying := [a for a in type.axes if a.size.value is None]):
            self.builder.report_error(
                "axis",
                f"the axis `{varying[0].name or varying[0].size}` varies, and a weight has a "
                "fixed size",
                node.type.span,
                help="use the bound of the axis as the size",
            )
            return None
        return type

    def _start(self, expr: ast.Expr | None, env: Env) -> dict[str, Bound] | None:
        """The arguments `start` or `std` of the operator, or None after a report."""
        if expr is None:
            return {}
        if isinstance(expr, ast.Call) and expr.callee.id not in env.names:
            return self._drawn(expr, env)
        value = self.evaluators.evaluate(expr, env)
        if isinstance(value, Poison):
            return None
        if isinstance(value, Symbol) and value.name in _STARTS:
            number = _STARTS[value.name]
            return {} if number is None else {"start": Bound(expr, Scalar(number), expr.span)}
        if isinstance(value, Scalar) and not isinstance(value.value, bool | str):
            return {"start": Bound(expr, value, expr.span)}
        self.builder.report_error(
            "argument-value",
            f"a weight cannot start as {describe(value)}",
            expr.span,
            expected=_EXPECTED,
            help=did_you_mean(value.name, [*_STARTS, "normal"])
            if isinstance(value, Symbol)
            else None,
        )
        return None

    def _drawn(self, call: ast.Call, env: Env) -> dict[str, Bound] | None:
        """`normal(std = 0.02)`"""
        args = [a for a in call.args if not a.name or a.name.id == "std"]
        if call.callee.id != "normal" or len(args) != 1 or len(call.args) != 1:
            self.builder.skip(call)
            self.builder.report_error(
                "argument-value",
                f"a weight cannot start as `{call.span.text}`",
                call.span,
                expected=_EXPECTED,
            )
            return None
        std = self.evaluators.number(args[0].value, env)  # type: ignore[arg-type]
        if isinstance(std, Poison):
            return None
        return {"std": Bound(args[0].value, std, args[0].value.span)}
