"""What a model costs, from its graph alone: no tensor is made.

Flops count two for each multiply-add of a matrix product, those of attention among them,
for one example and one forward pass; pointwise work is left out (Kaplan et al. 2020,
section 2.1). Attention counts every pair of positions, also where a causal mask hides half.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

from archdsl.frozen import Frozen
from archdsl.graph.nodes import Apply, Graph, Node, Stack, walk
from archdsl.graph.ops import OPERATORS
from archdsl.graph.signature import Op, Site
from archdsl.graph.sites import site, sites
from archdsl.graph.types import Size

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


class Cost(Frozen):
    """`params` trainable numbers; bytes for the given dtype; formulas in the varying axes.

    `activation_bytes` is the peak of all values alive at once during a forward pass of one
    example, its inputs apart. `cache_bytes` are the keys and values that incremental decoding
    keeps. Both are at the sizes given.
    """

    params: int
    weight_bytes: int
    sizes: Mapping[str, int]
    flops_formula: Size
    flops: int
    activation_bytes: int
    cache_formula: Size
    cache_bytes: int


def parameter_count(graph: Graph) -> int:
    """The number of trainable numbers, all copies of a stack counted."""
    total = _over(graph, lambda op, here: Size.of(sum(prod(w.shape) for w in op.weights(here))))
    return total.at({})


def flops(graph: Graph) -> Size:
    """The formula of the flops of a forward pass."""
    return _over(graph, lambda op, here: op.flops(here))


def _over(graph: Graph, rule: Callable[[Op, Site], Size]) -> Size:
    """The sum of a rule over all operators, each as often as it is repeated."""
    amounts = (
        rule(OPERATORS[node.op], here) * prod(stack.count for stack in around)
        for node, around, here in sites(graph)
    )
    return sum(amounts, start=Size.of(0))


def cached_elements(graph: Graph) -> Size:
    """The formula of the numbers that decoding keeps; what several operators look at, once."""
    times = {each.name: 1 for each in graph.inputs}
    for node, around in walk(graph.nodes):
        times[node.id] = prod(stack.count for stack in around)
        if isinstance(node, Stack):
            times[node.carry] = times[node.id] * node.count
    kept: dict[str, Size] = {}
    for node, _, here in sites(graph):
        op, inputs = OPERATORS[node.op], dict(node.inputs)
        for param in op.cached:
            _, *others = here.tensors[param].axes
            vector = prod((axis.size for axis in others), start=Size.of(1))
            size = op.cache_length(here) * vector * times[inputs[param]]
            before = kept.get(inputs[param], Size.of(0))
            kept[inputs[param]] = max(before, size, key=lambda size: size.at(_bounds(graph)))
    inside = _over(graph, lambda op, here: op.cache(here))
    return sum(kept.values(), start=inside)


def _bounds(graph: Graph) -> dict[str, int]:
    return {axis.name: axis.bound for axis in graph.varying}


def cost(graph: Graph, sizes: Mapping[str, int] | None = None, dtype: str = "float32") -> Cost:
    """The cost at given sizes of the varying axes; each is at its bound where not given."""
    at = _bounds(graph) | dict(sizes or {})
    width = BYTES[dtype]
    params, formula = parameter_count(graph), flops(graph)
    cached = cached_elements(graph) * width
    return Cost(
        params=params,
        weight_bytes=params * width,
        sizes=at,
        flops_formula=formula,
        flops=formula.at(at),
        activation_bytes=_peak(graph, at) * width,
        cache_formula=cached,
        cache_bytes=cached.at(at),
    )


@dataclass
class _Value:
    """How many elements a value has and its operator needs beside; the step of its last use."""

    elements: int
    beside: int
    last: int


def _peak(graph: Graph, at: Mapping[str, int]) -> int:
    """The most elements alive at once, each value from its making to its last use."""
    alive: list[_Value] = []
    peak = 0
    for step, value in enumerate(_values(graph, at)):
        alive.append(value)
        peak = max(peak, sum(each.elements for each in alive) + value.beside)
        alive = [each for each in alive if each.last > step]
    return peak


def _values(graph: Graph, at: Mapping[str, int]) -> list[_Value]:
    """The values that a forward pass makes, in order; step i makes the i-th."""
    types = graph.types()
    made: list[_Value] = []
    # Inputs are the caller's, and no step makes them.
    values = {each.name: _Value(0, 0, 0) for each in graph.inputs}

    def walk(nodes: tuple[Node, ...]) -> None:
        for node in nodes:
            match node:
                case Apply():
                    for _, ref in node.inputs:
                        values[ref].last = len(made)
                    beside = OPERATORS[node.op].scratch(site(graph, node, types)).at(at)
                    values[node.id] = _Value(node.type.elements.at(at), beside, len(made))
                    made.append(values[node.id])
                case Stack():
                    x = values[node.input]
                    # The first copy, one that stands for all between, and the last.
                    for _ in range(min(node.count, 3)):
                        values[node.carry] = x
                        walk(node.body)
                        x = values[node.result]
                    values[node.id] = x

    walk(graph.nodes)
    for _, ref in graph.outputs:
        values[ref].last = len(made)
    return made
