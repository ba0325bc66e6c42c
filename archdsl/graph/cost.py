"""The cost of a model, computed from its graph without allocating tensors.

Flops are those of matrix products and attention for one example and one forward pass, two for
each multiply-add; pointwise operators are not counted (Kaplan et al. 2020, section 2.1).
Attention counts all pairs of positions, with or without a causal mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import prod

from archdsl.frozen import Frozen
from archdsl.graph.latents import latents
from archdsl.graph.mixture import vectors
from archdsl.graph.nodes import Graph, Mixture, Repeated, Scan, Stack, positions, refs, walk
from archdsl.graph.ops import OPERATORS
from archdsl.graph.peak import peak_elements
from archdsl.graph.signature import Op, Site
from archdsl.graph.sites import common_path, sites, weights_of
from archdsl.graph.types import Size

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
_PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")


class Cost(Frozen):
    """The cost of a model: parameters, bytes in the given dtype, flops.

    Formulas are in the varying axes; numbers are for `sizes`. `activation_bytes` is the peak
    of all values alive at once in a forward pass of one example, without its inputs.
    `cache_bytes` are what decoding keeps of past positions, such as keys, values and states.
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
    """The number of trainable numbers, over all layers."""
    return sum(count for _, count in operator_parameters(graph))


def operator_parameters(graph: Graph) -> Iterator[tuple[str, int]]:
    """The common path of each operator with weights, and their trainable numbers."""
    for path, weights, times in weights_of(graph):
        yield path, sum(prod(weight.shape) for weight in weights) * times


def flops(graph: Graph) -> Size:
    """The flops of a forward pass, as a formula."""
    return sum((size for _, size in operator_flops(graph)), start=Size.of(0))


def operator_flops(graph: Graph) -> Iterator[tuple[str, Size]]:
    """The common path of each operator, and its flops in all layers."""
    types = graph.types()

    def times(around: Repeated) -> Size:
        """How often a body is computed; that of an expert for each vector that chooses it."""
        if isinstance(around, Mixture):
            return vectors(types[around.input]) * around.chosen
        return Size.of(around.count)

    for node, around, here in sites(graph):
        size = prod(map(times, around), start=OPERATORS[node.op].flops(here))
        yield common_path(node.path, around), size


def _sum_over_operators(graph: Graph, rule: Callable[[Op, Site], Size]) -> Size:
    """The sum of a rule over all operators, over all layers and positions of scans."""
    times = positions(graph.nodes)
    amounts = (
        rule(OPERATORS[node.op], here)
        * prod(each.count for each in around)
        * times.get(node.id, Size.of(1))
        for node, around, here in sites(graph)
    )
    return sum(amounts, start=Size.of(0))


def cached_elements(graph: Graph) -> Size:
    """The number of elements that decoding keeps of past positions, as a formula; a tensor with
    several users counts once."""
    times = {each.name: 1 for each in graph.inputs}
    given = set(times)  # the inputs, and what depends on them
    for node, around in walk(graph.nodes):
        times[node.id] = prod(each.count for each in around)
        if given.intersection(refs(node)):
            given.add(node.id)
        if isinstance(node, Stack):
            for i, body in enumerate(node.bodies):
                times[body.carry] = times[node.id] * node.how_many(i)
    kept: dict[tuple[str, str], Size] = {}
    small = latents(graph)
    for node, _, here in sites(graph):
        op, inputs = OPERATORS[node.op], dict(node.inputs)
        if latent := small.get(node.id):
            size = op.cache_length(here) * (latent.width * times[node.id])
            kept["latent", node.id] = size
            continue
        needs = [("cache", param, op.cache_length(here)) for param in op.cached_among(inputs)]
        if count := op.tail(here):
            needs.append(("tail", node.inputs[0][0], Size.of(count)))
        if op.adds_prefix and inputs["x"] in given and _is_prefix(here):
            needs.append(("prefix", "x", here.tensors["x"].axes[0].size))
        for kind, param, length in needs:
            _, *others = here.tensors[param].axes
            vector = prod((axis.size for axis in others), start=Size.of(1))
            size, key = length * vector * times[inputs[param]], (kind, inputs[param])
            before = kept.get(key, Size.of(0))
            kept[key] = max(before, size, key=lambda size: size.at(graph.bounds))
    inside = _sum_over_operators(graph, lambda op, here: op.cache(here))
    for node, _ in walk(graph.nodes):
        if isinstance(node, Scan) and node.along.size.vars:
            inside += node.carry_type.elements * times[node.id]
    return sum(kept.values(), start=inside)


def _is_prefix(site: Site) -> bool:
    """Whether the first tensor of `concat` is of fixed size, in front of a sequence."""
    front, behind = site.tensors["x"].axes, site.tensors["other"].axes
    fixed = not any(axis.size.vars for axis in front)
    return site.attr["axis"] == 0 and fixed and bool(behind[0].size.vars)


def cost(graph: Graph, sizes: Mapping[str, int] | None = None, dtype: str = "float32") -> Cost:
    """The cost at given sizes of the varying axes; each is at its bound where not given."""
    at = graph.bounds | dict(sizes or {})
    width = BYTES[dtype]
    params, formula = parameter_count(graph), flops(graph)
    cached = cached_elements(graph) * width
    return Cost(
        params=params,
        weight_bytes=params * width,
        sizes=at,
        flops_formula=formula,
        flops=formula.at(at),
        activation_bytes=peak_elements(graph, at) * width,
        cache_formula=cached,
        cache_bytes=cached.at(at),
    )


def format_bytes(count: int) -> str:
    """A number of bytes for people.

    >>> format_bytes(1_250_000), format_bytes(999_960), format_bytes(64)
    ('1.25 MB', '1 MB', '64 bytes')
    """
    text = format_count(count, "B")
    return text if text[-2].isalpha() else f"{text.removesuffix('B')}bytes"


def format_count(count: float, unit: str = "") -> str:
    """A large number for people: four digits, and a prefix of the unit.

    >>> format_count(291_600_000_000, "FLOP"), format_count(999_960), format_count(12)
    ('291.6 GFLOP', '1 M', '12')
    """
    power = 0
    while float(f"{count:.4g}") >= 1000 and power < len(_PREFIXES) - 1:
        count, power = count / 1000, power + 1
    return f"{count:.4g} {_PREFIXES[power]}{unit}".rstrip()
