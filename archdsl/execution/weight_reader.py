"""Reads the weights of a file into tensors on a device."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any

from numpy.typing import NDArray
from tinygrad import Tensor

from archdsl.backend.large_pages import LargePages
from archdsl.backend.quantized import Quantized
from archdsl.backend.tensors import to_device
from archdsl.formats.host import LazyTensor
from archdsl.graph.cost import BYTES


class WeightReader:
    """Reads weights for a model of one dtype.

    `quantize` is "stored" to keep matrices as they are in a GGUF file, "int8" if they are
    quantized after they are read, or None. `weights` are all that will be read.
    """

    def __init__(
        self, device: str, dtype: str, quantize: str | None, weights: Iterable[LazyTensor]
    ):
        self.device, self.dtype, self.quantize = device, dtype, quantize
        sizes = map(self._bytes, weights)
        self._pages = LargePages(sizes) if device == "CPU" else None

    def read(self, stored: LazyTensor) -> Tensor | Quantized:
        """A weight on the device, in its own dtype or the model's."""
        if not self._stays_quantized(stored):
            dtype = self.dtype if self._is_widened(stored) else stored.dtype
            stays = self._pages if self._bytes(stored) else None
            return to_device(stored.read(), self.device, dtype, stays)
        assert stored.groups is not None
        values, scales, offsets = stored.groups()
        return Quantized(
            self._placed(values, values.dtype.name),
            self._placed(scales, "float32"),
            None if offsets is None else self._placed(offsets, "float32"),
        )

    def _placed(self, part: NDArray[Any], dtype: str) -> Tensor:
        rows = (len(part), part[0].size)
        return to_device(part, self.device, dtype, self._pages, rows)

    def _bytes(self, stored: LazyTensor) -> int:
        """The bytes that a weight takes, at least; 0 if a cast or a quantization follows."""
        if self._stays_quantized(stored):
            return prod(stored.shape) * 3 // 4  # 4 bits each, and two float32 for each 32
        kept = stored.dtype == self.dtype or self._is_widened(stored)
        return prod(stored.shape) * BYTES[self.dtype] if kept and self.quantize != "int8" else 0

    def _stays_quantized(self, stored: LazyTensor) -> bool:
        matrix = len(stored.shape) == 2 and stored.groups is not None
        return matrix and self.quantize == "stored"

    def _is_widened(self, stored: LazyTensor) -> bool:
        """Whether its numbers are converted while they are copied."""
        return (stored.dtype, self.dtype) == ("float16", "float32")
