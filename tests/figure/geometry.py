"""Checks a drawing by geometry: nothing overlaps, and nothing is outside the picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations

from archdsl.figure.drawing import SIZES, Circle, Dot, Drawing, Label, Line, Rect
from archdsl.figure.measure import width

Area = tuple[float, float, float, float]  # left, top, right, bottom


def problems(drawing: Drawing) -> list[str]:
    """What is wrong with a drawing, in words."""
    return [
        *_outside(drawing),
        *_overlaps(drawing),
        *_crossed(drawing),
        *_on_each_other(drawing),
    ]


def area(shape: Rect | Circle | Dot | Label) -> Area:
    match shape:
        case Rect(x, y, wide, high):
            return x, y, x + wide, y + high
        case Circle(x, y, r):
            return x - r, y - r, x + r, y + r
        case Dot(x, y):
            return x - 2, y - 2, x + 2, y + 2
        case Label(x, y, text, role, anchor):
            size = SIZES[role]
            wide = width(text, size)
            left = x - {"start": 0, "middle": wide / 2, "end": wide}[anchor]
            return left, y - 0.72 * size, left + wide, y + 0.2 * size


def _solid(drawing: Drawing) -> list[tuple[str, Area]]:
    """Boxes, signs and texts outside of boxes."""
    found = []
    for shape in drawing.shapes:
        match shape:
            case Rect(kind="frame"):
                found += [(each.text, area(each)) for each in shape.labels]
            case Rect():
                found.append((" ".join(each.text for each in shape.labels), area(shape)))
            case Circle():
                found.append((shape.sign, area(shape)))
            case Label():
                found.append((shape.text, area(shape)))
    return found


def _meet(a: Area, b: Area, slack: float = 0.2) -> bool:
    return (
        a[0] + slack < b[2]
        and b[0] + slack < a[2]
        and a[1] + slack < b[3]
        and b[1] + slack < a[3]
    )


def _within(a: Area, b: Area) -> bool:
    return b[0] <= a[0] and b[1] <= a[1] and a[2] <= b[2] and a[3] <= b[3]


def _outside(drawing: Drawing) -> Iterator[str]:
    page = 0.0, 0.0, drawing.width, drawing.height
    for shape in drawing.shapes:
        if isinstance(shape, Line):
            if not all(0 < x < page[2] and 0 < y < page[3] for x, y in shape.points):
                yield f"a line of {shape.value} leaves the picture"
        elif not _within(area(shape), page):
            yield f"{shape} leaves the picture"
        if isinstance(shape, Rect):
            for label in shape.labels:
                if not _within(area(label), area(shape)):
                    yield f"`{label.text}` leaves its box"


def _overlaps(drawing: Drawing) -> Iterator[str]:
    solid = _solid(drawing)
    for (name, a), (other, b) in combinations(solid, 2):
        if _meet(a, b):
            yield f"`{name}` and `{other}` overlap"
    frames = [area(s) for s in drawing.shapes if isinstance(s, Rect) and s.kind == "frame"]
    everything = [*solid, *(("a frame", frame) for frame in frames)]
    for frame in frames:
        for name, a in everything:
            if _meet(a, frame) and not (_within(a, frame) or _within(frame, a)):
                yield f"the border of a frame goes through `{name}`"


def _segments(drawing: Drawing) -> Iterator[tuple[str, Area]]:
    for shape in drawing.shapes:
        if isinstance(shape, Line):
            for (a, b), (x, y) in zip(shape.points, shape.points[1:], strict=False):
                yield shape.value, (min(a, x), min(b, y), max(a, x), max(b, y))


def _crossed(drawing: Drawing) -> Iterator[str]:
    """Lines through boxes or texts, and lines that are not at right angles."""
    solid = _solid(drawing)
    for value, line in _segments(drawing):
        if line[2] - line[0] > 1e-6 and line[3] - line[1] > 1e-6:
            yield f"a line of {value} is not at right angles"
        thick = line[0] - 0.4, line[1] - 0.4, line[2] + 0.4, line[3] + 0.4
        for name, each in solid:
            if _meet(thick, each, 0.5):
                yield f"a line of {value} goes through `{name}`"


def _on_each_other(drawing: Drawing) -> Iterator[str]:
    """Lines that share a part; two strokes look like a thicker one."""
    for flat in (False, True):
        at = defaultdict(list)
        for value, (left, top, right, bottom) in _segments(drawing):
            if (top == bottom) == flat and (left, top) != (right, bottom):
                span = (left, right) if flat else (top, bottom)
                at[round(top if flat else left, 2)].append((value, *span))
        for lines in at.values():
            for (value, a, b), (other, c, d) in combinations(lines, 2):
                if min(b, d) - max(a, c) > 0.5:
                    yield f"the lines of {value} and {other} lie on each other"


def arrows(drawing: Drawing) -> set[tuple[str, str]]:
    """The arrows that end at a box or a sign: the value, and the id of what receives it."""
    targets = [(s.id, area(s)) for s in drawing.shapes if isinstance(s, Rect | Circle)]
    found = set()
    for line in drawing.shapes:
        if isinstance(line, Line) and line.arrow:
            x, y = line.points[-1]
            for id, (left, top, right, bottom) in targets:
                inside = left - 0.1 <= x <= right + 0.1 and top - 0.1 <= y <= bottom + 0.1
                border = min(abs(x - left), abs(x - right), abs(y - top), abs(y - bottom))
                if inside and border < 0.1:
                    found.add((line.value, id))
    return found
