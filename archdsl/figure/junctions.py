"""Dots where the line of a value forks, for figures in which lines of two values cross."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TypeAlias

from archdsl.figure.drawing import Dot, Line, Point, Shape

_Direction: TypeAlias = tuple[int, int]
_NEAR = 0.01


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
        for a, b in zip(line.points, line.points[1:], strict=False):
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
    ends = {end for _, a, b in segments for end in (a, b)}
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
