"""Which kernel does what: a table of them, and the choice for every operator of a graph.

A piece of work is a product with a weight, the core of an attention, a norm, a lookup or a
write into a cache. Of the kernels that fit it on a target the cheapest is taken; tinygrad does
what none fits. Costs are in multiply-adds of one processor's lane, measured where they are not
counted, and serve to compare kernels for the same work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, TypeAlias

from archdsl.graph.nodes import Apply, Graph, Node, Stack
from archdsl.graph.ops import OPERATORS
from archdsl.graph.signature import Site
from archdsl.graph.sites import site
from archdsl.graph.types import Type


@dataclass(frozen=True)
class Linear:
    """[rows, into] times a weight [out, into]: [rows, out]."""

    rows: int
    into: int
    out: int


@dataclass(frozen=True)
class Attention:
    """`queries` positions of each of `heads` heads, all rows counted, looking at `keys`.

    `size` is that of a head's queries, or of its values where they are larger.
    """

    heads: int
    queries: int
    keys: int
    size: int
    bias: bool


@dataclass(frozen=True)
class Norm:
    """Each of `rows` rows of `width` features."""

    rows: int
    width: int
    kind: str


@dataclass(frozen=True)
class Lookup:
    """`count` rows of a table [rows, width]."""

    count: int
    rows: int
    width: int


@dataclass(frozen=True)
class CacheWrite:
    """New positions written into a cache."""


@dataclass(frozen=True)
class BatchedMatmul:
    """A batch of products [rows, into] x [into, out] of two computed tensors."""

    rows: int
    into: int
    out: int


Work: TypeAlias = Linear | Attention | Norm | Lookup | CacheWrite | BatchedMatmul


@dataclass(frozen=True)
class Kernel:
    """A row of the table: what the kernel does, where, which of it, and at what cost."""

    name: str
    work: type | tuple[type, ...]
    target: str
    fits: Callable[[Any], bool]
    cost: Callable[[Any], float]


TINYGRAD = "tinygrad"
CPU = "cpu"

# Scratch of a kernel lies on the stack of the thread that runs it: less than 1 MiB, where
# threads have 2 or more. It grows with these sizes; what is larger is left to tinygrad.
WIDEST_HEAD = 512  # features of a head, its gradients included
WIDEST_SUM = 2**16  # numbers that `matvec` sums, which it shortens where weights are quantized

KERNELS = (
    # Reads the weight once for three rows, as it lies.
    Kernel(
        "matvec",
        Linear,
        CPU,
        lambda w: w.into <= WIDEST_SUM,
        lambda w: w.into * w.out * (4 * -(-w.rows // 3) + 1.5 * w.rows),
    ),
    # Lays the weight out anew, then has six rows share each of its numbers.
    Kernel(
        "matmul",
        (Linear, BatchedMatmul),
        CPU,
        lambda w: w.out >= 64 and w.rows >= 6,
        lambda w: w.into * w.out * (6 + w.rows),
    ),
    # Goes through the keys for each query.
    Kernel(
        "attend_few",
        Attention,
        CPU,
        lambda w: not w.bias and w.size <= WIDEST_HEAD,
        lambda w: w.heads * w.queries * w.keys * w.size * 6,
    ),
    # Goes through them for 72 at once, six sharing each number.
    Kernel(
        "attend",
        Attention,
        CPU,
        lambda w: not w.bias and w.size <= WIDEST_HEAD,
        lambda w: w.heads * w.keys * w.size * (6 * -(-w.queries // 72) + 2.5 * w.queries + 10),
    ),
    Kernel(
        "norm",
        Norm,
        CPU,
        lambda w: w.kind != "l2",
        lambda w: w.rows * w.width,
    ),
    Kernel("embed", Lookup, CPU, lambda w: True, lambda w: w.count * w.width),
    Kernel("keep", CacheWrite, CPU, lambda w: True, lambda w: 1),
)


def choose(work: Work, target: str | None) -> str:
    """The name of the cheapest kernel for a piece of work, tinygrad's where there is none.

    >>> choose(Linear(1, 768, 3072), CPU), choose(Linear(128, 768, 3072), CPU)
    ('matvec', 'matmul')
    >>> choose(Linear(128, 768, 3072), None)
    'tinygrad'
    """
    fitting = [
        kernel
        for kernel in KERNELS
        if kernel.target == target and isinstance(work, kernel.work) and kernel.fits(work)
    ]
    return min(fitting, key=lambda kernel: kernel.cost(work)).name if fitting else TINYGRAD


def select_kernels(
    graph: Graph, target: str | None, batch: int, sizes: Mapping[str, int]
) -> Graph:
    """The graph with the kernels that each operator launches on a target, at these sizes.

    An operator that tinygrad's scheduler lowers alone names none.
    """
    return replace(graph, nodes=_select(graph, graph.nodes, target, batch, sizes))


def _select(
    graph: Graph,
    nodes: tuple[Node, ...],
    target: str | None,
    batch: int,
    sizes: Mapping[str, int],
    types: Mapping[str, Type] | None = None,
) -> tuple[Node, ...]:
    types = graph.types() if types is None else types
    found: list[Node] = []
    for node in nodes:
        match node:
            case Apply():
                here = site(graph, node, types)
                kernels = _kernels(node, here, target, batch, sizes)
                found.append(replace(node, kernels=kernels))
            case Stack():
                body = _select(graph, node.body, target, batch, sizes, types)
                found.append(replace(node, body=body))
    return tuple(found)


def _kernels(
    node: Apply, here: Site, target: str | None, batch: int, sizes: Mapping[str, int]
) -> tuple[str, ...]:
    chosen = tuple(choose(work, target) for _, work in work_items(node, here, batch, sizes))
    if node.op == "attend" and chosen == (TINYGRAD,) and "past" not in here.tensors:
        chosen = tuple(choose(work, target) for work in _attention_matmuls(here, batch, sizes))
    return () if set(chosen) == {TINYGRAD} else chosen


def part_names(node: Apply, here: Site) -> list[str]:
    """The names of the pieces of work of an operator, in the order of its kernels."""
    if node.op == "attend" and len(node.kernels) == 2:
        return ["scores", "values"]
    sizes = {axis.name: axis.bound for axis in here.varying.values()}
    return [part for part, _ in work_items(node, here, 1, sizes)]


def work_items(
    node: Apply, here: Site, batch: int, sizes: Mapping[str, int]
) -> Iterator[tuple[str, Work]]:
    """The pieces of work of an operator, each with the name of its part, empty for the only
    one."""

    def rows(type: Type) -> int:
        """All positions of all rows."""
        return batch * type.elements.at(sizes) // type.axes[-1].size.at(sizes)

    match node.op:
        case "norm":
            yield "", Norm(rows(here.x), here.width, here.attr["kind"])
        case "embed":
            width = node.type.axes[-1].size.at(sizes)
            yield "", Lookup(rows(node.type), here.attr["vocab"], width)
        case "append":
            yield "", CacheWrite()
        case "unembed":
            yield "", Linear(rows(here.x), here.width, here.attr["vocab"])
        case "attend":
            heads, queries, keys, *widths = _attention_sizes(here, batch, sizes)
            yield "", Attention(heads, queries, keys, max(widths), "bias" in here.tensors)
        case _:
            for weight in OPERATORS[node.op].weights(here):
                if weight.init == "matrix":
                    out, *into = weight.shape
                    part = weight.name.removesuffix("weight").rstrip(".")
                    yield part, Linear(rows(node.type), prod(into), out)


def _attention_sizes(
    here: Site, batch: int, sizes: Mapping[str, int]
) -> tuple[int, int, int, int, int]:
    """An attention's heads of all rows, queries, keys, and the sizes of a key and a value."""
    queries, heads, size = (axis.size.at(sizes) for axis in here.tensors["q"].axes)
    keys, _, value = (axis.size.at(sizes) for axis in here.tensors["v"].axes)
    return batch * heads, queries, keys, size, value


def _attention_matmuls(here: Site, batch: int, sizes: Mapping[str, int]) -> tuple[Work, Work]:
    """Attention with its scores in memory: their product, and the product with the values."""
    heads, queries, keys, size, value = _attention_sizes(here, batch, sizes)
    shared = heads // (batch * here.tensors["k"].axes[1].size.at(sizes))
    rows = shared * queries
    return BatchedMatmul(rows, size, keys), BatchedMatmul(rows, keys, value)
