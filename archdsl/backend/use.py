"""What the functions of the emitter's table are given, and what they share.

Tensors here have the batch axis first, B. Each line that makes one says its shape, in the
letters of the papers: T positions of the sequence, S of the memory, D features, H heads,
K heads of keys and values, G queries that share each of them, h features of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tinygrad import Tensor, dtypes

from archdsl.backend.kernels import activations, products
from archdsl.backend.kernels.products import PLAIN, Finish
from archdsl.backend.quantized import Quantized
from archdsl.backend.tensors import kept
from archdsl.graph.types import Axis, Size, Type
from archdsl.passes.program import Program
from archdsl.passes.select_kernels import TINYGRAD

# Devices whose products of half numbers sum in float32 by hardware.
TENSOR_CORES = frozenset({"CUDA", "NV", "AMD", "HIP", "METAL"})
TILE = 16  # a side of what they multiply at once


@dataclass
class Run:
    """One run of a program beside its values: weights, constants, and true lengths.

    A cache that the program keeps is a tensor [B, C, …], or one for each layer.
    """

    program: Program
    weights: Mapping[str, Tensor]
    constants: dict[tuple[object, ...], Tensor]
    device: str
    quantized: Mapping[str, Quantized] = field(default_factory=dict)  # of `weights`, by path
    lengths: dict[str, Tensor] = field(default_factory=dict)
    shared: dict[tuple[object, ...], Tensor] = field(default_factory=dict)  # by all layers

    def __post_init__(self) -> None:
        self.graph = self.program.graph
        self.types = self.graph.types()
        self.sizes = dict(self.program.sizes)
        self.caches = self.program.cache_values()

    @property
    def target(self) -> str | None:
        return self.program.target

    @property
    def trains(self) -> bool:
        return self.program.trains

    def valid(self, size: Size) -> Tensor | None:
        """[B, n] True where a position of an axis is there, or None where all are.

        Padding stands at the end, so an axis made longer or shorter at its front is there up
        to its own length.
        """
        length = self.length(size)  # [B]
        if length is None:
            return None
        positions = Tensor.arange(size.at(self.sizes))  # [n]
        there: Tensor = positions.reshape(1, -1) < length.reshape(-1, 1)  # [B, n]
        return there

    def length(self, size: Size) -> Tensor | None:
        """[B]: how many positions of an axis are there; None where all."""
        if not size.vars & self.lengths.keys():
            return None
        sizes: dict[str, Any] = self.sizes | self.lengths
        length: Any = size.at(sizes)
        found: Tensor = length
        return found

    @property
    def tensor_cores(self) -> bool:
        return self.device.split(":")[0] in TENSOR_CORES

    def matmul(self, a: Tensor, b: Tensor, flip: bool = False) -> Tensor:
        """a @ b in float32, or a @ b^T, of operands in the weights' dtype, by tinygrad."""
        b = b.transpose(-1, -2) if flip else b
        outer = a.shape[:-1] if b.ndim == 2 else a.shape[-2:-1]
        if self.tensor_cores and any(size != 1 for size in outer):
            return a.matmul(b, dtype=dtypes.float32)
        # Without tensor cores, which take no single row, each product of two halves would be
        # rounded before the sum.
        return a.cast(dtypes.float32) @ b.cast(dtypes.float32)

    def column(self, past: Any) -> Tensor:
        """[1]: the column of the first new token, computed once for all layers."""
        key = ("column", id(past))
        if key not in self.shared:
            column = (Tensor.arange(1) + past).cast(dtypes.int32).to(self.device)
            self.shared[key] = column.contiguous()
        return self.shared[key]

    def rows(self, table: Tensor, at: Tensor, axis: int) -> Tensor:
        """The rows of a table at positions [B, n], looked up once for all layers."""
        key = ("rows", id(table), id(at))
        if key not in self.shared:
            where: tuple[Any, ...] = (*[slice(None)] * axis, at)
            self.shared[key] = table[where].contiguous()
        return self.shared[key]

    def part(self, x: Tensor) -> Tensor:
        """What a layer begins with, or the last one gives, computed there, so that tinygrad
        schedules each layer by itself. A gradient needs the whole."""
        return x if self.trains else x.realize()

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
    """One call of an operator: its tensors, their types, its weights and its attributes, the
    kernels of its parts by their names, and what is fused behind it.

    The input `past` is a number, or a variable of tinygrad's, so that one capture serves all
    positions.
    """

    tensors: Mapping[str, Any]
    types: Mapping[str, Type]
    weights: Mapping[str, Tensor]
    attr: Mapping[str, Any]
    run: Run
    quantized: Mapping[str, Quantized] = field(default_factory=dict)  # of `weights`
    kernels: Mapping[str, str] = field(default_factory=dict)
    finish: Finish = PLAIN

    @property
    def x(self) -> Tensor:
        x: Tensor = next(iter(self.tensors.values()))
        return x

    def kernel(self, part: str = "") -> str:
        """The kernel of a part, tinygrad's where none of ours was selected."""
        return self.kernels.get(part, TINYGRAD)

    @property
    def axes(self) -> tuple[Axis, ...]:
        return next(iter(self.types.values())).axes

    def stored(self, name: str, full: Tensor) -> Tensor | Quantized:
        """A weight as kernels read it: of 8 bits where it is kept so, but not in training."""
        return full if self.run.trains else self.quantized.get(name, full)

    def axis(self, default: int) -> int:
        """The axis meant, counted with the batch axis."""
        index = self.attr["axis"]
        return (default if index is None else index) + 1


def product(use: Use, x: Tensor, prefix: str = "", finish: Finish = PLAIN) -> Tensor:
    """x [B, …, in] times a weight [out, in], plus its bias where it has one, and what becomes
    of that: [B, …, out].

    A kernel [out, C, k] counts as a weight [out, C k]. The callers have x `made`, or it
    would be computed again for each output that uses it.
    """
    weight = use.weights[f"{prefix}weight"].flatten(1)  # [out, in]
    bias = use.weights.get(f"{prefix}bias")  # [out]
    kernel = use.kernel(prefix.rstrip("."))
    if kernel == TINYGRAD:
        y = use.run.matmul(x, weight, flip=True)  # [B, …, out]
        y = (y if bias is None else y + bias).cast(x.dtype)  # [B, …, out]
        return finished(use.run, y, finish)  # [B, …, out]
    stored = use.stored(f"{prefix}weight", weight)  # [out, in]
    if use.run.trains:  # each by itself, since there is a gradient of each
        return finished(use.run, products.product(kernel, x, stored, bias), finish)
    return products.product(kernel, x, stored, bias, finish)  # [B, …, out]


def finished(run: Run, y: Tensor, finish: Finish) -> Tensor:
    """What becomes of a product's result y [B, …, out], done by itself: [B, …, out]."""
    if finish.act:
        y = activated(run, finish.act, y)  # [B, …, out]
    if finish.times is not None:
        y = y * finish.times  # [B, …, out]
    return y if finish.plus is None else y + finish.plus  # [B, …, out]


def activated(run: Run, act: str, x: Tensor) -> Tensor:
    """An activation of x [B, …] by itself: [B, …]."""
    if run.trains and run.target:
        return activations.activation(act, x)  # as x; its gradient is a kernel, too
    return ACTIVATIONS[act](x)  # as x


def _single(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A pointwise function computed in float32, its result in the dtype that came in."""
    return lambda x: function(x.cast(dtypes.float32)).cast(x.dtype)


ACTIVATIONS = {
    "relu": _single(lambda x: x.relu()),
    "gelu": _single(lambda x: x * 0.5 * (1 + (x * math.sqrt(0.5)).erf())),
    "gelu_tanh": _single(lambda x: x.gelu()),
    "silu": _single(lambda x: x * x.sigmoid()),
    "quick_gelu": _single(lambda x: x * (1.702 * x).sigmoid()),
    "tanh": _single(lambda x: x.tanh()),
    "sigmoid": _single(lambda x: x.sigmoid()),
}


def softmax_fp32(scores: Tensor, axis: int) -> Tensor:
    """The softmax in float32, of its input's shape."""
    return scores.cast(dtypes.float32).softmax(axis)
