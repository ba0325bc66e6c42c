"""Inlines a block where it is called: binds its parameters and elaborates its body."""

from __future__ import annotations

from collections.abc import Sequence

from archdsl.diagnostics import Note, Span, listing
from archdsl.graph.masks import CAUSAL
from archdsl.semantics.binding import Arguments, Bound
from archdsl.semantics.evaluators import Evaluators
from archdsl.semantics.graph_builder import Called, GraphBuilder
from archdsl.semantics.library import Definition
from archdsl.semantics.numbers import FUNCTIONS
from archdsl.semantics.shapes import Shapes
from archdsl.semantics.states import States
from archdsl.semantics.values import (
    POISON,
    Closure,
    Env,
    Flow,
    MaskValue,
    Poison,
    Scalar,
    Several,
    Symbol,
    Tensor,
    Value,
    describe,
    fits,
    fraction_help,
    kind_text,
    whole,
)
from archdsl.semantics.weights import Weights
from archdsl.syntax import ast
from archdsl.syntax.printer import type_text

_MOST = 10_000  # calls of blocks in one model: more than any model has, and done in seconds


def names_of(
    statement: ast.Edge | ast.Edges | ast.State | ast.Weight,
) -> tuple[ast.Name, ...]:
    return statement.names if isinstance(statement, ast.Edges) else (statement.name,)


class Blocks:
    """Inlines blocks, each time with the sizes of the call."""

    def __init__(
        self, builder: GraphBuilder, weights: Weights, shapes: Shapes, evaluators: Evaluators
    ):
        self.builder = builder
        self.weights = weights
        self.shapes = shapes
        self.evaluators = evaluators
        self.states = States(builder, shapes, evaluators)
        self.inlined = 0
        self.cycles: set[frozenset[int]] = set()  # reported ones, by their blocks

    def inline(
        self,
        definition: Definition,
        arguments: Arguments,
        span: Span,
        place: str,
        env: Env,
        label: ast.Name | None,
        named: bool,
    ) -> Flow:
        """The value of a block at its arguments."""
        block = definition.block
        if self._is_endless(block, span, env):
            closures = [b.value for bounds in arguments.slots.values() for b in bounds]
            return self.builder.skip(*[c.expr for c in closures if isinstance(c, Closure)])
        inner = Env(definition.scope, dict(FUNCTIONS), within=(*env.within, (block, span)))
        outer_names: dict[str, str | None] = {}
        for param in block.params.params:
            name, bound = param.name.id, arguments.first(param.name.id)
            repeated = name in inner.names
            if bound is None and not arguments.sound:
                value: Value = self.shapes.poison(param, inner)
            else:
                value = self._parameter(block, param, bound, inner, outer_names)
            inner.names[name] = POISON if repeated else value
            self.builder.note(param.name.span, value)
        where = label.span if label else span
        with (
            self.builder.in_body_of(inner),
            self.builder.places.enter(place, where, named, bool(label)),
        ):
            result = self._body(block, inner)
            path = self.builder.places.prefix
            if named:
                self.builder.name_value(result, self.builder.places.prefix)
        if isinstance(result, Poison) or not self._has_type(block, result, inner):
            return POISON
        several = result.tensors if isinstance(result, Several) else (result,)
        if block.name.span not in self.builder.called:
            given = tuple(
                (name, value)
                for name, value in inner.names.items()
                if name in arguments.slots and isinstance(value, Tensor)
            )
            self.builder.called[block.name.span] = Called(path, given, several)
        types: list[ast.Type | None] = [None] * len(several)
        if block.type is not None:
            types = list(
                block.type.types if isinstance(block.type, ast.Types) else [block.type]
            )
            numbers = {p.name.id for p in block.params.params if p.type is None}
            outer_names |= {
                name: bounds[0].expr.id
                for name, bounds in arguments.slots.items()
                if name in numbers and isinstance(bounds[0].expr, ast.Name)
            }
        renamed = [
            Tensor(each.ref, self.shapes.with_caller_names(each.type, outer_names, type, inner))
            for each, type in zip(several, types, strict=True)
        ]
        return Several(tuple(renamed)) if isinstance(result, Several) else renamed[0]

    def _has_type(self, block: ast.Block, result: Tensor | Several, env: Env) -> bool:
        """Whether the value of a block has its declared type, or several theirs."""
        tensors = result.tensors if isinstance(result, Several) else (result,)
        if block.type is None:
            return True
        types = block.type.types if isinstance(block.type, ast.Types) else (block.type,)
        what = f"the value of `{block.name.id}`"
        if len(types) != len(tensors):
            self.builder.report_error(
                "type-mismatch",
                f"{what} does not have its declared type",
                block.type.span,
                expected=type_text(block.type),
                found=describe(result),
            )
            return False
        found = [
            self.shapes.check(tensor.type, type, env, what)
            for tensor, type in zip(tensors, types, strict=True)
        ]
        return all(found)

    def _is_endless(self, block: ast.Block, span: Span, env: Env) -> bool:
        """Whether this call never ends, or ends too late; reports it."""
        names = [b.name.id for b, _ in env.within]
        around = [i for i, (b, _) in enumerate(env.within) if b is block]
        if around:
            cycle = frozenset(id(b) for b, _ in env.within[around[-1] :])
            if cycle in self.cycles:
                return True
            self.cycles.add(cycle)
            through = listing(names[around[-1] + 1 :], "and")
            self.builder.report_error(
                "cycle",
                f"`{block.name.id}` calls itself" + (f" through {through}" if through else ""),
                span,
                help="to repeat a block, write `block * n`",
            )
            return True
        self.inlined += 1
        if self.inlined == _MOST + 1:
            self.builder.report_error(
                "cycle",
                f"the model calls more than {_MOST} blocks",
                span,
                help="a block that calls the next one twice doubles the calls at each level; "
                "to repeat a block, write `block * n`",
            )
        return self.inlined > _MOST

    def _parameter(
        self,
        block: ast.Block,
        param: ast.Param,
        bound: Bound | None,
        env: Env,
        outer_names: dict[str, str | None],
    ) -> Value:
        if isinstance(param.type, ast.Type):
            if bound is None:
                assert param.default is not None
                with self.builder.in_body_of(env):
                    value: Value = self.evaluators.tensor(param.default, env)
                span = param.default.span
            else:
                value, span = bound.value, bound.span
            if not isinstance(value, Tensor):
                return self.shapes.poison(param, env)
            type = self.shapes.bind(value.type, param, span, env, outer_names)
            return self.shapes.poison(param, env) if type is None else Tensor(value.ref, type)
        if isinstance(param.type, ast.BlockType):
            if bound is not None:
                return bound.value
            assert param.default is not None
            return Closure(param.default, env)
        default = self._default(block, param, env)
        if bound is None or isinstance(default, Poison):
            assert default is not None
            return default
        value = whole(bound.value, default)
        if isinstance(value, Symbol) and isinstance(default, Scalar):
            return self.builder.report_unknown(value.name, value.span, env)
        if isinstance(value, Poison) or fits(value, default):
            return value
        switch = isinstance(default, Scalar) and isinstance(default.value, bool)
        help = fraction_help(param, value, default)
        if switch:
            help = f"arguments are bound in order; to name one: `… = {bound.span.text}`"
        return self.builder.report_argument(
            block.name.id,
            param.name.id,
            bound.span,
            kind_text(default),
            value,
            notes=(Note("the parameter is declared here", param.span),),
            help=help,
        )

    def _default(self, block: ast.Block, param: ast.Param, env: Env) -> Value | None:
        """The number or choice that a parameter has if it is not given."""
        if param.default is None:
            return None
        with self.builder.in_body_of(env):
            value = self.evaluators.evaluate(param.default, env)
            if isinstance(value, Scalar):
                return Scalar(value.value, value.name or param.name.id, value.origin)
            if isinstance(value, Symbol | MaskValue | Poison):
                return value
            return self.builder.report_argument(
                block.name.id, param.name.id, param.default.span, kind_text(None), value
            )

    def _body(self, block: ast.Block, env: Env) -> Flow:
        """The value of a block's body."""
        result: Flow = POISON
        for statement in block.body.statements:
            if isinstance(statement, ast.Weight):
                self.bind_weight(statement, env)
            elif isinstance(statement, ast.Edge | ast.Edges):
                self.bind_edge(statement, env)
            elif isinstance(statement, ast.State):
                self.states.bind(statement, env)
            elif isinstance(statement, ast.Result):
                result = self.evaluators.flow(statement.value, env)
        return result

    def bind_edge(self, statement: ast.Edge | ast.Edges, env: Env) -> None:
        """`name = expression`. A name that is bound twice is POISON after that."""
        value = self._value(statement.value, env)
        names = names_of(statement)
        values: Sequence[Value] = [value]
        if isinstance(statement, ast.Edges):
            values = self._each(statement, value)
        for name, each in zip(names, values, strict=True):
            self.builder.name_value(each, self.builder.places.within(name.id))
            env.names[name.id] = POISON if name.id in env.names else each
            self.builder.note(name.span, each)

    def _value(self, expr: ast.Expr, env: Env) -> Value:
        """The value of an edge; `none`, as a side of a choice, leaves an argument out."""
        value = self.evaluators.evaluate(expr, env)
        if isinstance(value, Symbol):
            if value.name == "none" and isinstance(expr, ast.When):
                return value
            if value.name == "causal":
                return MaskValue(CAUSAL)
            return self.builder.report_unknown(value.name, value.span, env)
        return value

    def _each(self, statement: ast.Edges, value: Value) -> Sequence[Value]:
        """The values for the names of `a, b = expression`."""
        count = len(statement.names)
        if isinstance(value, Several) and len(value.tensors) == count:
            return value.tensors
        if not isinstance(value, Poison):
            self.builder.report_error(
                "not-a-tensor",
                f"this is not a value for each of the {count} names",
                statement.value.span,
                expected=f"{count} tensors",
                found=describe(value),
            )
        return [POISON] * count

    def bind_weight(self, statement: ast.Weight, env: Env) -> None:
        """`weight name: type = start`, a value like that of an edge."""
        value = self.weights.value(statement, env)
        env.names[statement.name.id] = POISON if statement.name.id in env.names else value
        self.builder.note(statement.name.span, value)
