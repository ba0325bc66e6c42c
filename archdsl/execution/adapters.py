"""Adapters: low-rank matrices beside the weights of a model (Hu et al. 2021, section 4.1)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from archdsl.diagnostics import fail
from archdsl.execution.arguments import is_number, whole_number
from archdsl.execution.executable import Executable
from archdsl.execution.initial_weights import random_numbers
from archdsl.formats.host import bits_of
from archdsl.graph.nodes import Graph
from archdsl.graph.sites import parameters
from archdsl.passes.lora import adapted, add_lora, add_lora_to, scales
from archdsl.published.low_rank import LowRank


def with_lora(
    executable: Executable, rank: int, alpha: float, targets: Iterable[str] = (), seed: int = 0
) -> Executable:
    """The model with low-rank matrices B A beside the weights of linear layers; it shares the
    weights. B A is 0 at first, and is multiplied by alpha / rank.

    `targets` are those of `add_lora`. Raises `ArchError` for a value that is not allowed.
    """
    whole_number("rank", rank, 1)
    if not is_number(alpha) or not math.isfinite(alpha):
        fail("argument-value", f"alpha cannot be {alpha!r}", expected="a number")
    graph = add_lora(executable.graph, rank, alpha / rank, targets)
    return executable.extended(graph, initial_adapter(graph, seed))


def initial_adapter(graph: Graph, seed: int) -> dict[str, NDArray[np.float32]]:
    """The first values of a graph's low-rank matrices, by path: A is uniform within
    ±1 / sqrt(in), as in PEFT, and B is 0."""
    shapes = {each.path: each.weight.shape for each in parameters(graph)}
    found = {}
    for a, b in adapted(graph).values():
        random = random_numbers(a, seed)
        reach = np.float32(shapes[a][1] ** -0.5)
        found[a] = (2 * random.random(shapes[a], np.float32) - 1) * reach
        found[b] = np.zeros(shapes[b], np.float32)
    return found


def with_adapter(executable: Executable, adapter: Mapping[str, LowRank]) -> Executable:
    """The model with what an adapter adds to its weights, by path; it shares the weights.

    All layers of a kind have matrices of one rank: smaller ones, and those of layers that the
    adapter leaves out, are filled up with zeros.
    """
    rank = max(low.rank for low in adapter.values())
    scale = next(iter(adapter.values())).scale
    graph = add_lora_to(executable.graph, rank, scale, adapter)
    values = {path: value * 0 for path, value in initial_adapter(graph, 0).items()}
    for path, (a, b) in adapted(graph).items():
        if path in adapter:
            low = adapter[path]
            values[a][: low.rank] = low.a
            values[b][:, : low.rank] = low.b * np.float32(low.scale / scale)
    return executable.extended(graph, values)


def adapter_of(executable: Executable) -> dict[str, LowRank]:
    """What the adapter of a model adds to its weights, by path; empty if it has none."""
    weights, by = executable.parameters, scales(executable.graph)

    def read(path: str) -> NDArray[np.float32]:
        found: NDArray[np.float32] = weights[path].cast("float32").numpy()
        return found

    pairs = adapted(executable.graph).items()
    return {path: LowRank(read(a), read(b), by[path]) for path, (a, b) in pairs}


def adapter_weights(graph: Graph) -> tuple[str, ...]:
    """The paths of the weights of a graph's adapter; none if it has no adapter."""
    return tuple(path for pair in adapted(graph).values() for path in pair)


def base_hash(executable: Executable) -> str:
    """A hash of the weights that a model has besides its adapter, as they are stored."""
    own, found = {f"weight {p}" for p in adapter_weights(executable.graph)}, hashlib.sha256()
    for name, tensor in executable.parameters.in_memory().items():
        if name not in own:
            found.update(name.encode())
            found.update(np.ascontiguousarray(bits_of(tensor)).data)
    return found.hexdigest()[:16]
