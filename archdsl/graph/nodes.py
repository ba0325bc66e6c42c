"""The typed graph: what a model computes, every name resolved and every size known.

A value is known by its id, unique in the graph: an input's name, or `%` and a number. A
`Stack` keeps its body once, however often it is repeated; the body may use the values
around it. Paths name the places of weights: those inside a stack are relative to one copy.
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


class Apply(Frozen):
    """One operator applied to values. `inputs` and `attrs` go by the operator's parameters."""

    id: str
    op: str
    inputs: tuple[tuple[str, str], ...]
    attrs: tuple[tuple[str, Attribute], ...]
    path: str
    type: Type
    span: Span | None = field(default=None, compare=False, repr=False)

    @property
    def attr(self) -> Mapping[str, Attribute]:
        return dict(self.attrs)


class Stack(Frozen):
    """A block repeated `count` times, each copy with weights of its own under `path.i`."""

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


Node: TypeAlias = Apply | Stack


class Input(Frozen):
    """A value given from outside; `pad` is the number that fills a ragged axis."""

    name: str
    type: Type
    pad: int | None = None
    span: Span | None = field(default=None, compare=False, repr=False)


class Graph(Frozen):
    """A model with all its parameters fixed.

    `init` is the rule by which fresh weights are drawn: its name and its numbers.
    `labels` are inputs that only the loss has.
    """

    name: str
    varying: tuple[Varying, ...]
    inputs: tuple[Input, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[tuple[str, str], ...]
    labels: tuple[Input, ...] = ()
    loss: Apply | None = None
    init: tuple[str, tuple[tuple[str, float], ...]] = ("normal", (("std", 0.02),))

    def types(self) -> dict[str, Type]:
        """The type of every value, by id."""
        types = {i.name: i.type for i in (*self.inputs, *self.labels)}
        for node, _ in walk(self.nodes):
            types[node.id] = node.type
            if isinstance(node, Stack):
                types[node.carry] = node.carry_type
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
            return tuple(ref for _, ref in node.inputs)
        case Stack():
            own = {node.carry, *(inner.id for inner in node.body)}
            used = [*(ref for inner in node.body for ref in refs(inner)), node.result]
            outside = (ref for ref in used if ref not in own)
            return tuple(dict.fromkeys((node.input, *outside)))
