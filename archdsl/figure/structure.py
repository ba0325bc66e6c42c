"""The tree of a figure: what is drawn, and how it is connected, without coordinates.

A body is a chain of steps from bottom to top. A step receives the value of the step before it.
It may receive others from its sides: the end of a side chain, or (`Ref`) the value of a step
that stands elsewhere. In a residual connection, that is an earlier step of the same chain.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field, fields
from typing import Any, Literal, TypeAlias, assert_never

from archdsl.diagnostics import Span
from archdsl.frozen import Frozen

Kind: TypeAlias = Literal[
    "attention", "feed", "norm", "embed", "linear", "activation", "plain", "other"
]
Level: TypeAlias = Literal["model", "block", "operator"]


class Origin(Frozen):
    """Where an item comes from: its path in the model, its source, and facts by their names.

    `span` is the innermost part of a spec that all of it comes from. `others` are those that
    some of it comes from, such as the operators of a block, and the calls that lead to it.
    """

    path: str = ""
    span: Span | None = field(default=None, compare=False, repr=False)
    others: tuple[Span, ...] = field(default=(), compare=False, repr=False)
    facts: tuple[tuple[str, str], ...] = ()

    @property
    def spans(self) -> tuple[Span, ...]:
        """All parts of specs that it comes from, the one of `span` first."""
        return self.others if self.span is None else (self.span, *self.others)


class Box(Frozen):
    """An operator or a block; a stack of `count` blocks that is not drawn open. `inside` is the
    figure of what it holds, for pages whose boxes open."""

    id: str
    title: str
    kind: Kind
    note: str = ""
    type: str = ""
    count: int | None = None
    origin: Origin = Origin()
    inside: Figure | None = field(default=None, compare=False, repr=False)


class Sign(Frozen):
    """An operator of two tensors, as a circle with its sign."""

    id: str
    sign: str
    type: str = ""
    origin: Origin = Origin()


class Text(Frozen):
    """An input, an output, or a constant: a word without a box."""

    id: str
    title: str
    type: str = ""
    origin: Origin = Origin()


class Part(Frozen):
    """A body in a frame. `note` says which layers have it if a stack has several kinds."""

    note: str
    body: Body


class Frame(Frozen):
    """Bodies in a frame: a stack of `count` layers, or a block (None)."""

    id: str
    title: str
    parts: tuple[Part, ...]
    note: str = ""
    count: int | None = None
    type: str = ""
    origin: Origin = Origin()


Item: TypeAlias = Box | Sign | Text | Frame


class Ref(Frozen):
    """The value of a step that stands elsewhere."""

    id: str


class Step(Frozen):
    """An item with what it receives besides the step before it."""

    item: Item
    sides: tuple[Chain | Ref, ...] = ()


class Chain(Frozen):
    """Steps from bottom to top; `foot` is the value that the first one receives, if any."""

    foot: str | None
    steps: tuple[Step, ...]


class Body(Frozen):
    """A chain from the value `carry` to the result, and chains that lead to other results."""

    carry: str | None
    chain: Chain
    others: tuple[Chain, ...] = ()


class Figure(Frozen):
    title: str
    body: Body


def steps(chain: Chain) -> Iterator[Step]:
    """The steps of a chain and of its side chains, without those in frames."""
    for step in chain.steps:
        yield step
        for side in step.sides:
            if isinstance(side, Chain):
                yield from steps(side)


def body_steps(body: Body) -> Iterator[Step]:
    for chain in (body.chain, *body.others):
        yield from steps(chain)


def items(body: Body) -> Iterator[Item]:
    """All items of a body, also those in frames."""
    for step in body_steps(body):
        yield step.item
        if isinstance(step.item, Frame):
            for part in step.item.parts:
                yield from items(part.body)


def show(figure: Figure) -> str:
    """Prints the tree, one step per line, bottom to top.

    `<- %3` are the values of other steps, and `side` is a chain that ends in the step above.
    """
    return "\n".join([figure.title, *_body(figure.body, "  ")]) + "\n"


def _body(body: Body, indent: str) -> Iterator[str]:
    yield from _chain(body.chain, indent)
    for chain in body.others:
        yield f"{indent}beside{_foot(chain)}"
        yield from _chain(chain, indent + "  ")


def _foot(chain: Chain) -> str:
    return "" if chain.foot is None else f" from {chain.foot}"


def _chain(chain: Chain, indent: str) -> Iterator[str]:
    for step in chain.steps:
        refs = [side.id for side in step.sides if isinstance(side, Ref)]
        from_ = f" <- {', '.join(refs)}" if refs else ""
        yield f"{indent}{item_text(step.item)}{from_}"
        for side in step.sides:
            if isinstance(side, Chain):
                yield f"{indent}  side{_foot(side)}"
                yield from _chain(side, indent + "    ")
        if isinstance(step.item, Frame):
            for part in step.item.parts:
                if part.note:
                    yield f"{indent}  {part.note}"
                yield from _body(part.body, indent + "  ")


def item_text(item: Item) -> str:
    match item:
        case Box():
            note = f" ({item.note})" if item.note else ""
            count = f" × {item.count}" if item.count is not None else ""
            return f"{item.id}: {item.title}{note}{count}"
        case Sign():
            return f"{item.id}: {item.sign}"
        case Text():
            return f"{item.id}: `{item.title}`"
        case Frame():
            note = f" ({item.note})" if item.note else ""
            count = f" × {item.count}" if item.count is not None else ""
            return f"{item.id}: [{item.title}{note}]{count}"
        case _:
            assert_never(item)


def appearance(body: Body) -> str:
    """A text that is equal for bodies that look alike: that differ only in the names of their
    own values, and in what they come from."""
    own = [*([body.carry] if body.carry else []), *(item.id for item in items(body))]
    numbers = {id: str(number) for number, id in enumerate(dict.fromkeys(own))}

    def seen(value: object) -> object:
        match value:
            case Origin():
                return None
            case Figure():
                return appearance(value.body)
            case Frozen():
                return type(value).__name__, [seen(each) for each in _values(value)]
            case tuple():
                return [seen(each) for each in value]
            case str():
                return numbers.get(value, value)
        return value

    return repr(seen(body))


def _values(node: Any) -> list[object]:
    return [getattr(node, each.name) for each in fields(node)]


def as_data(node: Any) -> dict[str, object]:
    """A node of the tree as JSON data: the fields of each node, and the name of its class."""
    found: dict[str, object] = {"node": type(node).__name__.lower()}
    for each in fields(node):
        value = getattr(node, each.name)
        match value:
            case Span():
                found |= {"file": value.source.path, "line": value.line}
            case _ if each.name in ("others", "inside"):
                pass  # for pages
            case tuple() if each.name == "facts":
                found["facts"] = dict(value)
            case tuple():
                found[each.name] = [as_data(inner) for inner in value]
            case Frozen():
                found[each.name] = as_data(value)
            case _ if each.name != "span":
                found[each.name] = value
    return found
