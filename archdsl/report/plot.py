"""Curves over an axis as SVG, in the colours of the page around it.

The pointer on a plot shows the values at a size, by rules of CSS alone; without a pointer, and
on paper, it shows those at the largest size. A library would draw into its own page: it needs
a package for each reader, and knows neither the dark scheme nor the width of a column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape
from itertools import accumulate, pairwise
from math import ceil, floor, log2, log10

from archdsl.frozen import Frozen

WIDTH, HEIGHT = 400.0, 250.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 378.0, 46.0, 212.0  # of the area with the curves


class Curve(Frozen):
    """A name, a value at each size, and the class of its colour in the page."""

    name: str
    colour: str
    values: tuple[float, ...]


def plot(
    title: str,
    axis: str,
    sizes: Sequence[int],
    curves: Sequence[Curve],
    write: Callable[[float], str],
    stacked: bool,
) -> str:
    """A plot over an axis whose sizes are on a logarithmic scale.

    Stacked curves are areas on a linear scale, others lines on a logarithmic one.
    """
    scale = _Linear(curves) if stacked else _Logarithmic(curves)
    places = _places(sizes)
    label = ", ".join(f"{each.name} {write(each.values[-1])}" for each in curves)
    return "\n".join(
        [
            f'<svg class="plot" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" '
            f'aria-label="{escape(title)} at {escape(axis)} = {sizes[-1]:,}: {escape(label)}">',
            *_rows(scale, write),
            *_columns(axis, sizes, places),
            *(_areas if stacked else _lines)(curves, places, scale.place),
            *_legend(curves),
            *_readings(axis, sizes, places, curves, write),
            "</svg>",
        ]
    )


# -- scales: places of values from BOTTOM up to TOP --


class _Linear:
    """From 0 to the sum of all curves."""

    def __init__(self, curves: Sequence[Curve]):
        most = max(map(sum, zip(*(each.values for each in curves), strict=True))) or 1
        step = 10.0 ** floor(log10(most / 4))
        step *= next(by for by in (1, 2, 2.5, 5, 10) if by * step * 4 >= most)
        self.marks = [step * i for i in range(ceil(most / step) + 1)]
        self._top = self.marks[-1]

    def place(self, value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * value / self._top


class _Logarithmic:
    """From the least to the largest value above 0, in powers of ten."""

    def __init__(self, curves: Sequence[Curve]):
        values = [value for each in curves for value in each.values if value > 0] or [1]
        self._low = floor(log10(min(values)))
        high = max(ceil(log10(max(values))), self._low + 1)
        every = ceil((high - self._low) / 5)
        self._high = self._low + every * ceil((high - self._low) / every)
        self.marks = [10.0**power for power in range(self._low, self._high + 1, every)]

    def place(self, value: float) -> float:
        power = log10(max(value, 10.0**self._low))
        return BOTTOM - (BOTTOM - TOP) * (power - self._low) / (self._high - self._low)


def _places(sizes: Sequence[int]) -> list[float]:
    span = log2(sizes[-1] / sizes[0]) or 1
    return [LEFT + (RIGHT - LEFT) * log2(each / sizes[0]) / span for each in sizes]


# -- parts of the picture --


def _rows(scale: _Linear | _Logarithmic, write: Callable[[float], str]) -> Iterator[str]:
    for mark in scale.marks:
        y = scale.place(mark)
        yield f'<line class="grid" x1="{LEFT:g}" x2="{RIGHT:g}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield _text(LEFT - 6, y + 3.5, write(mark), "mark", "end")


def _columns(axis: str, sizes: Sequence[int], places: Sequence[float]) -> Iterator[str]:
    wide = 5.6 * len(f"{sizes[-1]:,}") + 12
    every = ceil(wide * (len(sizes) - 1) / (RIGHT - LEFT)) or 1
    for size, x in [*zip(sizes, places, strict=True)][::-every]:  # the largest one has a mark
        yield _text(x, BOTTOM + 15, f"{size:,}", "mark", "middle")
    yield _text((LEFT + RIGHT) / 2, BOTTOM + 31, axis, "mark", "middle")


def _areas(
    curves: Sequence[Curve], places: Sequence[float], place: Callable[[float], float]
) -> Iterator[str]:
    below = [0.0] * len(places)
    for each in curves:
        above = [low + value for low, value in zip(below, each.values, strict=True)]
        edge = [*_points(places, above, place), *reversed([*_points(places, below, place)])]
        yield f'<polygon class="area {each.colour}" points="{" ".join(edge)}"/>'
        below = above


def _lines(
    curves: Sequence[Curve], places: Sequence[float], place: Callable[[float], float]
) -> Iterator[str]:
    for each in curves:
        points = " ".join(_points(places, each.values, place))
        yield f'<polyline class="curve {each.colour}" points="{points}"/>'


def _points(
    places: Sequence[float], values: Sequence[float], place: Callable[[float], float]
) -> Iterator[str]:
    return (f"{x:.1f},{place(value):.1f}" for x, value in zip(places, values, strict=True))


def _legend(curves: Sequence[Curve]) -> Iterator[str]:
    for x, each in zip(_legend_places(curves), curves, strict=True):
        yield f'<rect class="key {each.colour}" x="{x:.1f}" y="5" width="9" height="9" rx="2"/>'
        yield _text(x + 13, 13.5, each.name, "name")


def _legend_places(curves: Sequence[Curve]) -> list[float]:
    """The places of names and of the values below them, at the right of that of the axis."""
    wide = [max(62.0, 6.2 * len(each.name) + 24) for each in curves]
    return [RIGHT - sum(wide) + before for before in accumulate(wide[:-1], initial=0.0)]


def _readings(
    axis: str,
    sizes: Sequence[int],
    places: Sequence[float],
    curves: Sequence[Curve],
    write: Callable[[float], str],
) -> Iterator[str]:
    """For each size a band that the pointer can be on, a line at it, and its values."""
    edges = [LEFT, *((a + b) / 2 for a, b in pairwise(places)), RIGHT]
    columns = _legend_places(curves)
    for i, (size, x) in enumerate(zip(sizes, places, strict=True)):
        yield '<g class="band">'
        yield (
            f'<rect x="{edges[i]:.1f}" y="0" width="{edges[i + 1] - edges[i]:.1f}" '
            f'height="{HEIGHT:g}"/>'
        )
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP:g}" y2="{BOTTOM:g}"/>'
        yield _text(0, 28.5, f"{axis} = {size:,}", "value")
        for column, each in zip(columns, curves, strict=True):
            yield _text(column + 13, 28.5, write(each.values[i]), "value")
        yield "</g>"


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )
