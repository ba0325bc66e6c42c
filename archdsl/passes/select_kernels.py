"""Selects a kernel for each operator from a table of kernels.

A unit of work is a matmul with a weight, attention without projections, a norm, a table lookup,
a cache write or a recurrence. The cheapest kernel that fits is selected; if none fits, tinygrad
does the work. A cost is a number of multiply-adds of one SIMD lane, counted or measured, and
only compares kernels for the same work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import prod
from typing import Any, TypeAlias

from archdsl.frozen import Frozen
from archdsl.graph.masks import is_input
from archdsl.graph.mixture import vectors
from archdsl.graph.nodes import Apply, Graph, Mixture, Node, Scan, Stack
from archdsl.graph.ops import OPERATORS
from archdsl.graph.signature import Site
from archdsl.graph.sites import site
from archdsl.graph.types import Type
from archdsl.passes.recurrences import plan


class Linear(Frozen):
    """A matmul of [rows, into] with a weight [out, into]: [rows, out]."""

    rows: int
    into: int
    out: int


class Attention(Frozen):
    """Attention of `queries` to `keys` positions; `heads` counts those of all sequences.

    `size` is the larger of the head sizes of queries and values; `tables`: there is a bias or a
    mask in memory.
    """

    heads: int
    queries: int
    keys: int
    size: int
    tables: bool


class Norm(Frozen):
    """A norm of `rows` rows of `width` features."""

    rows: int
    width: int
    kind: str


class Lookup(Frozen):
    """A lookup of `count` rows in a table [rows, width]."""

    count: int
    rows: int
    width: int


class CacheWrite(Frozen):
    """A write of new positions into a cache."""


class BatchedMatmul(Frozen):
    """A batched matmul [rows, into] x [into, out] of two activations."""

    rows: int
    into: int
    out: int


class Recurrence(Frozen):
    """A recurrence of states [keys, values]; `heads` counts the heads of all rows."""

    heads: int
    positions: int
    keys: int
    values: int


class ElementwiseRecurrence(Frozen):
    """A recurrence of states of `elements` numbers, over all rows, each number for itself."""

    elements: int
    positions: int


Work: TypeAlias = (
    Linear
    | Attention
    | Norm
    | Lookup
    | CacheWrite
    | BatchedMatmul
    | Recurrence
    | ElementwiseRecurrence
)


class Kernel(Frozen):
    """A row of the table: the kinds of work, the target, the condition and the cost."""

    name: str
    work: type | tuple[type, ...]
    target: str
    fits: Callable[[Any], bool]
    cost: Callable[[Any], float]


TINYGRAD = "tinygrad"
CPU = "cpu"

# The scratch memory of a kernel is on its thread's stack: less than 1 MiB of at least 2 MiB. It
# grows with these sizes; tinygrad computes what is larger.
WIDEST_HEAD = 576  # features of a head, also in the gradient
WIDEST_STATE = 2**11  # features of a key, whose part of a state is on the stack
WIDEST_SUM = 2**16  # length of a row of `matvec`, which copies it when weights are quantized

KERNELS = (
    # Reads the weight in its layout, once for three rows.
    Kernel(
        "matvec",
        Linear,
        CPU,
        lambda w: w.into <= WIDEST_SUM,
        lambda w: w.into * w.out * (4 * -(-w.rows // 3) + 1.5 * w.rows),
    ),
    # Repacks the weight, then uses each of its numbers for six rows.
    Kernel(
        "matmul",
        (Linear, BatchedMatmul),
        CPU,
        lambda w: w.out >= 64 and w.rows >= 6,
        lambda w: w.into * w.out * (6 + w.rows),
    ),
    # Reads the keys once per query.
    Kernel(
        "attend_few",
        Attention,
        CPU,
        lambda w: not w.tables and w.size <= WIDEST_HEAD,
        lambda w: w.heads * w.queries * w.keys * w.size * 6,
    ),
    # Reads the keys once for 72 queries and uses each number for six.
    Kernel(
        "attend",
        Attention,
        CPU,
        lambda w: not w.tables and w.size <= WIDEST_HEAD,
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
    # Reads the state once per position.
    Kernel(
        "recur",
        Recurrence,
        CPU,
        lambda w: w.keys <= WIDEST_STATE,
        lambda w: w.heads * w.positions * w.keys * w.values,
    ),
    Kernel(
        "scan",
        ElementwiseRecurrence,
        CPU,
        lambda w: True,
        lambda w: w.elements * w.positions,
    ),
    Kernel("append", CacheWrite, CPU, lambda w: True, lambda w: 1),
)


def choose(work: Work, target: str | None) -> str:
    """The name of the cheapest kernel for a unit of work; `TINYGRAD` if none fits.

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
    """Adds to each operator the kernels that it launches on a target at these sizes.

    An operator without kernels is lowered by tinygrad.

    >>> from archdsl.graph.parser import parse
    >>> from archdsl.graph.printer import show
    >>> graph = parse('''graph G init normal(std = 0.02)
    ... input x: float[512]
    ... %1 = linear(x; dim = 256, bias = true) @ up: float[256]
    ... %2 = relu(%1) @ relu: float[256]
    ... output y = %2
    ... ''')
    >>> print(show(select_kernels(graph, CPU, 1, {})), end="")
    graph G init normal(std = 0.02)
    input x: float[512]
    %1 = linear(x; dim = 256, bias = true) by matvec @ up: float[256]
    %2 = relu(%1) @ relu: float[256]
    output y = %2
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
                bodies = (
                    replace(b, nodes=_select(graph, b.nodes, target, batch, sizes, types))
                    for b in node.bodies
                )
                found.append(replace(node, bodies=tuple(bodies)))
            case Mixture():
                rows = batch * vectors(types[node.input]).at(sizes)
                if target is not None:  # on average, each expert is chosen by so many
                    rows = -(-rows * node.chosen // node.count)
                body = _select(graph, node.body, target, rows, sizes, types)
                found.append(replace(node, body=body))
            case Scan():
                work = _recurrence(node, types, batch, sizes)
                kernel = TINYGRAD if work is None else choose(work, target)
                found.append(replace(node, kernels=() if kernel == TINYGRAD else (kernel,)))
    return tuple(found)


def _kernels(
    node: Apply, here: Site, target: str | None, batch: int, sizes: Mapping[str, int]
) -> tuple[str, ...]:
    chosen = tuple(choose(work, target) for _, work in work_items(node, here, batch, sizes))
    if node.op == "attend" and chosen == (TINYGRAD,) and "past" not in here.tensors:
        chosen = tuple(choose(work, target) for work in _attention_matmuls(here, batch, sizes))
    return () if set(chosen) == {TINYGRAD} else chosen


def _recurrence(
    node: Scan, types: Mapping[str, Type], batch: int, sizes: Mapping[str, int]
) -> Work | None:
    """The unit of work of a scan that is linear in its state; None for another one."""
    how, positions = plan(node, types), node.along.size.at(sizes)
    if how is None:
        return None
    lengths = [axis.size.at(sizes) for axis in node.carry_type.axes]
    if how.q is None:
        return ElementwiseRecurrence(batch * prod(lengths), positions)
    heads, keys, values = (
        prod(lengths[axis] for axis in axes) for axes in (how.heads, how.keys, how.values)
    )
    return Recurrence(batch * heads, positions, keys, values)


def part_names(node: Apply, here: Site) -> list[str]:
    """The names of the units of work of an operator, in the order of its kernels."""
    if node.op == "attend" and len(node.kernels) == 2:
        return ["scores", "values"]
    sizes = {axis.name: axis.bound for axis in here.varying.values()}
    return [part for part, _ in work_items(node, here, 1, sizes)]


def work_items(
    node: Apply, here: Site, batch: int, sizes: Mapping[str, int]
) -> Iterator[tuple[str, Work]]:
    """The units of work of an operator, each with its name; a single one has the name ""."""

    def rows(type: Type) -> int:
        """The number of vectors of a tensor, over all rows of the batch."""
        return batch * type.elements.at(sizes) // type.axes[-1].size.at(sizes)

    match node.op:
        case "norm":
            yield "", Norm(rows(here.x), here.width, here.attr["kind"])
        case "embed":
            width = node.type.axes[-1].size.at(sizes)
            yield "", Lookup(rows(node.type), here.attr["vocab"], width)
        case "append" if here.x.dtype != "float":
            return  # tinygrad's
        case "append":
            yield "", CacheWrite()
        case "unembed":
            yield "", Linear(rows(here.x), here.width, here.attr["vocab"])
        case "conv1d" if here.attr["groups"] > 1:
            return  # tinygrad's
        case "attend":
            heads, queries, keys, *widths = _attention_sizes(here, batch, sizes)
            tables = "bias" in here.tensors or any(map(is_input, here.tensors))
            yield "", Attention(heads, queries, keys, max(widths), tables)
        case _:
            for weight in OPERATORS[node.op].weights(here):
                if weight.init == "matrix":
                    out, *into = weight.shape
                    part = weight.name.removesuffix("weight").rstrip(".")
                    yield part, Linear(rows(node.type), prod(into), out)


def _attention_sizes(
    here: Site, batch: int, sizes: Mapping[str, int]
) -> tuple[int, int, int, int, int]:
    """Heads over all sequences, queries, keys, and the head sizes of keys and values."""
    *several, queries, heads, size = (axis.size.at(sizes) for axis in here.tensors["q"].axes)
    *_, keys, _, value = (axis.size.at(sizes) for axis in here.tensors["v"].axes)
    return batch * prod(several) * heads, queries, keys, size, value


def _attention_matmuls(here: Site, batch: int, sizes: Mapping[str, int]) -> tuple[Work, Work]:
    """Attention as two batched matmuls, with the scores in memory."""
    _, queries, keys, size, value = _attention_sizes(here, batch, sizes)
    own, of_keys = (here.tensors[name].axes[-2].size.at(sizes) for name in "qk")
    shared = own // of_keys
    rows = shared * queries
    return BatchedMatmul(rows, size, keys), BatchedMatmul(rows, keys, value)
