"""What the functions of the emitter's table are given, and what they share.

Tensors here have the batch axis first, B. Each line that makes one says its shape, in the
letters of the papers: T positions of the sequence, S of the memory, D features, H heads,
K heads of keys and values, G queries that share each of them, h features of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tinygrad import Tensor, dtypes

from archdsl.backend.program import kept
from archdsl.graph.nodes import Graph
from archdsl.graph.types import Axis, Size, Type

# Devices whose products of half numbers sum in float32 by hardware.
TENSOR_CORES = frozenset({"CUDA", "NV", "AMD", "HIP", "METAL"})


@dataclass
class Run:
    """What one forward pass has beside its values: weights, sizes, and true lengths."""

    graph: Graph
    weights: Mapping[str, Tensor]
    constants: dict[tuple[object, ...], Tensor]
    device: str
    sizes: dict[str, int] = field(default_factory=dict)
    lengths: dict[str, Tensor] = field(default_factory=dict)
    types: dict[str, Type] = field(default_factory=dict)

    def valid(self, size: Size) -> Tensor | None:
        """[B, n] True where a position of an axis is there, or None where all are.

        Padding stands at the end, so an axis made longer or shorter at its front is there up
        to its own length.
        """
        if not size.vars & self.lengths.keys():
            return None
        sizes: dict[str, Any] = self.sizes | self.lengths
        length: Any = size.at(sizes)  # [B]
        positions = Tensor.arange(size.at(self.sizes))  # [n]
        there: Tensor = positions.reshape(1, -1) < length.reshape(-1, 1)  # [B, n]
        return there

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        """a @ b in float32, of operands in the weights' dtype."""
        if self.device.split(":")[0] in TENSOR_CORES:
            return a.matmul(b, dtype=dtypes.float32)
        # Without tensor cores each product of two halves would be rounded before the sum.
        return a.cast(dtypes.float32) @ b.cast(dtypes.float32)

    def bound(self, size: Size) -> int:
        """The largest value that a size can take."""
        return size.at({axis.name: axis.bound for axis in self.graph.varying})

    def constant(self, key: tuple[object, ...], make: Callable[[], np.ndarray]) -> Tensor:
        """A table that depends on sizes alone, made once for a model."""
        if key not in self.constants:
            self.constants[key] = kept(Tensor(make(), device=self.device))
        return self.constants[key]


@dataclass(frozen=True)
class Use:
    """One use of an operator: its tensors, their types, its weights and its attributes."""

    tensors: Mapping[str, Tensor]
    types: Mapping[str, Type]
    weights: Mapping[str, Tensor]
    attr: Mapping[str, Any]
    run: Run

    @property
    def x(self) -> Tensor:
        return next(iter(self.tensors.values()))

    @property
    def axes(self) -> tuple[Axis, ...]:
        return next(iter(self.types.values())).axes

    def axis(self, default: int) -> int:
        """The axis meant, counted with the batch axis."""
        index = self.attr["axis"]
        return (default if index is None else index) + 1


def shape(x: Tensor) -> tuple[int, ...]:
    return tuple(int(size) for size in x.shape)


def product(use: Use, x: Tensor, prefix: str = "") -> Tensor:
    """x [B, …, in] times a weight [out, in], and its bias where it has one: [B, …, out].

    A kernel [out, C, k] counts as a weight [out, C k]. The callers make x contiguous: computed
    once, and not again for each output that uses it.
    """
    out = use.run.matmul(x, use.weights[f"{prefix}weight"].flatten(1).T)  # [B, …, out]
    if f"{prefix}bias" in use.weights:
        out = out + use.weights[f"{prefix}bias"]  # [B, …, out]
    return out.cast(x.dtype)  # [B, …, out]


def softmax_fp32(scores: Tensor, axis: int) -> Tensor:
    """The softmax in float32, of its input's shape."""
    return scores.cast(dtypes.float32).softmax(axis)
