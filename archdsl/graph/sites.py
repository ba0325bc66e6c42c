"""The `Site` of each operator of a graph, and the weights of the graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

from archdsl.frozen import Frozen
from archdsl.graph.nodes import Apply, Graph, Mixture, Node, Repeated, Scan, Stack, walk
from archdsl.graph.ops import OPERATORS
from archdsl.graph.signature import Site, Weight
from archdsl.graph.types import Type


def site(graph: Graph, node: Apply, types: Mapping[str, Type]) -> Site:
    """The `Site` of a node; `types` are the types of the graph's values."""
    tensors = {param: types[ref] for param, ref in node.inputs}
    return Site(tensors, dict(node.attrs), {v.name: v for v in graph.varying}, {})


def sites(graph: Graph) -> Iterator[tuple[Apply, tuple[Repeated, ...], Site]]:
    """Every operator with its enclosing stacks and mixtures, and its site, without the loss."""
    types = graph.types()
    for node, around in walk(graph.nodes):
        if isinstance(node, Apply):
            yield node, around, site(graph, node, types)


class Parameter(Frozen):
    """A trainable tensor of a model: its full path, its weight, and the id of its node."""

    path: str
    weight: Weight
    node: str


def parameters(graph: Graph, most: int | None = None) -> Iterator[Parameter]:
    """All trainable tensors in the order of execution, layer by layer. With `most`, only the
    first `most` layers of each stack."""
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
                case Mixture():
                    for i in range(node.count):
                        yield from within(node.body, f"{around}{node.path}.{i}.")
                case Scan():
                    pass  # its body has none

    return within(graph.nodes, "")


def count_parameters(graph: Graph) -> int:
    """The number of trainable tensors, without building their names."""
    return sum(
        len(OPERATORS[node.op].weights(site)) * prod(stack.count for stack in around)
        for node, around, site in sites(graph)
    )


def full_path(path: str, around: tuple[Repeated, ...], layers: tuple[int | str, ...]) -> str:
    """The full path of a node; `layers` are its numbers in the enclosing stacks and
    mixtures."""
    parts = [f"{stack.path}.{i}" for stack, i in zip(around, layers, strict=True)]
    return ".".join(p for p in (*parts, path) if p)
