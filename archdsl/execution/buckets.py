"""Length buckets: one captured program serves all lengths of an axis up to its bucket.

An axis can be padded at its end where no wanted output depends on the padding: the outputs are
causal along the axis, or the axis is ragged, so the program masks what lies beyond each row's
length.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archdsl.graph.nodes import Graph
from archdsl.graph.ops import OPERATORS
from archdsl.graph.sites import sites
from archdsl.graph.types import Size

EXACT = 8  # lengths up to this one have a program each: few rows have kernels of their own
PARTS = 8  # buckets between a power of two and the next: at most an eighth is padding


def bucket_length(length: int, bound: int) -> int:
    """The length that a program is captured with, for an axis of this length.

    >>> [bucket_length(n, 1024) for n in (1, 8, 9, 65, 128, 129, 1000)]
    [1, 8, 16, 72, 128, 144, 1024]
    """
    if length <= EXACT:
        return length
    below = 1 << ((length - 1).bit_length() - 1)  # the power of two before the length
    step = max(below // PARTS, EXACT)
    return min(-(-length // step) * step, bound)


def paddable_axes(graph: Graph) -> frozenset[str]:
    """The varying axes of a graph that can be padded at their end: no output changes, but for
    what it has at the positions of the padding.

    An operator whose values depend on how long the axis is sees the padding as more positions.

    >>> from archdsl.analysis import analyse
    >>> paddable_axes(analyse("gpt.arch").graph)
    frozenset({'T'})
    """
    types = graph.types()
    outputs = [types[ref] for _, ref in graph.outputs]
    noncausal = frozenset().union(*(type.noncausal for type in outputs))
    axes = [axis for type in (*outputs, *(i.type for i in graph.inputs)) for axis in type.axes]
    measured = frozenset[str]().union(
        *(
            here.x.vars
            for node, _, here in sites(graph)
            if OPERATORS[node.op].same_up_to(here) is not None
        )
    )
    return frozenset(
        axis.name
        for axis in graph.varying
        if axis.name not in measured
        if axis.ragged is not None or axis.name not in noncausal
        if all(_grows_at_end(each.size, axis.name) for each in axes)
    )


def _grows_at_end(size: Size, name: str) -> bool:
    """Whether an axis of this size is that of fewer `name`, and more positions at its end."""
    if name not in size.vars:
        return True
    match size.terms[-1]:
        case ((each,), 1) if all(not axes for axes, _ in size.terms[:-1]):
            return each == name if isinstance(each, str) else _grows_at_end(each.of, name)
    return False


def padded_inputs(
    graph: Graph, arrays: Mapping[str, NDArray[Any]], sizes: Mapping[str, int]
) -> dict[str, NDArray[Any]]:
    """Inputs [B, …] padded at the end of each axis to these sizes: tokens with their `pad`."""
    padded = {}
    for each in graph.inputs:
        array = arrays[each.name]  # [B, …]
        wanted = [axis.size.at(sizes) for axis in each.type.axes]
        added = [size - had for size, had in zip(wanted, array.shape[1:], strict=True)]
        if any(added):  # `np.pad` copies
            widths = [(0, 0), *((0, more) for more in added)]
            array = np.pad(array, widths, constant_values=each.pad or 0)
        padded[each.name] = array
    return padded
