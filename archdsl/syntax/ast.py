"""The untyped tree: what a file says, before any name has a meaning.

Every node is a frozen dataclass, its span first. Spans take no part in equality, so that
trees compare by what they say and not by where they stand; comments and blank lines
(`Trivia`) do take part, because a printer may not lose them. A class bears the name of
the grammar rule that it comes from (`ExpectType` from `expect_type`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import TypeAlias

from archdsl.diagnostics import Span


@dataclass(frozen=True)
class Trivia:
    """What stands around a node without being part of it.

    `blank`: an empty line before it, of a statement or an item where none has to be.
    `leading`: whole-line comments above it, "" for an empty line among or below them.
    `trailing`: the comment behind it on its last line. What is inside a type has none.
    """

    blank: bool = False
    leading: tuple[str, ...] = ()
    trailing: str | None = None


PLAIN = Trivia()


@dataclass(frozen=True)
class _Node:
    span: Span = field(compare=False, repr=False)


# -- expressions --


@dataclass(frozen=True)
class Name(_Node):
    id: str


@dataclass(frozen=True)
class Int(_Node):
    text: str

    @property
    def value(self) -> int:
        return int(self.text)


@dataclass(frozen=True)
class Float(_Node):
    text: str

    @property
    def value(self) -> float:
        return float(self.text)


@dataclass(frozen=True)
class Bool(_Node):
    value: bool


@dataclass(frozen=True)
class String(_Node):
    value: str


@dataclass(frozen=True)
class Negate(_Node):
    operand: Expr


@dataclass(frozen=True)
class Binary(_Node):
    left: Expr
    op: str
    right: Expr


@dataclass(frozen=True)
class Arg(_Node):
    name: Name | None
    value: Expr | Typed
    trivia: Trivia = PLAIN


@dataclass(frozen=True)
class Call(_Node):
    callee: Name
    args: tuple[Arg, ...]
    closing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Labeled(_Node):
    """`h: block(…) * n`: the label, a name or a path, is the place of the block's weights."""

    label: Name
    value: Expr


@dataclass(frozen=True)
class Step(_Node):
    value: Expr
    trivia: Trivia = PLAIN


@dataclass(frozen=True)
class Chain(_Node):
    """`x -> f -> g`: two steps or more, the first of them the value that flows."""

    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Lambda(_Node):
    """`{ f -> g }`: a block without a name."""

    steps: tuple[Step, ...]
    closing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Compare(_Node):
    """`kv_heads < heads`, as a condition."""

    left: Expr
    op: str
    right: Expr


@dataclass(frozen=True)
class Not(_Node):
    """`not tied`, as a condition."""

    operand: Expr


@dataclass(frozen=True)
class When(_Node):
    """`a if tied else b`: one of two, by what is known when a model is compiled.

    Without `otherwise` it is a step that is left out where the condition does not hold.
    """

    value: Expr
    condition: Condition
    otherwise: Expr | None


Expr: TypeAlias = (
    Name
    | Int
    | Float
    | Bool
    | String
    | Negate
    | Binary
    | Call
    | Labeled
    | Chain
    | Lambda
    | When
)
Condition: TypeAlias = Expr | Compare | Not

# -- types --


@dataclass(frozen=True)
class Axis(_Node):
    """`D`, `3 * patch`, or `T <= context`: a size, or a varying axis and its bound."""

    size: Expr
    bound: Expr | None


@dataclass(frozen=True)
class Type(_Node):
    """`int[T <= context] < vocab pad 0`."""

    dtype: str
    axes: tuple[Axis, ...]
    below: Expr | None
    pad: Expr | None


@dataclass(frozen=True)
class BlockType(_Node):
    """The type of a parameter that takes a block."""


@dataclass(frozen=True)
class Typed(_Node):
    """`label: int < classes` inside a loss: an input that only training has."""

    name: Name
    type: Type


# -- statements --


@dataclass(frozen=True)
class Input(_Node):
    name: Name
    type: Type
    trivia: Trivia = PLAIN


@dataclass(frozen=True)
class Edge(_Node):
    name: Name
    value: Expr
    trivia: Trivia = PLAIN


@dataclass(frozen=True)
class Output(_Node):
    name: Name
    type: Type
    value: Expr
    trivia: Trivia = PLAIN


@dataclass(frozen=True)
class Loss(_Node):
    call: Call
    trivia: Trivia = PLAIN


@dataclass(frozen=True)
class Init(_Node):
    rule: Call | Name
    trivia: Trivia = PLAIN


@dataclass(frozen=True)
class Expect(_Node):
    left: Expr
    op: str
    right: Expr
    trivia: Trivia = PLAIN


@dataclass(frozen=True)
class ExpectType(_Node):
    name: Name
    type: Type
    trivia: Trivia = PLAIN


@dataclass(frozen=True)
class Result(_Node):
    """The last expression of a block: its value."""

    value: Expr
    trivia: Trivia = PLAIN


Statement: TypeAlias = Input | Edge | Output | Loss | Init | Expect | ExpectType | Result

# -- the items of a file --


@dataclass(frozen=True)
class Param(_Node):
    name: Name
    type: Type | BlockType | None
    default: Expr | None
    trivia: Trivia = PLAIN


@dataclass(frozen=True)
class Params(_Node):
    params: tuple[Param, ...]
    closing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Body(_Node):
    statements: tuple[Statement, ...]
    closing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts(_Node):
    statements: tuple[Expect | ExpectType, ...]
    closing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Use(_Node):
    path: String
    trivia: Trivia = PLAIN


@dataclass(frozen=True)
class Block(_Node):
    name: Name
    params: Params
    type: Type | None
    body: Body
    trivia: Trivia = PLAIN


@dataclass(frozen=True)
class Model(_Node):
    name: Name
    params: Params
    body: Body
    trivia: Trivia = PLAIN


@dataclass(frozen=True)
class Variant(_Node):
    name: Name
    call: Call
    facts: Facts | None
    trivia: Trivia = PLAIN


@dataclass(frozen=True)
class Path(_Node):
    """`encoder.{i}.attention.*`: names of weights, ours or a checkpoint's."""

    text: str


@dataclass(frozen=True)
class Conversion(_Node):
    """`split`, or `shaped(1, 1, D)`: what a checkpoint's tensor goes through to be ours."""

    name: Name
    args: tuple[Expr, ...]


@dataclass(frozen=True)
class Rule(_Node):
    """`ours = theirs | or_theirs -> transpose -> split`."""

    ours: Path
    theirs: tuple[Path, ...]
    conversions: tuple[Conversion, ...]
    trivia: Trivia = PLAIN


@dataclass(frozen=True)
class Ignore(_Node):
    theirs: Path
    trivia: Trivia = PLAIN


@dataclass(frozen=True)
class Optional(_Node):
    """`optional transformer.`: the names may also stand without this in front."""

    prefix: Path
    trivia: Trivia = PLAIN


@dataclass(frozen=True)
class Setting(_Node):
    """`rope_theta = theta default 10000.0`: a field of a published config, under its names."""

    fields: tuple[Name, ...]
    value: Expr | Not
    default: Expr | None
    trivia: Trivia = PLAIN


@dataclass(frozen=True)
class Only(_Node):
    """`if tied { … }`: lines that stand there only where the condition holds."""

    condition: Condition
    rules: tuple[Line, ...]
    closing: tuple[str, ...] = ()
    trivia: Trivia = PLAIN


@dataclass(frozen=True)
class Config(_Node):
    """What the fields of a published `config.json` say of a model's parameters."""

    rules: tuple[Setting | Only, ...]
    closing: tuple[str, ...] = ()
    trivia: Trivia = PLAIN


# What stands below each other in a `weights` block.
Line: TypeAlias = Config | Optional | Only | Rule | Ignore | Setting


@dataclass(frozen=True)
class Weights(_Node):
    title: String
    model: Name
    rules: tuple[Line, ...]
    closing: tuple[str, ...] = ()
    trivia: Trivia = PLAIN


Item: TypeAlias = Use | Block | Model | Variant | Weights


@dataclass(frozen=True)
class File(_Node):
    """A whole file. `closing` holds the comments below its last item."""

    items: tuple[Item, ...]
    closing: tuple[str, ...] = ()


Node: TypeAlias = (
    File
    | Item
    | Statement
    | Expr
    | Type
    | BlockType
    | Typed
    | Axis
    | Arg
    | Step
    | Param
    | Params
    | Body
    | Facts
    | Path
    | Conversion
    | Line
    | Compare
    | Not
)


def children(node: Node) -> Iterator[Node]:
    """The nodes directly inside a node, in the order of the text."""
    for each in fields(node):
        value = getattr(node, each.name)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, _Node):
                yield item  # type: ignore[misc]  # every _Node is one of the union


def walk(node: Node) -> Iterator[Node]:
    """A node and all that is inside it, in the order of the text."""
    yield node
    for child in children(node):
        yield from walk(child)
