"""The `Site` of each operator of a graph, and the weights of the graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import merge
from math import prod

from archdsl.frozen import Frozen
from archdsl.graph.nodes import Apply, Graph, Layers, Mixture, Node, Repeated, Scan, Stack, walk
from archdsl.graph.ops import OPERATORS
from archdsl.graph.printer import layer_numbers
from archdsl.graph.signature import Site, Weight
from archdsl.graph.types import Type


def site(graph: Graph, node: Apply, types: Mapping[str, Type]) -> Site:
    """The `Site` of a node; `types` are the types of the graph's values."""
    tensors = {param: types[ref] for param, ref in node.inputs}
    return Site(tensors, dict(node.attrs), {v.name: v for v in graph.varying}, {})


def sites(graph: Graph) -> Iterator[tuple[Apply, tuple[Repeated, ...], Site]]:
    """Every operator with the layers and mixtures that it is inside of, and its site, without
    the losses."""
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
    """All trainable tensors in the order of execution, layer by layer; those with several uses
    once. With `most`, only the first `most` layers of each kind, and experts."""
    seen: set[str] = set()
    for each in weight_uses(graph, most):
        if each.path not in seen:
            seen.add(each.path)
            yield each


def weight_uses(graph: Graph, most: int | None = None) -> Iterator[Parameter]:
    """The trainable tensors of each operator of each layer: those with several uses each
    time."""
    weights = {node.id: OPERATORS[node.op].weights(site) for node, _, site in sites(graph)}

    def within(nodes: tuple[Node, ...], around: str) -> Iterator[Parameter]:
        for node in nodes:
            match node:
                case Apply():
                    for weight in weights[node.id]:
                        yield Parameter(f"{around}{weight.path(node.path)}", weight, node.id)
                case Stack():
                    kinds = [node.layers(kind)[:most] for kind in range(len(node.bodies))]
                    for i in merge(*kinds):
                        body = node.bodies[node.kind(i)]
                        yield from within(body.nodes, f"{around}{node.place(i)}.")
                case Mixture():
                    for i in range(node.count)[:most]:
                        yield from within(node.body, f"{around}{node.path}.{i}.")
                case Scan():
                    pass  # its body has none

    return within(graph.nodes, "")


def count_parameters(graph: Graph) -> int:
    """The number of trainable tensors, without building their names."""
    return sum(len(weights) * times for _, weights, times in weights_of(graph))


def weights_of(graph: Graph) -> Iterator[tuple[str, tuple[Weight, ...], int]]:
    """The common path of each operator with weights, these, and how often the model has them:
    once for each layer of the stacks around it. Weights with several uses come once."""
    seen: set[str] = set()
    for node, around, here in sites(graph):
        weights = OPERATORS[node.op].weights(here)
        place = common_path(node.path, around) if weights else ""
        if weights and place not in seen:
            seen.add(place)
            yield place, weights, copies(around)


def copies(around: tuple[Repeated, ...]) -> int:
    """How many copies of a weight the layers and experts around it have."""
    counts = (e.count for e in around if isinstance(e, Mixture) or not e.stack.tied)
    return prod(counts)


def trained(graph: Graph) -> set[str]:
    """The ids of the operators that have weights."""
    return {node.id for node, _, here in sites(graph) if OPERATORS[node.op].weights(here)}


def full_path(path: str, around: tuple[Repeated, ...], layers: tuple[int | str, ...]) -> str:
    """The full path of a node; `layers` are its numbers in the enclosing stacks and
    mixtures."""
    parts = (each.place(number) for each, number in zip(around, layers, strict=True))
    return ".".join(p for p in (*parts, path) if p)


def common_path(path: str, around: tuple[Repeated, ...]) -> str:
    """One path for all layers of a kind: `{}`, or `{0-4, 6}`, in the place of a number."""
    return full_path(path, around, tuple(map(_numbers, around)))


def _numbers(around: Repeated) -> str:
    if isinstance(around, Layers) and around.stack.kinds:
        return f"{{{layer_numbers(around.stack.layers(around.kind))}}}"
    return "{}"
