"""Converts tensors between a checkpoint and a model, reading them only when needed.

The conversions are the rows of conversions.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from archdsl.diagnostics import fail
from archdsl.formats.host import Groups, LazyTensor
from archdsl.published.conversions import Arrays, Conversion, Shapes

T = TypeVar("T")


def from_checkpoint(
    theirs: Sequence[LazyTensor], conversions: Sequence[Conversion], shapes: Shapes
) -> list[LazyTensor]:
    """Converts a checkpoint's tensors to weights of these shapes, lazily."""
    if not conversions:
        return list(theirs)
    if any(each.calculates for each in conversions):
        theirs = [as_floats(stored) for stored in theirs]
    stages = _stages(conversions, shapes, len(theirs))

    def convert(arrays: Arrays) -> Arrays:
        for each, after in zip(conversions, stages[1:], strict=True):
            arrays = each.apply(arrays, after)
        return arrays

    def read() -> Arrays:
        return convert([stored.read() for stored in theirs])

    def groups() -> list[Groups]:
        given = [stored.groups() for stored in theirs if stored.groups]
        fields = [list(part) for part in zip(*given, strict=True) if part[0] is not None]
        moved = zip(*(convert(part) for part in fields), strict=True)
        return [Groups(*map(np.ascontiguousarray, parts)) for parts in moved]

    count = len(shapes)
    numbers = _Shared(read, count)
    ours = [_part(theirs[0].dtype, shape, numbers, i) for i, shape in enumerate(shapes)]
    # If only whole rows move, quantized values and scales move in the same way.
    if all(stored.groups for stored in theirs) and all(each.by_rows for each in conversions):
        made = _Shared(groups, count)
        return [replace(part, groups=partial(made, i)) for i, part in enumerate(ours)]
    return ours


class _Shared(Generic[T]):
    """The parts of what `make` returns: made once for parts that are taken in turn, and dropped
    when each has been taken."""

    def __init__(self, make: Callable[[], list[T]], count: int):
        self.make, self.count = make, count
        self.parts: list[T] | None = None
        self.left: set[int] = set()

    def __call__(self, index: int) -> T:
        parts = self.parts
        if parts is None or index not in self.left:
            parts, self.left = self.make(), set(range(self.count))
        self.left.discard(index)
        self.parts = parts if self.left else None
        return parts[index]


def to_checkpoint(
    ours: Sequence[LazyTensor], conversions: Sequence[Conversion], count: int = 1
) -> list[LazyTensor]:
    """Converts weights to the `count` tensors of a checkpoint, lazily."""
    if not conversions:
        return list(ours)
    if any(each.calculates for each in conversions):
        ours = [as_floats(stored) for stored in ours]
    stages = _stages(conversions, tuple(stored.shape for stored in ours), count)

    def convert() -> Arrays:
        arrays = [stored.read() for stored in ours]
        for each, before in zip(reversed(conversions), reversed(stages[:-1]), strict=True):
            arrays = each.undo(arrays, before)
        return arrays

    made = _Shared(convert, len(stages[0]))
    return [_part(ours[0].dtype, shape, made, i) for i, shape in enumerate(stages[0])]


def as_floats(stored: LazyTensor) -> LazyTensor:
    """The same numbers as float32, in which they can be added; float64 stays."""

    def load() -> NDArray[Any]:
        numbers = stored.read()
        if stored.dtype == "bfloat16":  # its bits are the upper half of those of a float32
            return (numbers.astype(np.uint32) << 16).view(np.float32)
        return numbers.astype(np.float32)

    if stored.dtype in ("float32", "float64"):
        return replace(stored, groups=None)
    if stored.dtype not in ("float16", "bfloat16"):
        fail(
            "checkpoint", f"a conversion cannot calculate with numbers of dtype {stored.dtype}"
        )
    return LazyTensor("float32", stored.shape, load)


def _part(
    dtype: str, shape: tuple[int, ...], parts: Callable[[int], NDArray[Any]], index: int
) -> LazyTensor:
    return LazyTensor(dtype, shape, lambda: np.ascontiguousarray(parts(index)))


def _stages(conversions: Sequence[Conversion], ours: Shapes, count: int) -> list[Shapes]:
    """The shapes before the first conversion, between conversions, and after the last."""
    stages = [ours]
    for each in reversed(conversions):
        stages.insert(0, each.before(stages[0], count))
    return stages
