"""What an expression can mean while a model is elaborated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from archdsl.diagnostics import Span
from archdsl.frozen import Frozen
from archdsl.graph.types import Axis, Type
from archdsl.semantics.library import Scope
from archdsl.syntax import ast


class Scalar(Frozen):
    """A number, truth value or string; `name` and `origin` are those of its binding."""

    value: int | float | bool | str
    name: str | None = None
    origin: Span | None = None

    @property
    def text(self) -> str:
        """The value as the language writes it."""
        if isinstance(self.value, str):
            return f'"{self.value}"'
        return str(self.value).lower() if isinstance(self.value, bool) else str(self.value)


class Symbol(Frozen):
    """A bare name bound to nothing: it can choose (`learned`) or switch (`causal`)."""

    name: str
    span: Span


class Extent(Frozen):
    """A varying axis, known by a block under a name of its own."""

    axis: Axis


class Tensor(Frozen):
    """A value of the graph."""

    ref: str
    type: Type


class Closure(Frozen):
    """A block given as an argument: the expression and where its names are looked up."""

    expr: ast.Expr
    env: Env


class Function(Frozen):
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
    """The names that a body can see: its own, then the blocks of its file.

    `within` are the blocks that the body is inside of and where each was called, outermost
    first; `labels` are the places of its `embed`s.
    """

    scope: Scope
    names: dict[str, Value] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    within: tuple[tuple[ast.Block, Span], ...] = ()


def describe(value: Value) -> str:
    """What a value is and what it is called, as a message says it."""
    if isinstance(value, Scalar) and value.name:
        return f"{value.name} = {value.text}"
    return said(value)


def said(value: Value) -> str:
    """What a value is, as a message says it where its name stands in sight."""
    match value:
        case Scalar():
            return value.text
        case Tensor():
            return f"a tensor {value.type}"
        case Extent():
            return f"the axis {value.axis}, which varies"
        case Closure():
            return "a block"
        case Function():
            return "a function of numbers"
        case Symbol():
            return f"the name `{value.name}`"
        case Poison():
            return "something wrong"


def kind(default: Value | None) -> str:
    """What may be given for a parameter of this default, as a message says it."""
    match default:
        case Scalar(value=bool()):
            return "`true` or `false`"
        case Scalar(value=int()):
            return "a whole number"
        case Scalar(value=float()):
            return "a number"
        case Scalar():
            return "a string"
        case Symbol(name="none"):
            return "a number, a name that chooses, or `none`"
        case Symbol():
            return "a name that chooses"
        case _:
            return "a number or a choice"


def fits(value: Value, default: Value | None) -> bool:
    """Whether a value may stand for a parameter of this default: it is of the same kind, or
    the default is `none`, which is of any."""
    match value, default:
        case (Scalar() | Symbol(), None) | (Symbol(), Symbol()):
            return True
        case Scalar(), Symbol(name="none"):
            return True
        case Scalar(value=found), Scalar(value=old):
            return type(found) is type(old) or (type(found) is int and type(old) is float)
        case _:
            return False
