"""The values that expressions can have while a model is elaborated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from archdsl.diagnostics import Span
from archdsl.frozen import Frozen
from archdsl.graph import masks
from archdsl.graph.masks import Mask
from archdsl.graph.types import Axis, Type
from archdsl.semantics.library import Scope
from archdsl.syntax import ast


class Scalar(Frozen):
    """A number, truth value or string; `name` and `origin` say where it is bound."""

    value: int | float | bool | str
    name: str | None = None
    origin: Span | None = None

    @property
    def is_number(self) -> bool:
        return not isinstance(self.value, bool | str)

    @property
    def text(self) -> str:
        """The value as the language writes it."""
        if isinstance(self.value, str):
            return f'"{self.value}"'
        return str(self.value).lower() if isinstance(self.value, bool) else str(self.value)


class Symbol(Frozen):
    """An unbound name: it can be a choice (`learned`) or a switch (`causal`)."""

    name: str
    span: Span


class Extent(Frozen):
    """A varying axis, to which a block may give another name."""

    axis: Axis


class Rest(Frozen):
    """The axes that `...` stands for in a block."""

    axes: tuple[Axis, ...]


class Tensor(Frozen):
    """A value of the graph: a node or an input."""

    ref: str
    type: Type


class Several(Frozen):
    """Two or more values of the graph: `(a, b)`, or the results of a block."""

    tensors: tuple[Tensor, ...]


class MaskValue(Frozen):
    """What attention may see; `tensors` are the types of the tensors in it, by their ids."""

    mask: Mask
    tensors: tuple[tuple[str, Type], ...] = ()


class Closure(Frozen):
    """A block passed as an argument: its expression, and the names that it sees."""

    expr: ast.Expr
    env: Env


class Part(Frozen):
    """A labelled block of a body, and the path of the group of steps that it is in."""

    block: ast.Expr
    label: ast.Name
    prefix: str


class Function(Frozen):
    """A function of numbers, such as `sqrt`.

    `optional`: arguments can be left out; `texts`: the parameters that take strings.
    """

    call: Callable[..., int | float | str]
    params: tuple[str, ...]
    optional: bool = False
    texts: tuple[str, ...] = ()


class Poison:
    """The value of an expression with a mistake. Using it is not reported again."""


POISON = Poison()

Value: TypeAlias = (
    Scalar | Symbol | Extent | Rest | Tensor | Several | MaskValue | Closure | Function | Poison
)
# What passes along an arrow.
Flow: TypeAlias = Tensor | Several | Poison


@dataclass
class Env:
    """The names that a body sees: its values, and the blocks of its file.

    `within` are the enclosing blocks and their calls, outermost first; `labels` are the paths
    of the body's `embed`s, and `parts` its labelled blocks by path.
    """

    scope: Scope
    names: dict[str, Value] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    within: tuple[tuple[ast.Block, Span], ...] = ()
    parts: dict[str, Part] = field(default_factory=dict)


def describe(value: Value) -> str:
    """A value for a message, with the name that it is bound to."""
    if isinstance(value, Scalar) and value.name:
        return f"{value.name} = {value.text}"
    return value_text(value)


def value_text(value: Value) -> str:
    """A value for a message that shows its name elsewhere."""
    match value:
        case Scalar():
            return value.text
        case Tensor():
            return f"a tensor {value.type}"
        case Several():
            return f"{len(value.tensors)} tensors"
        case Rest():
            return f"{len(value.axes)} axes"
        case Extent():
            return f"the varying axis {value.axis}"
        case MaskValue():
            return f"a mask {masks.shown(value.mask)}"
        case Closure():
            return "a block"
        case Function():
            return "a function of numbers"
        case Symbol():
            return f"the name `{value.name}`"
        case Poison():
            return "a value with a mistake"


def kind_text(default: Value | None) -> str:
    """The values that a parameter with this default accepts, for a message."""
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
            return "a number, the name of an option, or `none`"
        case Symbol():
            return "the name of an option"
        case _:
            return "a number or the name of an option"


def whole(value: Value, default: Value | None) -> Value:
    """A value for a parameter: 1e6 is a whole number where the default is one."""
    if not (isinstance(value, Scalar) and isinstance(default, Scalar)):
        return value
    number = value.value
    if type(default.value) is int and isinstance(number, float) and number.is_integer():
        return Scalar(int(number), value.name, value.origin)
    return value


def fraction_help(param: ast.Param, value: Value, default: Value | None) -> str | None:
    """A help line for a fraction where the default of a parameter is a whole number."""
    if not (isinstance(value, Scalar) and isinstance(param.default, ast.Int)):
        return None
    if not isinstance(value.value, float) or not isinstance(default, Scalar):
        return None
    name, written = param.name.id, f"{param.name.id} = {param.default.text}.0"
    return f"if `{name}` may be a fraction, write its default as one: `{written}`"


def fits(value: Value, default: Value | None) -> bool:
    """Whether a parameter with this default accepts a value of this kind."""
    match value, default:
        case (Scalar() | Symbol() | MaskValue(), None) | (Symbol(), Symbol()):
            return True
        case (MaskValue() | Tensor(type=Type(dtype="bool")), Symbol()):
            return True  # `mask = none`
        case Tensor(), Symbol(name="none"):
            return True  # `bias = none`
        case (MaskValue() | Symbol(), MaskValue()):
            return True
        case Scalar(), Symbol(name="none"):
            return True
        case Scalar(value=found), Scalar(value=old):
            return type(found) is type(old) or (type(found) is int and type(old) is float)
        case _:
            return False
