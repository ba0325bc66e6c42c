"""A block of a file where it is called: its parameters bound, its body walked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archdsl.diagnostics import Span
from archdsl.semantics.binding import Bound
from archdsl.semantics.library import Definition
from archdsl.semantics.numbers import SQRT
from archdsl.semantics.values import (
    POISON,
    Env,
    Extent,
    Poison,
    Scalar,
    Symbol,
    Tensor,
    Value,
    describe,
)
from archdsl.syntax import ast
from archdsl.syntax.printer import type_text

if TYPE_CHECKING:
    from archdsl.semantics.elaborate import Elaborator


class Blocks:
    """Enters blocks, each time with the sizes of the call."""

    def __init__(self, work: Elaborator):
        self.work = work
        self.wrong = work.wrong
        self.active: list[ast.Block] = []  # the blocks around the place, outermost first

    def enter(
        self,
        definition: Definition,
        slots: dict[str, list[Bound]],
        span: Span,
        place: str,
        label: ast.Name | None,
        named: bool,
    ) -> Tensor | Poison:
        """A block of a file, its body walked with its parameters bound."""
        block = definition.block
        if block in self.active:
            return self.wrong("cycle", f"`{block.name.id}` calls itself", span)
        inner = Env(definition.scope, {"sqrt": SQRT})
        outer_names: dict[str, str | None] = {}
        for param in block.params.params:
            bound = slots.get(param.name.id, [None])[0]
            value = self._parameter(param, bound, inner, outer_names)
            if isinstance(value, Poison):
                return value
            inner.names[param.name.id] = value
        self.active.append(block)
        self.work.building.calls.append(span)
        try:
            with self.work.building.places.inside(
                place, label.span if label else span, named, bool(label)
            ):
                result = self._body(block, inner)
        finally:
            self.active.pop()
            self.work.building.calls.pop()
        if isinstance(result, Poison):
            return result
        if block.type and not self.work.shapes.agrees(
            result.type, block.type, inner, "the block's value"
        ):
            return POISON
        return Tensor(result.ref, self.work.shapes.outside(result.type, outer_names))

    def _parameter(
        self,
        param: ast.Param,
        bound: Bound | None,
        env: Env,
        outer_names: dict[str, str | None],
    ) -> Value:
        name = param.name.id
        if bound is None:
            assert param.default is not None
            value = self.work.value(param.default, env)
            if isinstance(value, Scalar):
                return Scalar(value.value, value.name or name, value.origin)
            return value
        value = bound.value
        if isinstance(param.type, ast.Type):
            if isinstance(value, Symbol):
                return self.work.building.unknown(value.name, value.span, env)
            if not isinstance(value, Tensor):
                return self.wrong(
                    "not-a-tensor",
                    f"`{name}` is a tensor",
                    bound.span,
                    expected=type_text(param.type),
                    found=describe(value),
                )
            inner = self.work.shapes.bind(value.type, param, bound.span, env, outer_names)
            return POISON if inner is None else Tensor(value.ref, inner)
        if isinstance(value, Tensor | Extent):
            return self.wrong(
                "argument-value",
                f"`{name}` is a number or a choice",
                bound.span,
                found=describe(value),
            )
        if isinstance(value, Symbol) and isinstance(
            param.default, ast.Int | ast.Float | ast.Bool
        ):
            return self.work.building.unknown(value.name, value.span, env, (name,))
        if isinstance(param.default, ast.Bool) and not (
            isinstance(value, Scalar) and isinstance(value.value, bool)
        ):
            return self.wrong(
                "argument-value",
                f"`{name}` is a switch",
                bound.span,
                expected="`true` or `false`",
                found=describe(value),
                help=f"arguments go by order; to mean another name it: `… = {bound.span.text}`",
            )
        return value

    def _body(self, block: ast.Block, env: Env) -> Tensor | Poison:
        result: Tensor | Poison | None = None
        for statement in block.body.statements:
            match statement:
                case ast.Edge():
                    self.edge(statement, env)
                case ast.Result() if result is None:
                    result = self.work.tensor(statement.value, env)
                case ast.Result():
                    return self.wrong(
                        "syntax",
                        "a block has one value",
                        statement.span,
                        help="name what comes before the last expression: `a = …`",
                    )
                case _:
                    self.wrong(
                        "syntax",
                        f"`{type(statement).__name__.lower()}` stands in models, not in blocks",
                        statement.span,
                    )
        if result is None:
            return self.wrong(
                "syntax",
                f"`{block.name.id}` has no value",
                block.name.span,
                expected="an expression as the last thing in its body",
            )
        return result

    def edge(self, statement: ast.Edge, env: Env) -> None:
        """`name = expression`."""
        if statement.name.id in env.names:
            self.wrong(
                "duplicate-name",
                f"`{statement.name.id}` is bound already",
                statement.name.span,
                help="an edge is drawn once; choose another name",
            )
        env.names[statement.name.id] = self.work.known(statement.value, env)
