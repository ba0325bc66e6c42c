"""Adds low-rank matrices to linear layers, which are trained in the place of their weights.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product

from archdsl.diagnostics import fail, listing
from archdsl.graph.nodes import Apply, Graph, Layers, Mixture, Node, Repeated, Stack, walk
from archdsl.graph.path_patterns import select
from archdsl.graph.sites import full_path, parameters
from archdsl.graph.types import Type
from archdsl.passes.decompose import decompose
from archdsl.passes.rewrite import Builder, join_path

A, B = "lora_A", "lora_B"
_SHOWN = 3


def add_lora(graph: Graph, rank: int, scale: float, targets: Iterable[str] = ()) -> Graph:
    """Adds scale * B A x to W x + b of linear layers, with weights `PATH.lora_A.weight`
    [rank, in] and `PATH.lora_B.weight` [out, rank]. The scale is alpha / rank in the paper.

    `targets` are patterns of the layers' paths (see `graph.path_patterns`), such as
    `h.*.attention.q`. Without any, all linear layers inside of stacks are changed. The layers
    of a stack stay alike. Raises `ArchError` if a pattern matches no linear layer, or not all
    layers of a kind.

    >>> from archdsl.graph.parser import parse
    >>> graph = parse('''graph G init normal(std = 0.02)
    ... input x: float[4]
    ... %1 = linear(x; dim = 8, bias = true) @ up: float[8]
    ... %2 = linear(%1; dim = 4, bias = false) @ down: float[4]
    ... output y = %2
    ... ''')
    >>> for node in add_lora(graph, rank=2, scale=0.5, targets=["down"]).nodes:
    ...     print(node.op, node.path, node.type)
    linear up float[8]
    linear down float[4]
    linear down.lora_A float[2]
    scale down.lora_scale float[2]
    linear down.lora_B float[4]
    add down.lora float[4]
    """
    graph = decompose(graph)
    return _add_to(graph, rank, scale, _targeted(graph, list(targets)))


def add_lora_to(graph: Graph, rank: int, scale: float, weights: Collection[str]) -> Graph:
    """The same for the layers with these weights, by path, and those of the same kind."""
    graph, wanted = decompose(graph), {path.removesuffix(".weight") for path in weights}
    layers = list(_layers_without_adapter(graph))
    chosen = {node.id for node, _, paths in layers if not wanted.isdisjoint(paths)}
    return _add_to(graph, rank, scale, chosen)


def _add_to(graph: Graph, rank: int, scale: float, chosen: Collection[str]) -> Graph:
    adapter = _Adapter(Builder(graph), chosen, rank, scale)
    return replace(graph, nodes=_add(adapter, graph.nodes))


def scales(graph: Graph) -> dict[str, float]:
    """The scale of each adapted weight, by its path."""
    found = {}
    for node, around in walk(graph.nodes):
        if isinstance(node, Apply) and node.op == "scale":
            for path in _paths(node, around):
                found[f"{path.removesuffix('.lora_scale')}.weight"] = float(
                    str(node.attr["by"])
                )
    return {path: found[path] for path in adapted(graph)}


def adapted(graph: Graph) -> dict[str, tuple[str, str]]:
    """The weights A and B of each adapted weight, by the paths: {W: (A, B)}."""
    paths = {each.path for each in parameters(graph)}
    layers = (
        path.removesuffix(f".{A}.weight") for path in paths if path.endswith(f".{A}.weight")
    )
    found = {
        f"{layer}.weight": (f"{layer}.{A}.weight", f"{layer}.{B}.weight") for layer in layers
    }
    return {each.path: found[each.path] for each in parameters(graph) if each.path in found}


def linear_weights(graph: Graph) -> dict[str, tuple[int, ...]]:
    """The shapes [out, in] of the weights of linear layers, by path."""
    layers = {path for _, _, paths in linear_layers(decompose(graph)) for path in paths}
    shapes = {each.path: each.weight.shape for each in parameters(graph)}
    return {p: n for p, n in shapes.items() if p.removesuffix(".weight") in layers}


def linear_layers(graph: Graph) -> Iterator[tuple[Apply, tuple[Repeated, ...], list[str]]]:
    """Each linear layer of a graph, what it is inside of, and its path in each layer."""
    for node, around in walk(graph.nodes):
        if isinstance(node, Apply) and node.op == "linear":
            yield node, around, _paths(node, around)


def _paths(node: Apply, around: tuple[Repeated, ...]) -> list[str]:
    """The path of a node in each layer."""
    numbers = product(*map(_numbers, around))
    return list(dict.fromkeys(full_path(node.path, around, each) for each in numbers))


def _numbers(around: Repeated) -> Sequence[int]:
    return (
        around.stack.layers(around.kind) if isinstance(around, Layers) else range(around.count)
    )


def _layers_without_adapter(
    graph: Graph,
) -> Iterator[tuple[Apply, tuple[Repeated, ...], list[str]]]:
    """The linear layers of a graph, which has no adapter."""
    for node, around, paths in linear_layers(graph):
        if paths[0].endswith((f".{A}", f".{B}")):
            help = "train it without `lora_rank`, or merge it first: `archdsl merge`"
            fail("model", "the model has an adapter", help=help)
        yield node, around, paths


def _targeted(graph: Graph, targets: Sequence[str]) -> frozenset[str]:
    """The ids of the layers that patterns match; all inside of stacks if there are none."""
    layers = list(_layers_without_adapter(graph))
    every = [path for _, _, paths in layers for path in paths]
    inside = {path for _, around, paths in layers for path in paths if around}
    matched = select(targets, every, "linear layer") if targets else inside
    if not matched:
        fail("argument-value", "no linear layer is inside of a stack", help="name the targets")
    for _, _, paths in layers:
        missing = [path for path in paths if path not in matched]
        if missing and len(missing) < len(paths):
            more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            fail(
                "argument-value",
                "an adapter changes all layers of a kind alike",
                expected=f"targets that match {listing(missing[:_SHOWN], 'and')}{more} too",
                found=listing(targets, "and"),
                help="write `*` for the number of the layer",
            )
    return frozenset(node.id for node, _, paths in layers if paths[0] in matched)


class _Adapter:
    def __init__(self, builder: Builder, chosen: Collection[str], rank: int, scale: float):
        self.builder, self.chosen, self.rank, self.scale = builder, chosen, rank, scale

    def parts(self, node: Apply) -> Iterator[Apply]:
        """The nodes in the place of a linear layer; the last has its id."""
        types: dict[str, Type] = self.builder.types

        def apply(name: str, part: str, inputs: Mapping[str, str], **settings: object) -> Apply:
            path = join_path(node.path, part)
            return self.builder.apply(name, path, inputs, node.span, **settings)

        whole = replace(node, id=self.builder.id())
        types[whole.id] = node.type
        (_, x), *_ = node.inputs
        small = apply("linear", A, {"x": x}, dim=self.rank, bias=False)
        # The smaller of the two products is scaled.
        scaled = apply("scale", "lora_scale", {"x": small.id}, by=self.scale)
        large = apply("linear", B, {"x": scaled.id}, dim=node.attr["dim"], bias=False)
        both = apply("add", "lora", {"x": whole.id, "other": large.id})
        yield from (whole, small, scaled, large, replace(both, id=node.id, type=node.type))


def _add(adapter: _Adapter, nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    found: list[Node] = []
    for node in nodes:
        match node:
            case Stack():
                bodies = (replace(b, nodes=_add(adapter, b.nodes)) for b in node.bodies)
                found.append(replace(node, bodies=tuple(bodies)))
            case Mixture():
                found.append(replace(node, body=_add(adapter, node.body)))
            case Apply() if node.id in adapter.chosen:
                found += adapter.parts(node)
            case _:
                found.append(node)
    return tuple(found)
