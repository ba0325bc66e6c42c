"""A checkpoint's tensors made into ours and back, read only when they are asked for.

What each conversion does to shapes and arrays is a row of semantics/conversions.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from archdsl.formats.host import Groups, Stored
from archdsl.published.conversions import Arrays, Conversion, Shapes


def from_checkpoint(
    theirs: Sequence[Stored], conversions: Sequence[Conversion], shapes: Shapes
) -> list[Stored]:
    """Our weights, of these shapes, made of a checkpoint's tensors; nothing is read yet."""
    if not conversions:
        return list(theirs)
    stages = _stages(conversions, shapes, len(theirs))

    def made(arrays: Arrays) -> Arrays:
        for each, after in zip(conversions, stages[1:], strict=True):
            arrays = each.apply(arrays, after)
        return arrays

    def read() -> Arrays:
        return made([stored.read() for stored in theirs])

    def groups(index: int) -> Groups:
        given = [stored.groups() for stored in theirs if stored.groups]
        parts = [list(part) for part in zip(*given, strict=True) if part[0] is not None]
        return Groups(*(np.ascontiguousarray(made(part)[index]) for part in parts))

    ours = [_part(theirs[0].dtype, shape, read, i) for i, shape in enumerate(shapes)]
    # Where rows are moved whole, whole numbers and scales are moved as the numbers would be.
    if all(stored.groups for stored in theirs) and all(each.by_rows for each in conversions):
        return [replace(part, groups=partial(groups, i)) for i, part in enumerate(ours)]
    return ours


def to_checkpoint(
    ours: Sequence[Stored], conversions: Sequence[Conversion], count: int = 1
) -> list[Stored]:
    """The `count` tensors of a checkpoint that our weights are made of; nothing is read yet."""
    if not conversions:
        return list(ours)
    stages = _stages(conversions, tuple(stored.shape for stored in ours), count)

    def made() -> Arrays:
        arrays = [stored.read() for stored in ours]
        for each, before in zip(reversed(conversions), reversed(stages[:-1]), strict=True):
            arrays = each.undo(arrays, before)
        return arrays

    return [_part(ours[0].dtype, shape, made, i) for i, shape in enumerate(stages[0])]


def _part(dtype: str, shape: tuple[int, ...], made: Callable[[], Arrays], index: int) -> Stored:
    return Stored(dtype, shape, lambda: np.ascontiguousarray(made()[index]))


def _stages(conversions: Sequence[Conversion], ours: Shapes, count: int) -> list[Shapes]:
    """The shapes before the first conversion, between them, and behind the last."""
    stages = [ours]
    for each in reversed(conversions):
        stages.insert(0, each.before(stages[0], count))
    return stages
