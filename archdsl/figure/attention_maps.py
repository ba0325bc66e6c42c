"""Maps of attention, drawn by matplotlib: a panel for each head, queries down and keys across.

The keys of an image are its patches; the map of one query is then drawn over the picture.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archdsl.diagnostics import fail
from archdsl.formats.atomic import replacing
from archdsl.frozen import Frozen

FORMATS = (".svg", ".png", ".pdf")
_COLOURS = "Blues"  # from white: what is not attended to is paper
_LIGHT = (0.85, 0.1, 0.1)  # what a picture is covered with, by weight
_GREY = "0.45"
_LETTER = 0.6  # of a cell is the height of its label, at most
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


def draw(maps: AttentionMaps, heads: Sequence[int], query: int | None, path: Path) -> None:
    """Writes the maps of some heads to an .svg, .png or .pdf file.

    With a `query`, its weights are drawn over the picture, which `maps` must have. Raises
    `ArchError` (`file`) for another suffix, and if matplotlib is not installed.
    """
    if path.suffix.lower() not in FORMATS:
        fail("file", f"cannot draw `{path}`", expected=f"a file of {', '.join(FORMATS)}")
    try:
        matplotlib = import_module("matplotlib")  # slow
        figures = import_module("matplotlib.figure")
    except ImportError as error:
        fail(
            "file",
            "drawing maps needs the package matplotlib, which is not installed",
            help="pip install 'archdsl[attend]'",
            cause=error,
        )
    style = {"svg.hashsalt": "archdsl", "font.size": 8, "axes.linewidth": 0.5}
    with warnings.catch_warnings(), matplotlib.rc_context(style):
        # A font may lack the letters of some language; it then draws boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        if query is None:
            figure = _over_tokens(figures, maps, heads)
        else:
            figure = _over_picture(figures, maps, heads, query)
        kind = path.suffix.lower()[1:]
        dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
        with replacing(path) as temporary:
            figure.savefig(temporary, format=kind, dpi=200, metadata=dates.get(kind))


def _panels(figures: Any, count: int, width: float, height: float, shared: bool) -> Any:
    """A figure with axes for each of so many panels of a size in inches."""
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    figure = figures.Figure(figsize=(columns * width, rows * height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=shared, sharey=shared)
    for unused in axes.flat[count:]:
        unused.set_axis_off()
    return figure, axes


def _over_tokens(figures: Any, maps: AttentionMaps, heads: Sequence[int]) -> Any:
    rows, columns = len(maps.queries), len(maps.keys)
    longest = 4.5 if len(heads) == 1 else 2.4  # inches
    cell = min(0.32, longest / min(rows, columns), 2 * longest / max(rows, columns))
    margin = 0.9 if len(heads) == 1 else 0.5
    figure, axes = _panels(
        figures, len(heads), columns * cell + margin, rows * cell + margin, True
    )
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
    bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=30, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=2, labelsize=7)
    figure.suptitle(_title(maps), fontsize=9)
    figure.supxlabel("key", fontsize=7, color=_GREY)
    figure.supylabel("query", fontsize=7, color=_GREY)
    return figure


def _title(maps: AttentionMaps) -> str:
    return maps.edge.removesuffix(".weights")


def _label(axis: Any, names: Sequence[str], cell: float, turned: bool = False) -> None:
    """Writes the names of positions, or some of them where they do not fit."""
    size = min(8.0, 72 * cell * _LETTER * 1.3)
    every = max(1, math.ceil(_SMALLEST / size))
    places = range(0, len(names), every)
    axis.set_ticks(
        [place + 0.5 for place in places],
        [_shown(names[place]) for place in places],
        fontsize=max(size, _SMALLEST),
        parse_math=False,
        rotation=90 if turned else 0,
    )
    axis.set_tick_params(length=0, pad=2)


def _shown(token: str) -> str:
    r"""A token as a label: spaces and line breaks are visible.

    >>> _shown(" the"), _shown("\n")
    ('·the', '↵')
    """
    text = token.replace(" ", "·").replace("\n", "↵").replace("\t", "→")
    return text if len(text) <= 16 else f"{text[:15]}…"


def _over_picture(figures: Any, maps: AttentionMaps, heads: Sequence[int], query: int) -> Any:
    """The picture, and for each head the picture in grey, covered where the head attends."""
    assert maps.grid is not None
    assert maps.picture is not None
    (rows, columns), (height, width, _) = maps.grid, maps.picture.shape
    wide = 2.2 if len(heads) > 1 else 3.2  # inches
    figure, axes = _panels(figures, len(heads) + 1, wide, wide * height / width + 0.25, False)
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    grey = maps.picture.mean(-1)
    axes.flat[0].imshow(maps.picture, interpolation="nearest")
    axes.flat[0].set_title("image", fontsize=8)
    for head, panel in zip(heads, axes.flat[1:], strict=False):
        found = maps.weights[head, query, -rows * columns :].reshape(rows, columns)
        most = float(found.max())
        cover = np.empty((rows, columns, 4))
        cover[..., :3], cover[..., 3] = _LIGHT, found / (most or 1) * 0.8
        panel.imshow(grey, cmap="gray", vmin=-2, vmax=1, extent=extent)  # faded
        panel.imshow(cover, extent=extent, interpolation="nearest")
        panel.set_title(f"head {head}, up to {most:.2f}", fontsize=8)
    for panel in axes.flat:
        panel.set_xticks([])
        panel.set_yticks([])
    figure.suptitle(f"{_title(maps)}, from {_shown(maps.queries[query])}", fontsize=9)
    return figure
