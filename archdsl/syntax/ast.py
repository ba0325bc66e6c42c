"""The untyped tree: what a file says, before any name has a meaning.

Every node is a frozen dataclass, its span first. Spans take no part in equality, so that
trees compare by what they say and not by where they stand; comments and blank lines
(`Trivia`) do take part, because a printer may not lose them. A class bears the name of
the grammar rule that it comes from (`ExpectType` from `expect_type`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from typing import TypeAlias

from archdsl.diagnostics import Span
from archdsl.frozen import Frozen


class Trivia(Frozen):
    """What stands around a node without being part of it.

    `blank`: an empty line before it, of a statement or an item where none has to be.
    `leading`: whole-line comments above it, "" for an empty line among or below them.
    `trailing`: the comment behind it on its last line. What is inside a type has none.
    """

    blank: bool = False
    leading: tuple[str, ...] = ()
    trailing: str | None = None


PLAIN = Trivia()


class _Node(Frozen):
    span: Span = field(compare=False, repr=False)


# -- expressions --


class Name(_Node):
    id: str


class Int(_Node):
    text: str

    @property
    def value(self) -> int:
        return int(self.text)


class Float(_Node):
    text: str

    @property
    def value(self) -> float:
        return float(self.text)


class Bool(_Node):
    value: bool


class String(_Node):
    value: str


class Negate(_Node):
    operand: Expr


class Binary(_Node):
    left: Expr
    op: str
    right: Expr


class Arg(_Node):
    name: Name | None
    value: Expr | Typed
    trivia: Trivia = PLAIN


class Call(_Node):
    callee: Name
    args: tuple[Arg, ...]
    closing: tuple[str, ...] = ()


class Labeled(_Node):
    """`h: block(…) * n`: the label, a name or a path, is the place of the block's weights."""

    label: Name
    value: Expr


class Step(_Node):
    value: Expr
    trivia: Trivia = PLAIN


class Chain(_Node):
    """`x -> f -> g`: two steps or more, the first of them the value that flows."""

    steps: tuple[Step, ...]


class Lambda(_Node):
    """`{ f -> g }`: a block without a name."""

    steps: tuple[Step, ...]
    closing: tuple[str, ...] = ()


class Compare(_Node):
    """`kv_heads < heads`, as a condition."""

    left: Expr
    op: str
    right: Expr


class Not(_Node):
    """`not tied`, as a condition."""

    operand: Expr


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


class Axis(_Node):
    """`D`, `3 * patch`, or `T <= context`: a size, or a varying axis and its bound."""

    size: Expr
    bound: Expr | None


class Type(_Node):
    """`int[T <= context] < vocab pad 0`."""

    dtype: str
    axes: tuple[Axis, ...]
    below: Expr | None
    pad: Expr | None


class BlockType(_Node):
    """The type of a parameter that takes a block."""


class Typed(_Node):
    """`label: int < classes` inside a loss: an input that only training has."""

    name: Name
    type: Type


# -- statements --


class Input(_Node):
    name: Name
    type: Type
    trivia: Trivia = PLAIN


class Edge(_Node):
    name: Name
    value: Expr
    trivia: Trivia = PLAIN


class Output(_Node):
    name: Name
    type: Type
    value: Expr
    trivia: Trivia = PLAIN


class Loss(_Node):
    call: Call
    trivia: Trivia = PLAIN


class Init(_Node):
    rule: Call | Name
    trivia: Trivia = PLAIN


class Expect(_Node):
    left: Expr
    op: str
    right: Expr
    trivia: Trivia = PLAIN


class ExpectType(_Node):
    name: Name
    type: Type
    trivia: Trivia = PLAIN


class Result(_Node):
    """The last expression of a block: its value."""

    value: Expr
    trivia: Trivia = PLAIN


Statement: TypeAlias = Input | Edge | Output | Loss | Init | Expect | ExpectType | Result

# -- the items of a file --


class Param(_Node):
    name: Name
    type: Type | BlockType | None
    default: Expr | None
    trivia: Trivia = PLAIN


class Params(_Node):
    params: tuple[Param, ...]
    closing: tuple[str, ...] = ()


class Body(_Node):
    statements: tuple[Statement, ...]
    closing: tuple[str, ...] = ()


class Facts(_Node):
    statements: tuple[Expect | ExpectType, ...]
    closing: tuple[str, ...] = ()


class Use(_Node):
    path: String
    trivia: Trivia = PLAIN


class Block(_Node):
    name: Name
    params: Params
    type: Type | None
    body: Body
    trivia: Trivia = PLAIN


class Model(_Node):
    name: Name
    params: Params
    body: Body
    trivia: Trivia = PLAIN


class Variant(_Node):
    name: Name
    call: Call
    facts: Facts | None
    trivia: Trivia = PLAIN


class Path(_Node):
    """`encoder.{i}.attention.*`: names of weights, ours or a checkpoint's."""

    text: str


class Conversion(_Node):
    """`split`, or `shaped(1, 1, D)`: what a checkpoint's tensor goes through to be ours."""

    name: Name
    args: tuple[Expr, ...]


class Rule(_Node):
    """`ours = theirs | or_theirs -> transpose -> split`."""

    ours: Path
    theirs: tuple[Path, ...]
    conversions: tuple[Conversion, ...]
    trivia: Trivia = PLAIN


class Ignore(_Node):
    theirs: Path
    trivia: Trivia = PLAIN


class Optional(_Node):
    """`optional transformer.`: the names may also stand without this in front."""

    prefix: Path
    trivia: Trivia = PLAIN


class Setting(_Node):
    """`rope_theta = theta default 10000.0`: a field of a published config, under its names."""

    fields: tuple[Name, ...]
    value: Expr | Not
    default: Expr | None
    trivia: Trivia = PLAIN


class Only(_Node):
    """`if tied { … }`: lines that stand there only where the condition holds."""

    condition: Condition
    rules: tuple[Line, ...]
    closing: tuple[str, ...] = ()
    trivia: Trivia = PLAIN


class Config(_Node):
    """What the fields of a published `config.json` say of a model's parameters."""

    rules: tuple[Setting | Only, ...]
    closing: tuple[str, ...] = ()
    trivia: Trivia = PLAIN


# What stands below each other in a `weights` block.
Line: TypeAlias = Config | Optional | Only | Rule | Ignore | Setting


class Weights(_Node):
    title: String
    model: Name
    rules: tuple[Line, ...]
    closing: tuple[str, ...] = ()
    trivia: Trivia = PLAIN


Item: TypeAlias = Use | Block | Model | Variant | Weights


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
    for name in node.__match_args__:
        value = getattr(node, name)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, _Node):
                yield item  # type: ignore[misc]  # every _Node is one of the union


def walk(node: Node) -> Iterator[Node]:
    """A node and all that is inside it, in the order of the text."""
    yield node
    for child in children(node):
        yield from walk(child)
