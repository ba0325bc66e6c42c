"""Weights of 8 bits: a whole number for each, and a scale for each 32 of a row."""

from __future__ import annotations

from dataclasses import dataclass

from tinygrad import Tensor, dtypes

from archdsl.backend.program import kept
from archdsl.backend.tensors import shape
from archdsl.passes.quantizable import GROUP


@dataclass(frozen=True)
class Quantized:
    """A weight [out, in]: `values` [out, in] of int8, `scales` [out, in / 32] of float32."""

    values: Tensor
    scales: Tensor

    def full(self, dtype: str) -> Tensor:
        """The weight in a dtype, made anew wherever it is used."""
        out, into = shape(self.values)
        groups = self.values.cast(dtypes.float32).reshape(out, into // GROUP, GROUP)
        return (groups * self.scales.unsqueeze(-1)).reshape(out, into).cast(dtype)


def quantized(weight: Tensor) -> Quantized:
    """The nearest 8-bit numbers, the largest of each 32 being 127."""
    out, into = shape(weight)
    groups = weight.cast(dtypes.float32).reshape(out, into // GROUP, GROUP)
    scales = kept((groups.abs().max(-1) / 127).contiguous())
    # A group of zeros has a scale of 0, and stays one.
    whole = (groups / (scales + (scales == 0)).unsqueeze(-1)).round()
    return Quantized(kept(whole.cast(dtypes.int8).reshape(out, into).contiguous()), scales)
