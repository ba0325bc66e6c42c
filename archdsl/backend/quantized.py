"""Weights of 8 or 4 bits: integers, with one scale per group of each row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tinygrad import Tensor, UOp, dtypes

from archdsl.backend.tensors import make_contiguous, realize_outside_capture, shape
from archdsl.backend.tinygrad_seam import default_is, not_captured
from archdsl.frozen import Frozen
from archdsl.passes.select_quantizable import GROUP


class Quantized(Frozen):
    """A weight [out, in]: `values` * `scales` + `offsets`, if there are offsets.

    `values` are [out, in] of int8, or [out, in / 2] of uint8 with two 4-bit numbers each: in
    every 16 bytes, the lower 4 bits are 16 numbers and the upper 4 bits the next 16. `scales`
    and `offsets` are [out, in / group] of float32; a group has 16 or 32 numbers, 32 for 4 bits.
    """

    values: Tensor
    scales: Tensor
    offsets: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """[out, in]"""
        out, width = shape(self.values)
        return out, width * (2 if self.values.dtype == dtypes.uint8 else 1)

    @property
    def group(self) -> int:
        """The numbers of a row that share a scale."""
        return self.shape[1] // shape(self.scales)[1]

    def full(self, dtype: str) -> Tensor:
        """The dequantized weight, computed again for each use."""
        out, into = self.shape
        values = self.values
        if values.dtype == dtypes.uint8:
            halves = values.reshape(out, into // 32, 1, 16)  # [out, in / 32, 1, 16]
            values = (halves & 15).cat(halves >> 4, dim=2)  # [out, in / 32, 2, 16]
        groups = values.cast(dtypes.float32).reshape(out, -1, self.group)
        full = groups * self.scales.unsqueeze(-1)  # [out, in / group, group]
        if self.offsets is not None:
            full = full + self.offsets.unsqueeze(-1)  # [out, in / group, group]
        return full.reshape(out, into).cast(dtype)  # [out, in]


class Weights(Mapping[str, Tensor]):
    """Weights by path.

    Kernels read the `quantized` weights directly. As items of the mapping they are tensors of
    the model's dtype, dequantized on demand.
    """

    def __init__(self, found: Mapping[str, Tensor | Quantized], dtype: str):
        self._names = tuple(found)
        self._whole = {n: each for n, each in found.items() if isinstance(each, Tensor)}
        self.quantized = {n: each for n, each in found.items() if isinstance(each, Quantized)}
        self._dtype = dtype
        self._dequantized: dict[str, UOp] = {}  # the tensors that were returned

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._whole:
            self._whole[name] = self.quantized[name].full(self._dtype)
            self._dequantized[name] = self._whole[name].uop
        return self._whole[name]

    def stored(self) -> dict[str, Tensor | Quantized]:
        """The weights as they are stored."""
        return {n: self.quantized[n] if n in self.quantized else self[n] for n in self._names}

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def quantize_assigned(self) -> bool:
        """Quantizes weights that the user has assigned to; returns whether there were any."""
        moved = [
            name for name, uop in self._dequantized.items() if self._whole[name].uop is not uop
        ]
        changed = [name for name in moved if not self._is_unchanged(name)]
        for name in changed:
            self.quantized[name] = quantize(
                realize_outside_capture(make_contiguous(self._whole[name]))
            )
            self._whole[name].replace(self.quantized[name].full(self._dtype))
        self._dequantized |= {name: self._whole[name].uop for name in moved}
        return bool(changed)

    def _is_unchanged(self, name: str) -> bool:
        """Whether a weight still has its original values, although its tensor has changed."""
        stored = self.quantized[name].full(self._dtype)
        with not_captured():
            return bool((self._whole[name] == stored).all().item())

    def in_memory(self) -> dict[str, Tensor]:
        """The tensors in memory by name; of a quantized weight its parts."""
        whole = {f"weight {n}": self[n] for n in self._names if n not in self.quantized}
        parts = {
            f"{part} {name}": tensor
            for name, each in self.quantized.items()
            for part, tensor in vars(each).items()
            if tensor is not None
        }
        return whole | parts


def quantize(weight: Tensor) -> Quantized:
    """Quantizes a weight to 8 bits; the largest number of each group becomes 127."""
    out, into = shape(weight)
    with default_is(str(weight.device)):
        groups = weight.cast(dtypes.float32).reshape(out, into // GROUP, GROUP)
        scales = realize_outside_capture((groups.abs().max(-1) / 127).contiguous())
        # A group of zeros has the scale 0 and stays zero.
        whole = (groups / (scales + (scales == 0)).unsqueeze(-1)).round()
        return Quantized(
            realize_outside_capture(whole.cast(dtypes.int8).reshape(out, into).contiguous()),
            scales,
        )
