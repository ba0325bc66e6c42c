"""Weights of 8 bits or 4: a whole number for each, and a scale for each few of a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tinygrad import Tensor, UOp, dtypes

from archdsl.backend.tensors import make_contiguous, realize_outside_capture, shape
from archdsl.backend.tinygrad_seam import default_is, not_captured
from archdsl.frozen import Frozen
from archdsl.passes.select_quantizable import GROUP


class Quantized(Frozen):
    """A weight [out, in]: `values` times `scales`, plus `offsets` where there are any.

    `values` are [out, in] of int8, or [out, in / 2] of uint8 that hold two of 4 bits each: of
    every 16 the lower halves are 16 numbers, and the upper ones the 16 that follow. `scales`
    and `offsets` are [out, in / group] of float32; the group is 16 or 32, of 4 bits 32.
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
        """How many numbers of a row share a scale."""
        return self.shape[1] // shape(self.scales)[1]

    def full(self, dtype: str) -> Tensor:
        """The weight in a dtype, made anew wherever it is used."""
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
    """Weights by path. Those in whole numbers, `quantized`, are tensors of the model's dtype,
    too, made when they are asked for: kernels read them as they are."""

    def __init__(self, found: Mapping[str, Tensor | Quantized], dtype: str):
        self._names = tuple(found)
        self._whole = {n: each for n, each in found.items() if isinstance(each, Tensor)}
        self.quantized = {n: each for n, each in found.items() if isinstance(each, Quantized)}
        self._dtype = dtype
        self._made: dict[str, UOp] = {}  # of those in whole numbers, as they were handed out

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._whole:
            self._whole[name] = self.quantized[name].full(self._dtype)
            self._made[name] = self._whole[name].uop
        return self._whole[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def quantize_assigned(self) -> bool:
        """Quantizes anew the weights that have been assigned to since they were asked for, so
        that what is read here is what runs; says whether there were any."""
        moved = [name for name, uop in self._made.items() if self._whole[name].uop is not uop]
        changed = [name for name in moved if not self._as_stored(name)]
        for name in changed:
            self.quantized[name] = quantized(
                realize_outside_capture(make_contiguous(self._whole[name]))
            )
            self._whole[name].replace(self.quantized[name].full(self._dtype))
        self._made |= {name: self._whole[name].uop for name in moved}
        return bool(changed)

    def _as_stored(self, name: str) -> bool:
        """Whether a weight has the values that it was made with; it may have been computed."""
        stored = self.quantized[name].full(self._dtype)
        with not_captured():
            return bool((self._whole[name] == stored).all().item())

    def in_memory(self) -> dict[str, Tensor]:
        """What the weights are in memory, by name: those in whole numbers by their parts."""
        whole = {f"weight {n}": self[n] for n in self._names if n not in self.quantized}
        parts = {
            f"{part} {name}": tensor
            for name, each in self.quantized.items()
            for part, tensor in vars(each).items()
            if tensor is not None
        }
        return whole | parts


def quantized(weight: Tensor) -> Quantized:
    """The nearest 8-bit numbers, the largest of each 32 being 127."""
    out, into = shape(weight)
    with default_is(str(weight.device)):
        groups = weight.cast(dtypes.float32).reshape(out, into // GROUP, GROUP)
        scales = realize_outside_capture((groups.abs().max(-1) / 127).contiguous())
        # A group of zeros has a scale of 0, and stays one.
        whole = (groups / (scales + (scales == 0)).unsqueeze(-1)).round()
        return Quantized(
            realize_outside_capture(whole.cast(dtypes.int8).reshape(out, into).contiguous()),
            scales,
        )
