"""What an emitter receives: `OpCall`, one call of an operator, and `ExecutionContext`, the
state that all calls of one program share.

Tensors of the emitters have the batch axis B first. Each line that computes one gives its shape
in the letters of the papers: T positions of the sequence, S of the memory, D features, H heads,
K key heads, G query heads per key head, h features of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from tinygrad import Tensor, dtypes

from archdsl.backend.kernels.products import NO_EPILOGUE, Epilogue
from archdsl.backend.quantized import Quantized
from archdsl.backend.tensors import realize_outside_capture
from archdsl.backend.tinygrad_devices import accumulates_in_float32
from archdsl.backend.tinygrad_seam import DType
from archdsl.diagnostics import fail
from archdsl.graph.nodes import Apply
from archdsl.graph.types import Axis, Size, Type
from archdsl.passes.program import Program
from archdsl.passes.select_kernels import TINYGRAD

if TYPE_CHECKING:
    from archdsl.backend.recompute import Tape

TILE = 16  # a side of the matrices that tensor cores multiply


@dataclass
class ExecutionContext:
    """The weights, constants and true lengths for one run of a program.

    A cache of the program is a tensor [B, C, …], or a tuple with one for each layer.
    """

    program: Program
    weights: Mapping[str, Tensor]
    constants: dict[tuple[object, ...], Tensor]
    device: str
    quantized: Mapping[str, Quantized] = field(default_factory=dict)  # of `weights`, by path
    lengths: dict[str, Tensor] = field(default_factory=dict)
    shared: dict[tuple[object, ...], Tensor] = field(default_factory=dict)  # by all layers
    # In an expert: the number of vectors that chose it, which are the first ones.
    chosen_rows: Tensor | None = None
    devices: tuple[str, ...] = ()  # those that the weights are split over; empty: one device
    key: Tensor | None = (
        None  # [2] of uint32: the random numbers of dropout; None for tinygrad's
    )
    frozen: bool = False  # whether no gradient of a quantized weight is needed
    tape: Tape | None = None  # the stacks that are computed again for the gradient
    # Called with each operator, its full path and its value.
    probe: Callable[[Apply, str, Any], None] | None = None

    def __post_init__(self) -> None:
        self.graph = self.program.graph
        self.types = self.graph.types()
        self.sizes = dict(self.program.sizes)
        self.caches = self.program.cache_values()

    @property
    def target(self) -> str | None:
        return self.program.target

    @property
    def wide(self) -> frozenset[str]:
        return self.program.wide

    @property
    def trains(self) -> bool:
        return self.program.trains

    def valid_mask(self, size: Size) -> Tensor | None:
        """[B, n]: True where a position of an axis is not padding; None if none is padding.

        Padding is at the end. An axis that was lengthened or shortened at its front is
        therefore valid up to its own length.
        """
        length = self.length(size)  # [B]
        if length is None:
            return None
        positions = Tensor.arange(size.at(self.sizes))  # [n]
        valid: Tensor = positions.reshape(1, -1) < length.reshape(-1, 1)  # [B, n]
        return valid

    def length(self, size: Size) -> Tensor | None:
        """[B]: the number of valid positions of an axis; None if none is padding."""
        if not size.vars & self.lengths.keys():
            return None
        sizes: dict[str, Any] = self.sizes | self.lengths
        length: Any = size.at(sizes)
        found: Tensor = length
        return found

    @property
    def tensor_cores(self) -> bool:
        return accumulates_in_float32(self.device)

    def matmul(self, a: Tensor, b: Tensor, transpose_b: bool = False) -> Tensor:
        """a @ b, or a @ b^T, by tinygrad: accumulated in float32, operands in their dtype."""
        b = b.transpose(-1, -2) if transpose_b else b
        outer = a.shape[:-1] if b.ndim == 2 else a.shape[-2:-1]
        if self.tensor_cores and any(size != 1 for size in outer):
            return a.matmul(b, dtype=dtypes.float32)
        # Without tensor cores, which cannot multiply a single row, tinygrad would round each
        # product of two 16-bit numbers before it is added.
        return a.cast(dtypes.float32) @ b.cast(dtypes.float32)

    def first_position(self, past: Any) -> Tensor:
        """[1]: the cache position of the first new token, computed once for all layers."""
        key = ("first_position", id(past))
        if key not in self.shared:
            position = (Tensor.arange(1) + past).cast(dtypes.int32).to(self.device)
            self.shared[key] = position.contiguous()
        return self.shared[key]

    def rows(self, table: Tensor, at: Tensor, axis: int) -> Tensor:
        """The rows of a table at positions [B, n], looked up once for all layers."""
        key = ("rows", id(table), at.uop)
        if key not in self.shared:
            where: tuple[Any, ...] = (*[slice(None)] * axis, at)
            self.shared[key] = table[where].contiguous()
        return self.shared[key]

    def realize_layer(self, x: Tensor) -> Tensor:
        """Computes the input or output of a layer, so that tinygrad schedules each layer alone.

        In training nothing is computed here: a gradient needs the whole expression.
        """
        return x if self.trains else x.realize()

    def layer_number(self, number: int) -> Tensor:
        """[1] of uint32: the number of a layer, in memory: layers have the same kernels."""
        return self.constant(("layer number", number), lambda: np.array([number], np.uint32))

    def bound(self, size: Size) -> int:
        """The largest value that a size can take."""
        return size.at(self.graph.bounds)

    def constant(self, key: tuple[object, ...], make: Callable[[], np.ndarray]) -> Tensor:
        """A table that depends only on sizes, computed once for a model."""
        if key not in self.constants:
            try:
                table = Tensor(make(), device=self.devices or self.device)
            except MemoryError as error:
                message = "a table of positions does not fit into memory"
                fail(
                    "device",
                    message,
                    found=str(error),
                    help="set a shorter context",
                    cause=error,
                )
            self.constants[key] = realize_outside_capture(table)
        return self.constants[key]


@dataclass(frozen=True)
class OpCall:
    """One call of an operator: its tensors and their types, weights, attributes, the kernel
    selected for each of its parts, and the operators fused into it.

    The input `past` is a number or a tinygrad variable, so that one captured program serves all
    positions.
    """

    tensors: Mapping[str, Any]
    types: Mapping[str, Type]
    weights: Mapping[str, Tensor]
    attr: Mapping[str, Any]
    context: ExecutionContext
    quantized: Mapping[str, Quantized] = field(default_factory=dict)  # of `weights`
    kernels: Mapping[str, str] = field(default_factory=dict)
    epilogue: Epilogue = NO_EPILOGUE
    wide: bool = False
    layer: tuple[int, ...] = ()  # the numbers of the layers and experts around the call
    place: str = ""  # the path and the id of the call: no other call in the layer has these

    @property
    def dtype(self) -> DType:
        """The dtype of the result: float32 if it is wide, else that of x unless x is wide."""
        if self.wide:
            return dtypes.float32
        return dtypes.float16 if self.context.wide else self.x.dtype

    @property
    def float_dtype(self) -> DType:
        """The dtype of x, or that of the program's floats for a bool x."""
        if self.x.is_floating_point():
            return self.x.dtype
        return dtypes.float16 if self.context.program.dtype == "float16" else dtypes.float32

    @property
    def x(self) -> Tensor:
        x: Tensor = next(iter(self.tensors.values()))
        return x

    def kernel(self, part: str = "") -> str:
        """The kernel selected for a part; tinygrad's if no C kernel was selected."""
        return self.kernels.get(part, TINYGRAD)

    @property
    def axes(self) -> tuple[Axis, ...]:
        return next(iter(self.types.values())).axes

    def kernel_weight(self, name: str, full: Tensor) -> Tensor | Quantized:
        """A weight as C kernels read it: quantized if the model stores it so
        and no gradient of it is needed."""
        needed = self.context.trains and not self.context.frozen
        return full if needed else self.quantized.get(name, full)

    def axis(self, default: int) -> int:
        """The axis of the attribute `axis`, counted from the batch axis."""
        index = self.attr["axis"]
        return (default if index is None else index) + 1
