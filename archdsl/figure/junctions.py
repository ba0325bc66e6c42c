"""Where the lines of a value fork: each part is drawn once, and dots are at forks."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import TypeAlias

from archdsl.figure.drawing import Dot, Line, Point, Shape

_Direction: TypeAlias = tuple[int, int]
_NEAR = 0.01


def once(shapes: Iterable[Shape]) -> Iterator[Shape]:
    """The shapes, with what several lines of one value share drawn once.

    Two strokes on each other look like a thicker one.
    """
    drawn: dict[str, list[tuple[Point, Point]]] = defaultdict(list)
    for shape in shapes:
        if not isinstance(shape, Line):
            yield shape
            continue
        before = drawn[shape.value]
        pieces: list[list[Point]] = []
        for start, end in pairwise(shape.points):
            for a, b in _uncovered(start, end, before):
                if pieces and pieces[-1][-1] == a:
                    pieces[-1].append(b)
                else:
                    pieces.append([a, b])
        before += pairwise(shape.points)
        for piece in pieces:
            ends = piece[-1] == shape.points[-1]
            yield Line(tuple(piece), shape.arrow and ends, shape.value)


def _uncovered(
    start: Point, end: Point, drawn: list[tuple[Point, Point]]
) -> Iterator[tuple[Point, Point]]:
    """The parts of a segment that lie on no other one, in its direction."""
    along = 0 if start[1] == end[1] else 1
    across, sign = 1 - along, 1 if end[along] > start[along] else -1

    def point(at: float) -> Point:
        place = start[along] + sign * at
        return (place, start[across]) if along == 0 else (start[across], place)

    covered = sorted(
        tuple(sorted((sign * (a[along] - start[along]), sign * (b[along] - start[along]))))
        for a, b in drawn
        if abs(a[across] - start[across]) < _NEAR and abs(b[across] - start[across]) < _NEAR
    )
    at, length = 0.0, abs(end[along] - start[along])
    for low, high in [*covered, (length, length)]:
        low = min(low, length)
        if low > at + _NEAR:
            yield (start if at == 0 else point(at)), (end if low == length else point(low))
        at = max(at, high)


def dots(shapes: Iterable[Shape]) -> Iterator[Dot]:
    """A dot at each point where a line forks, if other lines only cross.

    Without crossings a fork is clear, and papers draw none.
    """
    lines = [shape for shape in shapes if isinstance(shape, Line)]
    if any(_crossings(lines)):
        for value in dict.fromkeys(line.value for line in lines):
            same = [line for line in lines if line.value == value]
            yield from (Dot(x, y, value) for x, y in _forks(same))


def _segments(lines: Iterable[Line]) -> Iterator[tuple[str, Point, Point]]:
    for line in lines:
        for a, b in pairwise(line.points):
            yield line.value, min(a, b), max(a, b)


def _crossings(lines: Iterable[Line]) -> Iterator[Point]:
    """Where a horizontal line and a vertical one of another value cross."""
    upright: list[tuple[float, float, float, str]] = []
    flat: list[tuple[str, Point, Point]] = []
    for value, a, b in _segments(lines):
        if a[1] == b[1]:
            flat.append((value, a, b))
        else:
            upright.append((a[0], a[1], b[1], value))
    upright.sort()
    for value, (left, y), (right, _) in flat:
        for x, low, high, other in upright[bisect_left(upright, (left + _NEAR,)) :]:
            if x > right - _NEAR:
                break
            if other != value and low + _NEAR < y < high - _NEAR:
                yield x, y


def _forks(lines: list[Line]) -> Iterator[Point]:
    """The corners and ends of the lines of a value at which three or more directions meet."""
    segments = list(_segments(lines))
    ends = dict.fromkeys(end for _, a, b in segments for end in (a, b))  # in this order
    directions: dict[Point, set[_Direction]] = defaultdict(set)
    for x, y in ends:
        for _, a, b in segments:
            if a[0] == b[0] and abs(a[0] - x) < _NEAR:
                directions[x, y] |= {(0, -1)} if a[1] + _NEAR < y <= b[1] + _NEAR else set()
                directions[x, y] |= {(0, 1)} if a[1] - _NEAR <= y < b[1] - _NEAR else set()
            elif a[1] == b[1] and abs(a[1] - y) < _NEAR:
                directions[x, y] |= {(-1, 0)} if a[0] + _NEAR < x <= b[0] + _NEAR else set()
                directions[x, y] |= {(1, 0)} if a[0] - _NEAR <= x < b[0] - _NEAR else set()
    return (point for point, found in directions.items() if len(found) > 2)
