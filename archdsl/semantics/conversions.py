"""What a checkpoint's tensors go through to become a model's weights, by their shapes alone.

A conversion turns some tensors into some others and loses nothing, so each can be walked back:
from the shapes of a model's weights follow those that a checkpoint must have. The tensors
themselves are converted by the runtime, which has a function of the same name for each.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TypeAlias

from archdsl.frozen import Frozen

Shape: TypeAlias = tuple[int, ...]
Shapes: TypeAlias = tuple[Shape, ...]


class Unfit(Exception):
    """Why a conversion cannot have made tensors of these shapes."""


class Conversion(Frozen):
    """One step on the way from a checkpoint's tensors to ours: `shaped(1, 1, D)`."""

    name: str
    numbers: tuple[int, ...] = ()

    def before(self, after: Shapes, count: int) -> Shapes:
        """The shapes of the `count` tensors that become tensors of the shapes `after`."""
        return CONVERSIONS[self.name](after, count, self.numbers)


def _transpose(after: Shapes, count: int, numbers: tuple[int, ...]) -> Shapes:
    if any(len(shape) != 2 for shape in after):
        raise Unfit("only a matrix is transposed")
    return tuple((columns, rows) for rows, columns in after)


def _split(after: Shapes, count: int, numbers: tuple[int, ...]) -> Shapes:
    first, *others = after
    if not first or any(shape[1:] != first[1:] for shape in others):
        raise Unfit("the parts that a tensor is split into differ along their first axis alone")
    return ((sum(shape[0] for shape in after), *first[1:]),)


def _concat(after: Shapes, count: int, numbers: tuple[int, ...]) -> Shapes:
    if len(after) != 1 or not after[0] or after[0][0] % count:
        raise Unfit(f"{count} parts of one size are joined along their first axis")
    (shape,) = after
    return ((shape[0] // count, *shape[1:]),) * count


def _shaped(after: Shapes, count: int, numbers: tuple[int, ...]) -> Shapes:
    if any(prod(shape) != prod(numbers) for shape in after):
        raise Unfit(f"{list(after[0])} has not as many numbers as {list(numbers)}")
    return (numbers,) * len(after)


def _halves(after: Shapes, count: int, numbers: tuple[int, ...]) -> Shapes:
    (heads,) = numbers
    if any(not shape or shape[0] % (2 * heads) for shape in after):
        raise Unfit(f"rows come in pairs, for each of {heads} heads")
    return after


def _without(after: Shapes, count: int, numbers: tuple[int, ...]) -> Shapes:
    part, parts = numbers
    if not part <= parts > 1:
        raise Unfit(f"of {parts} parts there is no part {part} to leave out")
    if any(not shape or shape[0] % (parts - 1) for shape in after):
        raise Unfit(f"rows come in {parts} parts of one size, less one")
    return tuple((shape[0] // (parts - 1) * parts, *shape[1:]) for shape in after)


CONVERSIONS: dict[str, Callable[[Shapes, int, tuple[int, ...]], Shapes]] = {
    "transpose": _transpose,
    "split": _split,
    "concat": _concat,
    "shaped": _shaped,
    "halves": _halves,
    "without": _without,
}
# How many numbers stand behind each; None: as many as there are.
NUMBERS: dict[str, int | None] = {
    "transpose": 0,
    "split": 0,
    "concat": 0,
    "shaped": None,
    "halves": 1,
    "without": 2,
}
