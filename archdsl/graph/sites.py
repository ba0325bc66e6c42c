"""Each operator of a graph as the `Site` that its rules see, and the weights it has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

from archdsl.frozen import Frozen
from archdsl.graph.nodes import Apply, Graph, Node, Stack, walk
from archdsl.graph.ops import OPERATORS
from archdsl.graph.signature import Site, Weight
from archdsl.graph.types import Type


def site(graph: Graph, node: Apply, types: Mapping[str, Type]) -> Site:
    """The use of an operator that a node is; `types` are those of the graph's values."""
    tensors = {param: types[ref] for param, ref in node.inputs}
    return Site(tensors, dict(node.attrs), {v.name: v for v in graph.varying}, {})


def sites(graph: Graph) -> Iterator[tuple[Apply, tuple[Stack, ...], Site]]:
    """Every operator with the stacks around it and its site; the loss is not among them."""
    types = graph.types()
    for node, around in walk(graph.nodes):
        if isinstance(node, Apply):
            yield node, around, site(graph, node, types)


class Parameter(Frozen):
    """A trainable tensor of a model: its full path and what it is."""

    path: str
    weight: Weight
    node: str


def parameters(graph: Graph, most: int | None = None) -> Iterator[Parameter]:
    """All trainable tensors, in the order of computing, copies of a stack one by one; of no
    stack more than the first `most` copies where that is given."""
    weights = {node.id: OPERATORS[node.op].weights(site) for node, _, site in sites(graph)}

    def within(nodes: tuple[Node, ...], around: str) -> Iterator[Parameter]:
        for node in nodes:
            match node:
                case Apply():
                    before = f"{around}{node.path}." if node.path else around
                    for weight in weights[node.id]:
                        yield Parameter(f"{before}{weight.name}", weight, node.id)
                case Stack():
                    for i in range(node.count)[:most]:
                        yield from within(node.body, f"{around}{node.path}.{i}.")

    return within(graph.nodes, "")


def parameters_in_all(graph: Graph) -> int:
    """How many trainable tensors there are, none of them named."""
    return sum(
        len(OPERATORS[node.op].weights(site)) * prod(stack.count for stack in around)
        for node, around, site in sites(graph)
    )


def place(path: str, around: tuple[Stack, ...], copy: tuple[int | str, ...]) -> str:
    """The full path of a node in one copy of the stacks around it."""
    parts = [f"{stack.path}.{i}" for stack, i in zip(around, copy, strict=True)]
    return ".".join(p for p in (*parts, path) if p)
