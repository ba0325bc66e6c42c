"""Two figures in one picture, with marks on what only one of them has."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypeAlias

from archdsl.figure.drawing import SIZES, Circle, Drawing, Label, Mark, Rect, Shape, flat
from archdsl.figure.layout import MARGIN, layout
from archdsl.figure.measure import width
from archdsl.figure.structure import Box, Figure, Frame, Item, Sign, Text, items
from archdsl.figure.titles import words

# What is marked: an item, a frame, or the count of a stack; and its id.
_Name: TypeAlias = tuple[Literal["item", "frame", "count"], str]
HEADING = 22.0  # the room of the names above the figures
BETWEEN = 24.0


def side_by_side(left: Figure, right: Figure, types: bool = False) -> Drawing:
    """Two models beside each other. What only one of them has, has the colour of its name."""
    only = differing(left, right, types)
    first, second = layout(left, types), layout(right, types)
    heads = [width(figure.title, SIZES["count"]) + 2 * MARGIN for figure in (left, right)]
    high = max(first.height, second.height)
    start = max(first.width, heads[0]) + BETWEEN
    shapes: list[Shape] = []
    marks: tuple[Mark, Mark] = ("left", "right")
    for figure, drawing, names, mark, x in zip(
        (left, right), (first, second), only, marks, (0.0, start), strict=True
    ):
        shapes.append(Label(x + MARGIN, 18, figure.title, "count", "start", mark=mark))
        down = HEADING + high - drawing.height
        shapes += flat(_marked(drawing, names, mark).shapes, x, down)
    total = start + max(second.width, heads[1])
    return Drawing(f"{left.title} and {right.title}", total, high + HEADING, tuple(shapes))


def differing(
    left: Figure, right: Figure, types: bool = False
) -> tuple[set[_Name], set[_Name]]:
    """The items that each of two figures has and the other one has not.

    The figures are aligned so that most items stand beside an equal one, or else beside one of
    their kind.
    """
    ours, theirs = list(items(left.body)), list(items(right.body))
    our_words, their_words = ([_words(i, types) for i in each] for each in (ours, theirs))
    our_kinds, their_kinds = list(map(_kind, ours)), list(map(_kind, theirs))
    # The best score of the first i items beside the first j ones.
    best = [[0] * (len(theirs) + 1) for _ in range(len(ours) + 1)]
    for i in range(len(ours)):
        for j in range(len(theirs)):
            equal, alike = our_words[i] == their_words[j], our_kinds[i] == their_kinds[j]
            together = best[i][j] + (3 if equal else alike)
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
            if our_words[i] == their_words[j]:
                alike = _count(ours[i]) == _count(theirs[j])
                for names, each in zip(only, (ours[i], theirs[j]), strict=True):
                    names.discard(_name(each))
                    names |= set[_Name]() if alike else {("count", each.id)}
    return only


def _name(item: Item) -> _Name:
    return "frame" if isinstance(item, Frame) else "item", item.id


def _count(item: Item) -> int | None:
    return item.count if isinstance(item, Box | Frame) else None


def _kind(item: Item) -> str:
    return item.kind if isinstance(item, Box) else type(item).__name__


def _words(item: Item, types: bool) -> tuple[object, ...]:
    """What a reader sees of an item, but for its count, and for what a spec calls it."""
    size = item.type if types else ""
    match item:
        case Box() | Frame():
            called = words(item.origin.path.rpartition(".")[2])
            return _kind(item), item.title, item.note if item.note != called else "", size
        case Sign():
            return item.sign, size
        case Text():
            return item.title, size


def _marked(drawing: Drawing, names: set[_Name], mark: Mark) -> Drawing:
    def marked(shape: Shape) -> Shape:
        match shape:
            case Rect(kind="frame") if ("frame", shape.id) not in names:
                return shape
            case Rect(kind="frame"):
                return replace(shape, mark=mark)
            case Rect() | Circle() if ("item", shape.id) in names:
                return replace(shape, mark=mark)
            case Label() if ("count", shape.id) in names:
                return replace(shape, mark=mark)
        return shape

    return replace(drawing, shapes=tuple(map(marked, drawing.shapes)))
