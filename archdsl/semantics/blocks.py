"""A block of a file where it is called: its parameters bound, its body walked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archdsl.diagnostics import Note, Span, listing
from archdsl.semantics.binding import Bound
from archdsl.semantics.library import Definition
from archdsl.semantics.numbers import SQRT
from archdsl.semantics.values import (
    POISON,
    Closure,
    Env,
    Poison,
    Scalar,
    Symbol,
    Tensor,
    Value,
    fits,
    kind,
)
from archdsl.syntax import ast

if TYPE_CHECKING:
    from archdsl.semantics.elaborate import Elaborator

_MOST = 10_000  # calls of blocks in one model: far beyond any, and walked in seconds


class Blocks:
    """Enters blocks, each time with the sizes of the call."""

    def __init__(self, work: Elaborator):
        self.work = work
        self.wrong = work.wrong
        self.entered = 0

    def enter(
        self,
        definition: Definition,
        slots: dict[str, list[Bound]],
        span: Span,
        place: str,
        env: Env,
        label: ast.Name | None,
        named: bool,
    ) -> Tensor | Poison:
        """A block of a file, its body walked with its parameters bound."""
        block, names = definition.block, [b.name.id for b, _ in env.within]
        around = [i for i, (b, _) in enumerate(env.within) if b is block]
        if around:
            through = listing(names[around[-1] + 1 :], "and")
            return self.wrong(
                "cycle",
                f"`{block.name.id}` calls itself"
                + (f" by way of {through}" if through else ""),
                span,
                help="a block is repeated by `block * n`",
            )
        self.entered += 1
        if self.entered > _MOST:
            return self.wrong(
                "cycle",
                f"more than {_MOST} blocks are entered here",
                span,
                help="blocks that call the next one twice double at every level; "
                "a block is repeated by `block * n`",
            )
        inner = Env(definition.scope, {"sqrt": SQRT}, within=(*env.within, (block, span)))
        outer_names: dict[str, str | None] = {}
        for param in block.params.params:
            bound = slots.get(param.name.id, [None])[0]
            value = self._parameter(block, param, bound, inner, outer_names)
            inner.names[param.name.id] = value
        if any(isinstance(value, Poison) for value in inner.names.values()):
            return POISON
        building, where = self.work.building, label.span if label else span
        with (
            building.standing_in(inner),
            building.places.inside(place, where, named, bool(label)),
        ):
            result = self._body(block, inner)
        if isinstance(result, Poison):
            return result
        if block.type and not self.work.shapes.agrees(
            result.type, block.type, inner, f"the value of `{block.name.id}`"
        ):
            return POISON
        return Tensor(result.ref, self.work.shapes.outside(result.type, outer_names))

    def _parameter(
        self,
        block: ast.Block,
        param: ast.Param,
        bound: Bound | None,
        env: Env,
        outer_names: dict[str, str | None],
    ) -> Value:
        work = self.work
        if isinstance(param.type, ast.Type):
            if bound is None:
                assert param.default is not None
                with work.building.standing_in(env):
                    value: Value = work.tensor(param.default, env)
                span = param.default.span
            else:
                value, span = bound.value, bound.span
            if not isinstance(value, Tensor):
                return value
            type = work.shapes.bind(value.type, param, span, env, outer_names)
            return POISON if type is None else Tensor(value.ref, type)
        if isinstance(param.type, ast.BlockType):
            if bound is not None:
                return bound.value
            assert param.default is not None
            return Closure(param.default, env)
        default = self._default(block, param, env)
        if bound is None or isinstance(default, Poison):
            assert default is not None
            return default
        value = bound.value
        if isinstance(value, Symbol) and isinstance(default, Scalar):
            return work.building.unknown(value.name, value.span, env)
        if fits(value, default):
            return value
        switch = isinstance(default, Scalar) and isinstance(default.value, bool)
        return work.building.misfit(
            block.name.id,
            param.name.id,
            bound.span,
            kind(default),
            value,
            notes=(Note("it is declared here", param.span),),
            help=f"arguments go by order; another is named: `… = {bound.span.text}`"
            if switch
            else None,
        )

    def _default(self, block: ast.Block, param: ast.Param, env: Env) -> Value | None:
        """The number or the choice that a parameter has where it is not given."""
        if param.default is None:
            return None
        with self.work.building.standing_in(env):
            value = self.work.value(param.default, env)
            if isinstance(value, Scalar):
                return Scalar(value.value, value.name or param.name.id, value.origin)
            if isinstance(value, Symbol | Poison):
                return value
            return self.work.building.misfit(
                block.name.id, param.name.id, param.default.span, kind(None), value
            )

    def _body(self, block: ast.Block, env: Env) -> Tensor | Poison:
        """The value of a block; reading has found that it has one, and each name once."""
        result: Tensor | Poison = POISON
        for statement in block.body.statements:
            if isinstance(statement, ast.Edge):
                self.edge(statement, env)
            elif isinstance(statement, ast.Result):
                result = self.work.tensor(statement.value, env)
        return result

    def edge(self, statement: ast.Edge, env: Env) -> None:
        """`name = expression`."""
        env.names.setdefault(statement.name.id, self.work.known(statement.value, env))
