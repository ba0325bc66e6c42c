"""Converts tensors between a checkpoint and a model, reading them only when needed.

The conversions are the rows of conversions.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from archdsl.formats.host import Groups, LazyTensor
from archdsl.published.conversions import Arrays, Conversion, Shapes


def from_checkpoint(
    theirs: Sequence[LazyTensor], conversions: Sequence[Conversion], shapes: Shapes
) -> list[LazyTensor]:
    """Converts a checkpoint's tensors to weights of these shapes, lazily."""
    if not conversions:
        return list(theirs)
    stages = _stages(conversions, shapes, len(theirs))

    def convert(arrays: Arrays) -> Arrays:
        for each, after in zip(conversions, stages[1:], strict=True):
            arrays = each.apply(arrays, after)
        return arrays

    def read() -> Arrays:
        return convert([stored.read() for stored in theirs])

    def groups(index: int) -> Groups:
        given = [stored.groups() for stored in theirs if stored.groups]
        parts = [list(part) for part in zip(*given, strict=True) if part[0] is not None]
        return Groups(*(np.ascontiguousarray(convert(part)[index]) for part in parts))

    ours = [_part(theirs[0].dtype, shape, read, i) for i, shape in enumerate(shapes)]
    # If only whole rows move, quantized values and scales move in the same way.
    if all(stored.groups for stored in theirs) and all(each.by_rows for each in conversions):
        return [replace(part, groups=partial(groups, i)) for i, part in enumerate(ours)]
    return ours


def to_checkpoint(
    ours: Sequence[LazyTensor], conversions: Sequence[Conversion], count: int = 1
) -> list[LazyTensor]:
    """Converts weights to the `count` tensors of a checkpoint, lazily."""
    if not conversions:
        return list(ours)
    stages = _stages(conversions, tuple(stored.shape for stored in ours), count)

    def convert() -> Arrays:
        arrays = [stored.read() for stored in ours]
        for each, before in zip(reversed(conversions), reversed(stages[:-1]), strict=True):
            arrays = each.undo(arrays, before)
        return arrays

    return [_part(ours[0].dtype, shape, convert, i) for i, shape in enumerate(stages[0])]


def _part(
    dtype: str, shape: tuple[int, ...], convert: Callable[[], Arrays], index: int
) -> LazyTensor:
    return LazyTensor(dtype, shape, lambda: np.ascontiguousarray(convert()[index]))


def _stages(conversions: Sequence[Conversion], ours: Shapes, count: int) -> list[Shapes]:
    """The shapes before the first conversion, between conversions, and after the last."""
    stages = [ours]
    for each in reversed(conversions):
        stages.insert(0, each.before(stages[0], count))
    return stages
