"""What a model needs on a device: whether it fits, in which dtype, and to which length."""

from __future__ import annotations

from math import prod

from archdsl.frozen import Frozen
from archdsl.graph.cost import BYTES, cost
from archdsl.graph.nodes import Graph
from archdsl.graph.peak import peak_elements
from archdsl.graph.sites import parameters
from archdsl.passes.decoding_analysis import CHUNK
from archdsl.passes.keep_last_position import keep_last_position
from archdsl.passes.split_decoding import find_tokens_and_logits, split_decoding

ROOM = 0.9  # the share of a device's memory that tensors can have; the driver needs the rest


class Need(Frozen):
    """The bytes that one sequence needs: weights, cache, and activations.

    Activations are counted as float32, in which softmax and sums are computed. `loading` are
    the bytes while weights are placed: one of them is there in float32 too.
    """

    weights: int
    cache: int
    activations: int
    loading: int

    @property
    def bytes(self) -> int:
        return max(self.weights + self.cache + self.activations, self.loading)


class Fit(Frozen):
    """Whether a model fits, and what it needs at `length`: the longest that fits, or, if it
    does not fit, the shortest. A model without varying axes has no length."""

    dtype: str
    fits: bool
    length: int | None
    limit: int | None
    need: Need


def predicts_tokens(graph: Graph) -> bool:
    """Whether a model is run step by step, with a cache."""
    return not isinstance(find_tokens_and_logits(graph), str)


def need(graph: Graph, dtype: str, length: int) -> Need:
    """What a model needs for one sequence whose axes have this length, up to their bounds.

    A model that predicts tokens reads a prompt in chunks, with a cache. Others compute the
    whole sequence at once.
    """
    at = {axis.name: axis.near(length) for axis in graph.varying}
    found = cost(graph, at, dtype)
    largest = max((prod(each.weight.shape) for each in parameters(graph)), default=0)
    loading = found.weight_bytes + 4 * largest
    activations, cache = 4 * found.activation_bytes // BYTES[dtype], 0
    if predicts_tokens(graph):
        cache, activations = found.cache_bytes, 4 * _step_elements(graph, at)
    return Need(found.weight_bytes, cache, activations, loading)


def _step_elements(graph: Graph, at: dict[str, int]) -> int:
    """The peak of a step that reads a chunk of the prompt."""
    axis = split_decoding(graph).axis
    plan = split_decoding(graph, at[axis])
    step = keep_last_position(plan.step, plan.axis)
    sizes = {each.name: at.get(each.name, each.bound) for each in step.varying}
    return peak_elements(step, sizes | {plan.axis: min(4 * CHUNK, at[axis])})


def fit(graph: Graph, dtype: str, memory: int) -> Fit:
    """Whether a model fits into so many bytes of a device's memory, and to which length."""
    limit = max((axis.bound for axis in graph.varying), default=None)
    room = ROOM * memory
    if limit is None:
        found = need(graph, dtype, 1)
        return Fit(dtype, found.bytes <= room, None, None, found)
    if (found := need(graph, dtype, limit)).bytes <= room:
        return Fit(dtype, True, limit, limit, found)
    if (found := need(graph, dtype, 1)).bytes > room:
        return Fit(dtype, False, 1, limit, found)
    low, high = 1, limit - 1
    while low < high:  # what is needed grows with the length
        middle = (low + high + 1) // 2
        if need(graph, dtype, middle).bytes <= room:
            low = middle
        else:
            high = middle - 1
    return Fit(dtype, True, low, limit, need(graph, dtype, low))
