"""Maps of attention, drawn by matplotlib: a panel for each head, queries down and keys across.

The keys of an image are its patches; the map of one query is then drawn over the picture.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archdsl.diagnostics import fail, listing
from archdsl.formats.atomic import replacing
from archdsl.frozen import Frozen

FORMATS = (".svg", ".png", ".pdf")
_COLOURS = "Blues"  # from white: what is not attended to is paper
_LIGHT = (0.85, 0.1, 0.1)  # what a picture is covered with, by weight
_GREY = "0.45"
_LETTER = 0.75  # of a cell is the height of its label, at most
_SMALLEST = 4.0  # points of a label; of smaller ones only some are written
_CELLS = 2500  # a map of more cells is a picture inside of the file


class AttentionMaps(Frozen):
    """The weights [H, T, S] of one attention for one example, by its edge.

    `queries` and `keys` are what the positions stand for. In an image, the last keys are
    patches in `grid` = (rows, columns), and `picture` [height, width, 3] is from 0 to 1.
    """

    edge: str
    weights: NDArray[np.float32]
    queries: tuple[str, ...]
    keys: tuple[str, ...]
    grid: tuple[int, int] | None = None
    picture: NDArray[np.float32] | None = None


def check_file(path: Path) -> None:
    """Raises `ArchError` (`file`) if maps cannot be drawn to a file: for another suffix than
    those of FORMATS, and if matplotlib is not installed."""
    if path.suffix.lower() not in FORMATS:
        fail("file", f"cannot draw `{path}`", expected=f"a file {listing(FORMATS)}")
    if not find_spec("matplotlib"):
        fail(
            "file",
            "drawing maps needs the package matplotlib, which is not installed",
            help="pip install 'archdsl[attend]'",
        )


def draw(maps: AttentionMaps, heads: Sequence[int], query: int | None, path: Path) -> None:
    """Writes `figure_of` to a file; raises `ArchError` as `check_file` does."""
    check_file(path)
    kind = path.suffix.lower()[1:]
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    matplotlib = import_module("matplotlib")  # slow
    style = {"svg.hashsalt": "archdsl", "font.size": 8, "axes.linewidth": 0.5}
    with warnings.catch_warnings(), matplotlib.rc_context(style):
        # A font may lack the letters of some language; it then draws boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure = figure_of(maps, heads, query)
        with replacing(path) as temporary:
            figure.savefig(
                temporary,
                format=kind,
                dpi=200,
                bbox_inches="tight",
                pad_inches=0.1,
                metadata=dates.get(kind),
            )


def figure_of(maps: AttentionMaps, heads: Sequence[int], query: int | None = None) -> Any:
    """A figure of matplotlib with the maps of some heads. Over a picture, they are those of a
    `query`, or the mean of all."""
    figures = import_module("matplotlib.figure")
    if maps.picture is None:
        return _over_tokens(figures, maps, heads)
    return _over_picture(figures, maps, heads, query)


class _Panels(Frozen):
    """Rows and columns of panels of a size in inches, and the width of what is beside them."""

    count: int
    width: float
    height: float
    left: float = 0.0
    below: float = 0.0

    @property
    def columns(self) -> int:
        return self.count if self.count <= 3 else math.ceil(math.sqrt(self.count))

    def figure(self, figures: Any, shared: bool) -> tuple[Any, Any]:
        """A figure with axes for each panel."""
        rows = math.ceil(self.count / self.columns)
        # Labels are below the last panel of each column, so maybe in two rows.
        below = self.below * (1 + (rows * self.columns > self.count))
        size = (
            self.columns * (self.width + 0.15) + self.left,
            rows * (self.height + 0.3) + below + 0.4,
        )
        figure = figures.Figure(figsize=size, layout="constrained")
        axes = figure.subplots(rows, self.columns, squeeze=False, sharex=shared, sharey=shared)
        for unused in axes.flat[self.count :]:
            unused.set_axis_off()
        return figure, axes


def _over_tokens(figures: Any, maps: AttentionMaps, heads: Sequence[int]) -> Any:
    """A panel for each head: queries down, keys across."""
    rows, columns = len(maps.queries), len(maps.keys)
    longest = 4.5 if len(heads) == 1 else 2.4  # inches
    cell = min(0.32, longest / min(rows, columns), 2 * longest / max(rows, columns))
    left, below = (_length(names, cell) for names in (maps.queries, maps.keys))
    figure, axes = _Panels(
        len(heads), columns * cell, rows * cell, left + 1.0, below + 0.2
    ).figure(figures, shared=True)
    most = float(maps.weights[list(heads)].max())
    grid = {"edgecolors": "white", "linewidth": 0.4} if rows * columns <= _CELLS else {}
    for head, panel in zip(heads, axes.flat, strict=False):
        image = panel.pcolormesh(
            maps.weights[head],
            cmap=_COLOURS,
            vmin=0,
            vmax=most,
            rasterized=not grid,
            **grid,
        )
        panel.set_aspect("equal")
        panel.set_title(f"head {head}", fontsize=8)
        _label(panel.xaxis, maps.keys, cell, turned=max(map(len, maps.keys)) > 2)
        _label(panel.yaxis, maps.queries, cell)
    axes.flat[0].invert_yaxis()
    for column in range(axes.shape[1]):  # the last panel of each column has labels
        used = range(column, len(heads), axes.shape[1])
        axes.flat[used[-1]].xaxis.set_tick_params(labelbottom=True)
        axes.flat[used[-1]].set_xlabel("key", fontsize=7, color=_GREY)
    for panel in axes[:, 0]:
        panel.set_ylabel("query", fontsize=7, color=_GREY)
    thin = 0.6 * figure.get_figheight() / 0.1  # a tenth of an inch
    bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=thin, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=2, labelsize=7)
    figure.suptitle(_title(maps), fontsize=9)
    return figure


def _title(maps: AttentionMaps) -> str:
    return maps.edge.removesuffix(".weights")


def _label(axis: Any, names: Sequence[str], cell: float, turned: bool = False) -> None:
    """Writes the names of positions, or some of them where they do not fit."""
    every = math.ceil(_SMALLEST / _letters(cell)) if _letters(cell) < _SMALLEST else 1
    places = range(0, len(names), every)
    axis.set_ticks(
        [place + 0.5 for place in places],
        [_shown(names[place]) for place in places],
        fontsize=max(_letters(cell), _SMALLEST),
        parse_math=False,
        rotation=90 if turned else 0,
    )
    axis.set_tick_params(length=0, pad=2)


def _letters(cell: float) -> float:
    """The height in points of a label beside a cell of so many inches."""
    return min(8.0, 72 * cell * _LETTER)


def _length(names: Sequence[str], cell: float) -> float:
    """The length in inches of the longest label."""
    paths = import_module("matplotlib.textpath")
    size = max(_letters(cell), _SMALLEST)
    # A dollar sign would begin a formula.
    texts = {_shown(name).replace("$", r"\$") for name in names}
    return (
        max(float(paths.TextPath((0, 0), text, size).get_extents().width) for text in texts)
        / 72
    )


def _shown(token: str) -> str:
    r"""A token as a label: spaces and line breaks are visible.

    >>> _shown(" the"), _shown("\n")
    ('·the', '↵')
    """
    text = token.replace(" ", "·").replace("\n", "↵").replace("\t", "→")
    return text if len(text) <= 16 else f"{text[:15]}…"


def _over_picture(
    figures: Any, maps: AttentionMaps, heads: Sequence[int], query: int | None
) -> Any:
    """The picture, and for each head the picture in grey, covered where the head attends."""
    assert maps.grid is not None
    assert maps.picture is not None
    (rows, columns), (height, width, _) = maps.grid, maps.picture.shape
    wide = 2.2 if len(heads) > 1 else 3.2  # inches
    panels = _Panels(len(heads) + 1, wide, wide * height / width)
    figure, axes = panels.figure(figures, shared=False)
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    grey = maps.picture.mean(-1)
    axes.flat[0].imshow(maps.picture, interpolation="nearest")
    axes.flat[0].set_title("image", fontsize=8)
    for head, panel in zip(heads, axes.flat[1:], strict=False):
        of = maps.weights[head].mean(0) if query is None else maps.weights[head, query]
        found = of[-rows * columns :].reshape(rows, columns)
        most = float(found.max())
        cover = np.empty((rows, columns, 4))
        cover[..., :3], cover[..., 3] = _LIGHT, found / (most or 1) * 0.8
        panel.imshow(grey, cmap="gray", vmin=-2, vmax=1, extent=extent)  # faded
        panel.imshow(cover, extent=extent, interpolation="nearest")
        panel.set_title(f"head {head}, up to {most:.2f}", fontsize=8)
    for panel in axes.flat:
        panel.set_xticks([])
        panel.set_yticks([])
    source = "all positions" if query is None else _shown(maps.queries[query])
    figure.suptitle(f"{_title(maps)}, from {source}", fontsize=9)
    return figure
