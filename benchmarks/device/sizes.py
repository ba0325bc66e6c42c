"""The sizes that are measured: as large as the device's memory and speed allow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from archdsl.analysis import analyse
from archdsl.graph.cost import cost

_MEMORY = 0.7  # the share of the device's memory that a model may need
_UNKNOWN = 2 * 2**30  # bytes, where a device does not report its memory
_SECONDS = 15.0  # for the largest call, at a twentieth of the device's measured limit
_SLOW = 0.05


@dataclass(frozen=True)
class Sizes:
    """The sizes of one kind of model: its settings, and the shapes that are measured."""

    spec: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    lengths: tuple[int, ...] = ()  # of prompts
    rows: tuple[int, ...] = (1,)

    def __hash__(self) -> int:  # a mapping has none
        return hash((self.spec, repr(self.settings), self.lengths, self.rows))

    @property
    def title(self) -> str:
        """The spec and its number of weights."""
        count = cost(analyse(self.spec, settings=self.settings).graph, {}).params
        return f"{self.spec.partition('.')[0]} {count / 1e6:.0f}M"


_SMALL: dict[str, Any] = {"vocab": 1000, "context": 160, "D": 128, "heads": 4, "depth": 2}
_MIDDLE = {"vocab": 8000, "context": 640, "D": 512, "heads": 8, "depth": 6}
_GROUPED = {"kv_heads": 2, "inner": 384}

# From the largest to the smallest.
DECODERS = {
    "GPT": (
        Sizes("gpt2.arch", {"context": 2112}, (128, 2048), (1, 16)),
        Sizes("gpt2.arch", _MIDDLE, (128, 512), (1, 4)),
        Sizes("gpt2.arch", _SMALL, (32, 128), (1, 4)),
    ),
    "Llama": (
        Sizes("llama.arch:llama_3_2_1B", {"context": 2112}, (128, 2048), (1, 16)),
        Sizes("llama.arch", {**_MIDDLE, "kv_heads": 2, "inner": 1536}, (128, 512), (1, 4)),
        Sizes("llama.arch", {**_SMALL, **_GROUPED}, (32, 128), (1, 4)),
    ),
}
IMAGES = (
    Sizes("dosovitskiy2020.arch:B16", {}, (), (1, 64)),
    Sizes("dosovitskiy2020.arch:Ti16", {}, (), (1, 8)),
    Sizes(
        "dosovitskiy2020.arch",
        {"image": 64, "D": 128, "heads": 4, "inner": 512, "depth": 2, "classes": 10},
        (),
        (1, 8),
    ),
)
TRAINED = (
    Sizes("gpt2.arch", {"context": 1024}, (1024,), (8,)),
    Sizes("gpt2.arch", _MIDDLE, (512,), (4,)),
    Sizes("gpt2.arch", _SMALL, (128,), (4,)),
)


def chosen(
    offered: tuple[Sizes, ...], memory: int | None, flops: float, trains: bool, quick: bool
) -> Sizes:
    """The largest sizes that a device can hold, and compute in a few seconds."""
    if quick:
        return offered[-1]
    for sizes in offered[:-1]:
        graph = analyse(sizes.spec, settings=sizes.settings).graph
        longest, rows = max(sizes.lengths, default=1), max(sizes.rows)
        found = cost(graph, {axis.name: longest for axis in graph.varying}, "float16")
        # In training: weights, gradients and the two averages of Adam, all in float32.
        weights = found.weight_bytes * (8 if trains else 1)
        # Prompts are read in chunks, whose activations are small.
        kept = found.cache_bytes if sizes.lengths and not trains else found.activation_bytes
        needed = weights + rows * kept
        seconds = rows * found.flops * (3 if trains else 1) / (_SLOW * flops)
        if needed < _MEMORY * (memory or _UNKNOWN) and seconds < _SECONDS:
            return sizes
    return offered[-1]
