"""A checkpoint's tensors made into ours and back: the conversions of `weights` blocks.

Every conversion moves numbers and computes none, so it is exact in any dtype, and walked back
it gives the checkpoint's own bits. What a conversion does to shapes is said by
semantics/conversions.py.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from archdsl.diagnostics import fail
from archdsl.formats.host import Groups, Stored
from archdsl.semantics.conversions import Conversion, Shapes

Arrays: TypeAlias = "list[NDArray[Any]]"
# Arrays before or behind a conversion, the numbers behind its name, the shapes to come to.
Step: TypeAlias = Callable[[Arrays, tuple[int, ...], Shapes], Arrays]


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
            arrays = STEPS[each.name][0](arrays, each.numbers, after)
        return arrays

    parts = [_part(theirs[0].dtype, shape, made, i) for i, shape in enumerate(shapes)]
    if all(stored.groups for stored in theirs) and _BY_ROWS.issuperset(
        each.name for each in conversions
    ):
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
            arrays = STEPS[each.name][0](arrays, each.numbers, rows)
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
            arrays = STEPS[each.name][1](arrays, each.numbers, before)
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


def _transpose(arrays: Arrays, numbers: tuple[int, ...], shapes: Shapes) -> Arrays:
    return [array.T for array in arrays]


def _split(arrays: Arrays, numbers: tuple[int, ...], shapes: Shapes) -> Arrays:
    ends = list(accumulate(shape[0] for shape in shapes))
    return list(np.split(arrays[0], ends[:-1]))


def _join(arrays: Arrays, numbers: tuple[int, ...], shapes: Shapes) -> Arrays:
    return [np.concatenate(arrays)]


def _reshape(arrays: Arrays, numbers: tuple[int, ...], shapes: Shapes) -> Arrays:
    return [array.reshape(shape) for array, shape in zip(arrays, shapes, strict=True)]


def _halves(arrays: Arrays, numbers: tuple[int, ...], shapes: Shapes) -> Arrays:
    """Rows (head, pair, 2) become (head, 2, pair)."""
    (heads,) = numbers
    parted = [a.reshape(heads, -1, 2, *a.shape[1:]).swapaxes(1, 2) for a in arrays]
    return _reshape(parted, numbers, shapes)


def _pairs(arrays: Arrays, numbers: tuple[int, ...], shapes: Shapes) -> Arrays:
    """Rows (head, 2, pair) become (head, pair, 2)."""
    (heads,) = numbers
    parted = [a.reshape(heads, 2, -1, *a.shape[1:]).swapaxes(1, 2) for a in arrays]
    return _reshape(parted, numbers, shapes)


def _without(arrays: Arrays, numbers: tuple[int, ...], shapes: Shapes) -> Arrays:
    """The rows but those of one part of several, which must be zeros to the bit."""
    part, parts = numbers
    kept = []
    for array in arrays:
        rows = np.split(np.ascontiguousarray(array), parts)
        if rows.pop(part - 1).view(np.uint8).any():
            fail(
                "checkpoint",
                f"part {part} of {parts} of a tensor {list(array.shape)} is no weight here",
                expected="zeros in its place",
                found="other numbers",
            )
        kept.append(np.concatenate(rows))
    return kept


def _with_zeros(arrays: Arrays, numbers: tuple[int, ...], shapes: Shapes) -> Arrays:
    part, parts = numbers
    rows = [np.split(array, parts - 1) for array in arrays]
    return [np.concatenate([*r[: part - 1], np.zeros_like(r[0]), *r[part - 1 :]]) for r in rows]


_BY_ROWS = frozenset({"split", "halves"})  # conversions that leave each row as it is

# From theirs to ours, and back.
STEPS: dict[str, tuple[Step, Step]] = {
    "transpose": (_transpose, _transpose),
    "split": (_split, _join),
    "concat": (_join, _split),
    "shaped": (_reshape, _reshape),
    "halves": (_halves, _pairs),
    "without": (_without, _with_zeros),
}
