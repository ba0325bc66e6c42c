"""Two figures in one picture, with marks on what only one of them has."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

from archdsl.figure.drawing import SIZES, Circle, Drawing, Label, Mark, Rect, Shape, flat
from archdsl.figure.layout import MARGIN, layout
from archdsl.figure.measure import width
from archdsl.figure.structure import Box, Figure, Frame, Item, Sign, Text, items

_Name: TypeAlias = tuple[bool, str]  # whether it is a frame, and its id
HEADING = 22.0  # the room of the names above the figures
BETWEEN = 24.0


def side_by_side(left: Figure, right: Figure, types: bool = False) -> Drawing:
    """Two models beside each other; boxes that only one of them has are marked."""
    only_left, only_right = differing(left, right, types)
    first, second = layout(left, types), layout(right, types)
    names = [width(figure.title, SIZES["count"]) + 2 * MARGIN for figure in (left, right)]
    high = max(first.height, second.height)
    start = max(first.width, names[0]) + BETWEEN
    shapes: list[Shape] = []
    for figure, drawing, x in (
        (left, _marked(first, only_left, "left"), 0.0),
        (right, _marked(second, only_right, "right"), start),
    ):
        shapes.append(Label(x + MARGIN, 18, figure.title, "count", "start"))
        down = HEADING + high - drawing.height
        shapes += flat(drawing.shapes, x, down)
    total = start + max(second.width, names[1])
    return Drawing(f"{left.title} and {right.title}", total, high + HEADING, tuple(shapes))


def differing(
    left: Figure, right: Figure, types: bool = False
) -> tuple[set[_Name], set[_Name]]:
    """The items that each of two figures has and the other one has not.

    The figures are aligned so that most items stand beside an equal one, or else beside one of
    their kind.
    """
    ours, theirs = list(items(left.body)), list(items(right.body))
    # The best score of the first i items beside the first j ones.
    best = [[0] * (len(theirs) + 1) for _ in range(len(ours) + 1)]
    for i, item in enumerate(ours):
        for j, other in enumerate(theirs):
            together = best[i][j] + _likeness(item, other, types)
            best[i + 1][j + 1] = max(together, best[i][j + 1], best[i + 1][j])
    only = set(map(_name, ours)), set(map(_name, theirs))
    i, j = len(ours), len(theirs)
    while i and j:
        if best[i][j] == best[i - 1][j]:
            i -= 1
        elif best[i][j] == best[i][j - 1]:
            j -= 1
        else:
            i, j = i - 1, j - 1
            if _words(ours[i], types) == _words(theirs[j], types):
                only[0].discard(_name(ours[i]))
                only[1].discard(_name(theirs[j]))
    return only


def _name(item: Item) -> _Name:
    return isinstance(item, Frame), item.id


def _likeness(item: Item, other: Item, types: bool) -> int:
    if _words(item, types) == _words(other, types):
        return 3
    return int(_kind(item) == _kind(other))


def _kind(item: Item) -> str:
    return item.kind if isinstance(item, Box) else type(item).__name__


def _words(item: Item, types: bool) -> tuple[object, ...]:
    """What a reader sees of an item."""
    size = item.type if types else ""
    match item:
        case Box() | Frame():
            return _kind(item), item.title, item.note, item.count, size
        case Sign():
            return item.sign, size
        case Text():
            return item.title, size


def _marked(drawing: Drawing, names: set[_Name], mark: Mark) -> Drawing:
    def marked(shape: Shape) -> Shape:
        match shape:
            case Rect() if (shape.kind == "frame", shape.id) in names:
                return replace(shape, mark=mark)
            case Circle() if (False, shape.id) in names:
                return replace(shape, mark=mark)
        return shape

    return replace(drawing, shapes=tuple(map(marked, drawing.shapes)))
