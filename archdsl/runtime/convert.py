"""A checkpoint's tensors made into ours and back, read only when they are asked for.

What each conversion does to shapes and arrays is a row of semantics/conversions.py.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archdsl.formats.host import Groups, Stored
from archdsl.semantics.conversions import Arrays, Conversion, Shapes


def to_ours(
    theirs: Sequence[Stored], conversions: Sequence[Conversion], shapes: Shapes
) -> list[Stored]:
    """Our weights, of these shapes, made of a checkpoint's tensors; nothing is read yet."""
    if not conversions:
        return list(theirs)
    stages = _stages(conversions, shapes, len(theirs))

    def made() -> Arrays:
        arrays = [stored.read() for stored in theirs]
        for each, after in zip(conversions, stages[1:], strict=True):
            arrays = each.apply(arrays, after)
        return arrays

    parts = [_part(theirs[0].dtype, shape, made, i) for i, shape in enumerate(shapes)]
    if all(stored.groups for stored in theirs) and all(each.by_rows for each in conversions):
        grouped = functools.partial(_grouped, theirs, conversions, stages)
        return [
            replace(part, groups=functools.partial(grouped, i)) for i, part in enumerate(parts)
        ]
    return parts


def _grouped(
    theirs: Sequence[Stored],
    conversions: Sequence[Conversion],
    stages: Sequence[Shapes],
    index: int,
) -> Groups:
    """One of our weights as groups, of theirs whose rows are moved whole."""
    given = [stored.groups() for stored in theirs if stored.groups]

    def moved(arrays: list[NDArray[Any]]) -> NDArray[Any]:
        for each, after in zip(conversions, stages[1:], strict=True):
            rows = tuple((shape[0], arrays[0].shape[1]) for shape in after)
            arrays = each.apply(arrays, rows)
        return np.ascontiguousarray(arrays[index])

    offsets = [each.offsets for each in given if each.offsets is not None]
    return Groups(
        moved([each.values for each in given]),
        moved([each.scales for each in given]),
        moved(list(offsets)) if offsets else None,
    )


def to_theirs(
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
