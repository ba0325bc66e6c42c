"""The syntax tree of a file, before names are resolved.

Every node is a frozen dataclass whose first field is its span. Equality ignores spans, so trees
from different places can be compared. It includes comments and blank lines (`Trivia`), because
a printer must keep them. A class is named after its grammar rule: `ExpectType`, `expect_type`.
"""

from __future__ import annotations

from dataclasses import field
from typing import TypeAlias

from archdsl.diagnostics import Span
from archdsl.frozen import Frozen


class Trivia(Frozen):
    """Comments and blank lines around a node. Nodes inside a type have none.

    `blank`: an optional blank line before an item or statement.
    `leading`: comment lines above it, "" for a blank line between or below them.
    `trailing`: the comment after it on its last line.
    """

    blank: bool = False
    leading: tuple[str, ...] = ()
    trailing: str | None = None


PLAIN = Trivia()


class Spanned(Frozen):
    """A node of the tree."""

    span: Span = field(compare=False, repr=False)


# -- expressions --


class Name(Spanned):
    id: str


class Int(Spanned):
    text: str

    @property
    def value(self) -> int:
        return int(self.text)


class Float(Spanned):
    text: str

    @property
    def value(self) -> float:
        return float(self.text)


class Bool(Spanned):
    value: bool


class String(Spanned):
    value: str


class Negate(Spanned):
    operand: Expr


class Binary(Spanned):
    """Arithmetic, a mask of two (`&`, `|`), or a condition of two (`and`, `or`)."""

    left: Expr
    op: str
    right: Expr


class Repeat(Spanned):
    """`layer * depth as i`, `layer * depth tied`: layers that know their number, or that all
    have the same weights. Other repeated blocks are a `Binary`."""

    block: Expr
    count: Expr
    tied: bool
    number: Name | None


class Arg(Spanned):
    name: Name | None
    value: Expr | Typed
    trivia: Trivia = PLAIN


class Call(Spanned):
    callee: Name
    args: tuple[Arg, ...]
    closing: tuple[str, ...] = ()


class Labeled(Spanned):
    """`h: block(…) * n`: the label, a name or a path, is the path of the block's weights."""

    label: Name
    value: Expr


class Step(Spanned):
    value: Expr
    trivia: Trivia = PLAIN


class Chain(Spanned):
    """`x -> f -> g`: two or more steps, the first of which is a value."""

    steps: tuple[Step, ...]


class Lambda(Spanned):
    """`{ f -> g }`: a block without a name."""

    steps: tuple[Step, ...]
    closing: tuple[str, ...] = ()


class Several(Spanned):
    """`(a, b)`: two or more tensors, which pass along an arrow together."""

    args: tuple[Arg, ...]
    closing: tuple[str, ...] = ()

    @property
    def values(self) -> tuple[Expr | Typed, ...]:
        return tuple(arg.value for arg in self.args)


class Compare(Spanned):
    """`kv_heads < heads`: a condition, or a comparison of tensors."""

    left: Expr
    op: str
    right: Expr


class Not(Spanned):
    """`not tied`, a condition, or `not within(8)`, a mask."""

    operand: Expr


class When(Spanned):
    """`a if tied else b`: a choice that is made when a model is compiled.

    Without `otherwise`, a step that is left out if the condition is false.
    """

    value: Expr
    condition: Expr
    otherwise: Expr | None


Expr: TypeAlias = (
    Name
    | Int
    | Float
    | Bool
    | String
    | Negate
    | Not
    | Binary
    | Repeat
    | Call
    | Labeled
    | Chain
    | Lambda
    | Several
    | When
    | Compare
)

# -- types --


REST = "..."


class Axis(Spanned):
    """`D`, `3 * patch`, or `9 <= T <= context`: a size, or a varying axis and its bounds.

    `...`, with this name as its size, stands for any number of axes.
    """

    size: Expr
    bound: Expr | None
    least: Expr | None = None

    @property
    def is_rest(self) -> bool:
        return isinstance(self.size, Name) and self.size.id == REST


class Type(Spanned):
    """`int[T <= context] < vocab pad 0`."""

    dtype: str
    axes: tuple[Axis, ...]
    below: Expr | None
    pad: Expr | None


class Types(Spanned):
    """`(float[T, D], float[T])`: the types of a block with several results."""

    types: tuple[Type, ...]


class BlockType(Spanned):
    """The type of a parameter that takes a block."""


class Choices(Spanned):
    """`one_of(none, lm)`: the values of a parameter that chooses between parts of a model."""

    names: tuple[Name, ...]


class Typed(Spanned):
    """`label: int < classes` in a loss: an input that only training has."""

    name: Name
    type: Type


# -- statements --


class Input(Spanned):
    """An input; with a default, it need not be given."""

    name: Name
    type: Type
    default: Expr | None
    trivia: Trivia = PLAIN


class Weight(Spanned):
    """`weight sink: float[heads] = zeros`: a trained tensor, and how it starts."""

    name: Name
    type: Type
    start: Expr | None
    trivia: Trivia = PLAIN


class Edge(Spanned):
    name: Name
    value: Expr
    trivia: Trivia = PLAIN


class Edges(Spanned):
    """`q, k, v = x -> split(3)`: names for several values."""

    names: tuple[Name, ...]
    value: Expr
    trivia: Trivia = PLAIN


class State(Spanned):
    """`state s: float[H, K] along T from s0 = decay * s + u`: a value that each position gets
    from the one before; without `start` it begins with 0."""

    name: Name
    type: Type
    axis: Name
    start: Expr | None
    value: Expr
    trivia: Trivia = PLAIN


class Output(Spanned):
    """An output; with a condition, only models that fulfil it have it."""

    name: Name
    type: Type
    condition: Expr | None
    value: Expr
    trivia: Trivia = PLAIN


class Term(Spanned):
    """`0.1 * next_token(…)`: a loss and its weight in a sum."""

    weight: Int | Float | Name | None
    call: Call


class Loss(Spanned):
    """A sum of losses; with a condition, only models that fulfil it have it."""

    terms: tuple[Term, ...]
    condition: Expr | None
    trivia: Trivia = PLAIN


class Init(Spanned):
    rule: Call | Name
    trivia: Trivia = PLAIN


class Expect(Spanned):
    left: Expr
    op: str
    right: Expr
    trivia: Trivia = PLAIN


class ExpectType(Spanned):
    name: Name
    type: Type
    trivia: Trivia = PLAIN


class Result(Spanned):
    """The last expression of a block: its value."""

    value: Expr
    trivia: Trivia = PLAIN


Statement: TypeAlias = (
    Input | Weight | Edge | Edges | State | Output | Loss | Init | Expect | ExpectType | Result
)

# -- the items of a file --


class Param(Spanned):
    name: Name
    type: Type | BlockType | Choices | None
    default: Expr | None
    trivia: Trivia = PLAIN


class Params(Spanned):
    params: tuple[Param, ...]
    closing: tuple[str, ...] = ()


class Body(Spanned):
    statements: tuple[Statement, ...]
    closing: tuple[str, ...] = ()


class Facts(Spanned):
    statements: tuple[Expect | ExpectType, ...]
    closing: tuple[str, ...] = ()


class Use(Spanned):
    path: String
    trivia: Trivia = PLAIN


class Block(Spanned):
    name: Name
    params: Params
    type: Type | Types | None
    body: Body
    trivia: Trivia = PLAIN


class Model(Spanned):
    name: Name
    params: Params
    body: Body
    trivia: Trivia = PLAIN


class Variant(Spanned):
    name: Name
    call: Call
    facts: Facts | None
    trivia: Trivia = PLAIN


class Path(Spanned):
    """`encoder.{i}.attention.*`: names of weights, of the model or of a checkpoint."""

    text: str


class Conversion(Spanned):
    """`split` or `shaped(1, 1, D)`: converts a tensor of a checkpoint to a weight."""

    name: Name
    args: tuple[Expr, ...]


class Rule(Spanned):
    """`ours = theirs | or_theirs -> transpose -> split`."""

    ours: Path
    theirs: tuple[Path, ...]
    conversions: tuple[Conversion, ...]
    trivia: Trivia = PLAIN


class Ignore(Spanned):
    theirs: Path
    trivia: Trivia = PLAIN


class Optional(Spanned):
    """`optional transformer.`: a checkpoint may omit this prefix of its names."""

    prefix: Path
    trivia: Trivia = PLAIN


class Rename(Spanned):
    """`rename model.* = transformer.*`: another name of tensors in the other lines, or of
    fields in a config."""

    theirs: Path
    new: Path
    trivia: Trivia = PLAIN


class Setting(Spanned):
    """`rope_theta = theta default 10000.0`: a field of a published config.

    `default` is the value of a field that is missing or null, `null` that of one that is null.
    """

    fields: tuple[Name, ...]
    value: Expr
    default: Expr | None
    null: Expr | None
    trivia: Trivia = PLAIN


class Include(Spanned):
    """`include "rope"(10000.0)`: the lines of a `weights` item without a model."""

    title: String
    args: tuple[Arg, ...] = ()
    closing: tuple[str, ...] = ()
    trivia: Trivia = PLAIN


class Only(Spanned):
    """`if tied { … }`: lines that apply only if the condition is true."""

    condition: Expr
    rules: tuple[Line, ...]
    closing: tuple[str, ...] = ()
    trivia: Trivia = PLAIN


class Config(Spanned):
    """The fields of a published `config.json` for the parameters of a model."""

    rules: tuple[Setting | Rename | Only | Include, ...]
    closing: tuple[str, ...] = ()
    trivia: Trivia = PLAIN


# A line of a `weights` block.
Line: TypeAlias = Config | Optional | Rename | Only | Rule | Ignore | Setting | Include


class Weights(Spanned):
    title: String
    model: Name
    rules: tuple[Line, ...]
    closing: tuple[str, ...] = ()
    trivia: Trivia = PLAIN


class SharedLines(Spanned):
    """`weights "rope"(theta) { … }`: lines for the `weights` blocks that include them."""

    title: String
    params: Params | None
    rules: tuple[Line, ...]
    closing: tuple[str, ...] = ()
    trivia: Trivia = PLAIN


Item: TypeAlias = Use | Block | Model | Variant | Weights | SharedLines


class File(Spanned):
    """A whole file; `closing` are the comments below its last item."""

    items: tuple[Item, ...]
    closing: tuple[str, ...] = ()


Node: TypeAlias = (
    File
    | Item
    | Statement
    | Expr
    | Type
    | Types
    | BlockType
    | Choices
    | Typed
    | Axis
    | Arg
    | Step
    | Term
    | Param
    | Params
    | Body
    | Facts
    | Path
    | Conversion
    | Line
    | Compare
)
