"""A figure as shapes with coordinates, in points; y grows upwards until the figure is done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Literal, TypeAlias, assert_never

from archdsl.figure.structure import Kind, Origin
from archdsl.frozen import Frozen

Point: TypeAlias = tuple[float, float]
Role: TypeAlias = Literal["title", "note", "word", "type", "count", "heading"]
Mark: TypeAlias = Literal[
    "", "left", "right"
]  # only the left or right one of two models has it
Anchor: TypeAlias = Literal["start", "middle", "end"]

# The size of the font of each role, in points.
SIZES: dict[Role, float] = {
    "title": 10,
    "note": 7.5,
    "word": 10,
    "type": 7,
    "count": 12,
    "heading": 7.5,
}


class Label(Frozen):
    """A line of text; (x, y) is on its baseline. A count has the `id` of its stack, the word
    for an input or an output the id and the origin of that."""

    x: float
    y: float
    text: str
    role: Role
    anchor: Anchor = "middle"
    id: str = ""
    mark: Mark = ""
    origin: Origin = Origin()


class Rect(Frozen):
    """A box, or the frame around a body; (x, y) is its lowest corner."""

    x: float
    y: float
    width: float
    height: float
    kind: Kind | Literal["frame"]
    id: str
    origin: Origin
    labels: tuple[Label, ...] = ()
    mark: Mark = ""


class Circle(Frozen):
    x: float
    y: float
    radius: float
    sign: str
    id: str
    origin: Origin
    mark: Mark = ""


class Line(Frozen):
    """The line of a value, in segments at right angles. An arrow ends at what receives it."""

    points: tuple[Point, ...]
    arrow: bool
    value: str


class Dot(Frozen):
    """Where the line of a value forks."""

    x: float
    y: float
    value: str


Shape: TypeAlias = Rect | Circle | Line | Dot | Label


class Drawing(Frozen):
    """Shapes in a picture of a width and a height, in the order in which they are drawn."""

    title: str
    width: float
    height: float
    shapes: tuple[Shape, ...]


class Group(Frozen):
    """Shapes whose corner is moved to (x, y)."""

    x: float
    y: float
    shapes: tuple[Shape | Group, ...]


def flat(
    shapes: Iterable[Shape | Group], dx: float, dy: float, flip: float | None = None
) -> Iterator[Shape]:
    """All shapes at their places, moved by (dx, dy).

    With `flip`, they are in a picture of this height, with y downwards.
    """

    def at(x: float, y: float) -> Point:
        return x + dx, (y + dy if flip is None else flip - y - dy)

    def label(each: Label) -> Label:
        x, y = at(each.x, each.y)
        return replace(each, x=x, y=y)

    for shape in shapes:
        match shape:
            case Group(x, y, inside):
                yield from flat(inside, x + dx, y + dy, flip)
            case Rect(x, y, _, height):
                x, y = at(x, y if flip is None else y + height)
                yield replace(shape, x=x, y=y, labels=tuple(map(label, shape.labels)))
            case Circle(x, y):
                x, y = at(x, y)
                yield replace(shape, x=x, y=y)
            case Line(points, arrow, value):
                yield Line(tuple(at(*point) for point in points), arrow, value)
            case Dot(x, y):
                x, y = at(x, y)
                yield replace(shape, x=x, y=y)
            case Label():
                yield label(shape)
            case _:
                assert_never(shape)
