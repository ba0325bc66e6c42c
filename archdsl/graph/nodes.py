"""The typed graph: what a model computes, every name resolved and every size known.

A value is known by its id, unique in the graph: an input's name, or `%` and a number. A
`Stack` keeps its body once, however often it is repeated; the body may use the values
around it. Paths name the places of weights: those inside a stack are relative to one layer.

Passes lower the same graph. They fuse pointwise operators into the product before them (its
`tail`), say which kernels an operator launches (`kernels`), and give each layer of a stack its
part of a value that has one for each (`Slice`), such as a cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import TypeAlias

from archdsl.diagnostics import Span
from archdsl.frozen import Frozen
from archdsl.graph.types import Type, Varying

# What an attribute of an operator can be; sizes of `mlp` and of `reshape` are tuples.
Attribute: TypeAlias = (
    int | float | bool | str | tuple[int, ...] | tuple[tuple[str, int], ...] | None
)


class Tail(Frozen):
    """A pointwise operator fused behind another one; `other` is its second operand."""

    op: str
    other: str | None = None


class Apply(Frozen):
    """One operator applied to values. `inputs` and `attrs` go by the operator's parameters.

    `tail` are the operators fused behind it, in order; `type` is the type of the last one.
    `kernels` are the kernels that it launches, in order, once they are selected.
    """

    id: str
    op: str
    inputs: tuple[tuple[str, str], ...]
    attrs: tuple[tuple[str, Attribute], ...]
    path: str
    type: Type
    span: Span | None = field(default=None, compare=False, repr=False)
    tail: tuple[Tail, ...] = ()
    kernels: tuple[str, ...] = ()

    @property
    def attr(self) -> Mapping[str, Attribute]:
        return dict(self.attrs)


class Slice(Frozen):
    """A value of a stack's body, `id`, and the value `of` all layers, whose first axis counts
    them."""

    id: str
    of: str
    type: Type


class Stack(Frozen):
    """A block repeated `count` times, each layer with weights of its own under `path.i`.

    `takes` are values of which each layer has its own part: `id` in the body is that of
    layer i, `of` is the value of all layers. `gives` are values of the body that are seen
    outside, for all layers: `of` in the body, `id` outside, with the type seen outside.
    """

    id: str
    input: str
    count: int
    path: str
    carry: str
    carry_type: Type
    body: tuple[Node, ...]
    result: str
    type: Type
    span: Span | None = field(default=None, compare=False, repr=False)
    takes: tuple[Slice, ...] = ()
    gives: tuple[Slice, ...] = ()


Node: TypeAlias = Apply | Stack


class Input(Frozen):
    """A value given from outside; `pad` is the number that fills a ragged axis."""

    name: str
    type: Type
    pad: int | None = None
    span: Span | None = field(default=None, compare=False, repr=False)


class Table(Frozen):
    """The table [vocab, dim] of an `embed` that another graph of the model has."""

    path: str
    vocab: int
    dim: int


class Graph(Frozen):
    """A model with all its parameters fixed.

    `init` is the rule by which fresh weights are drawn: its name and its numbers.
    `labels` are inputs that only the loss has. `tables` are those of a model's other graph,
    where a model has been split.
    """

    name: str
    varying: tuple[Varying, ...]
    inputs: tuple[Input, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[tuple[str, str], ...]
    labels: tuple[Input, ...] = ()
    loss: Apply | None = None
    init: tuple[str, tuple[tuple[str, float], ...]] = ("normal", (("std", 0.02),))
    tables: tuple[Table, ...] = ()

    def types(self) -> dict[str, Type]:
        """The type of every value, by id."""
        types = {i.name: i.type for i in (*self.inputs, *self.labels)}
        for node, _ in walk(self.nodes):
            types[node.id] = node.type
            if isinstance(node, Stack):
                types[node.carry] = node.carry_type
                types |= {each.id: each.type for each in (*node.takes, *node.gives)}
        return types


def walk(
    nodes: tuple[Node, ...], prefix: tuple[Stack, ...] = ()
) -> Iterator[tuple[Node, tuple[Stack, ...]]]:
    """Every node with the stacks around it, outermost first, in the order of computing."""
    for node in nodes:
        yield node, prefix
        if isinstance(node, Stack):
            yield from walk(node.body, (*prefix, node))


def refs(node: Node) -> tuple[str, ...]:
    """The ids that a node uses from outside itself, in order."""
    match node:
        case Apply():
            fused = (each.other for each in node.tail if each.other is not None)
            return (*(ref for _, ref in node.inputs), *fused)
        case Stack():
            own = {node.carry, *(each.id for each in node.takes), *_made(node.body)}
            used = [*(ref for inner in node.body for ref in refs(inner)), node.result]
            outside = (ref for ref in used if ref not in own)
            sliced = (each.of for each in node.takes)
            return tuple(dict.fromkeys((node.input, *sliced, *outside)))


def _made(nodes: tuple[Node, ...]) -> Iterator[str]:
    """The ids of the values that nodes make, those seen outside of a stack among them."""
    for node in nodes:
        yield node.id
        if isinstance(node, Stack):
            yield from (each.id for each in node.gives)
