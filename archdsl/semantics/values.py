"""What an expression can mean while a model is elaborated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from archdsl.diagnostics import Span
from archdsl.graph.types import Axis, Type
from archdsl.semantics.library import Scope
from archdsl.syntax import ast


@dataclass(frozen=True)
class Scalar:
    """A number, truth value or string; `name` and `origin` are those of its binding."""

    value: int | float | bool | str
    name: str | None = None
    origin: Span | None = None

    @property
    def text(self) -> str:
        return str(self.value).lower() if isinstance(self.value, bool) else str(self.value)


@dataclass(frozen=True)
class Symbol:
    """A bare name bound to nothing: it can choose (`learned`) or switch (`causal`)."""

    name: str
    span: Span


@dataclass(frozen=True)
class Extent:
    """A varying axis, known by a block under a name of its own."""

    axis: Axis


@dataclass(frozen=True)
class Tensor:
    """A value of the graph."""

    ref: str
    type: Type


@dataclass(frozen=True)
class Closure:
    """A block given as an argument: the expression and where its names are looked up."""

    expr: ast.Expr
    env: Env


@dataclass(frozen=True)
class Function:
    """A function of numbers, such as `sqrt`; `optional`: its parameters may be left out."""

    call: Callable[..., int | float]
    params: tuple[str, ...]
    optional: bool = False


class Poison:
    """The value of what is wrong; whoever meets it says nothing more."""


POISON = Poison()

Value: TypeAlias = Scalar | Symbol | Extent | Tensor | Closure | Function | Poison


@dataclass
class Env:
    """The names that a body can see: its own, then the blocks of its file."""

    scope: Scope
    names: dict[str, Value] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)


def describe(value: Value) -> str:
    """What a value is, as a message says it."""
    match value:
        case Scalar():
            return (
                f"the number {value.text}" if not isinstance(value.value, str) else "a string"
            )
        case Tensor():
            return f"a tensor {value.type}"
        case Extent():
            return f"the axis {value.axis}"
        case Closure():
            return "a block"
        case Function():
            return "a function of numbers"
        case Symbol():
            return f"the name `{value.name}`"
        case Poison():
            return "something wrong"
