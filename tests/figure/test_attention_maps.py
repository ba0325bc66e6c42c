"""Figures of attention: nothing overlaps, nothing is cut, and equal maps are equal files."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archdsl.figure.attention_maps import AttentionMaps, draw, figure_of

pytestmark = pytest.mark.reference("matplotlib")


def maps(heads: int, rows: int, columns: int, letters: int = 3) -> AttentionMaps:
    """Drawn weights, and names of so many letters."""
    weights = np.random.default_rng(0).random((heads, rows, columns), np.float32)
    weights /= weights.sum(-1, keepdims=True)
    names = [tuple("w" * letters for _ in range(n)) for n in (rows, columns)]
    return AttentionMaps("h.3.attention.weights", weights, *names)


def texts(figure: Any) -> list[Any]:
    """The boxes of all texts of a figure, in pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    found = [each for each in figure.findobj(Text) if each.get_visible() and each.get_text()]
    shown = [each for each in found if each.axes is None or each.axes.get_visible()]
    boxes = [each.get_window_extent(canvas.get_renderer()) for each in shown]
    return [box for box in boxes if box.width > 0]


@pytest.mark.parametrize(
    ("heads", "rows", "columns", "letters"),
    [
        pytest.param(3, 9, 14, 30, marks=pytest.mark.long),
        *(
            pytest.param(*sizes, marks=pytest.mark.slow)
            for sizes in (
                *((1, 6, 6, 4), (1, 90, 90, 3), (4, 20, 20, 1)),
                *((12, 24, 24, 6), (16, 60, 40, 9), (1, 1, 1, 2)),
            )
        ),
    ],
)
def test_texts_do_not_overlap_and_are_inside(
    heads: int, rows: int, columns: int, letters: int, tmp_path: Path
) -> None:
    from matplotlib.image import imread

    drawn = maps(heads, rows, columns, letters)
    boxes = texts(figure_of(drawn, range(heads)))
    assert len(boxes) > heads + 2
    for one, other in combinations(boxes, 2):
        across = min(one.x1, other.x1) - max(one.x0, other.x0)
        along = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert across <= 1 or along <= 1, (one, other)
    draw(drawn, range(heads), None, tmp_path / "map.png")
    pixels = imread(tmp_path / "map.png")
    for edge in (pixels[:5], pixels[-5:], pixels[:, :5], pixels[:, -5:]):
        assert (edge == 1).all()  # white: nothing is cut


@pytest.mark.slow
def test_equal_maps_give_equal_files_and_any_letters_are_drawn(tmp_path: Path) -> None:
    names = (" the", "\n", "$x$", "語", "�")
    one = AttentionMaps("a.weights", np.eye(5, dtype=np.float32)[None], names, names)
    for kind in ("svg", "pdf"):
        files = [tmp_path / f"{n}.{kind}" for n in range(2)]
        for path in files:
            draw(one, [0], None, path)
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.slow
def test_a_picture_is_covered_by_the_weights_of_a_query_or_by_their_mean() -> None:
    weights = np.full((1, 4, 4), 0.1, np.float32)
    weights[0, 2] = 0.1, 0.2, 0.3, 0.4
    names = tuple("0123")
    one = AttentionMaps(
        "a.weights", weights, names, names, (2, 2), np.zeros((6, 6, 3), np.float32)
    )
    for query, title, cover in (
        (2, "a, from 2", [0.25, 0.5, 0.75, 1]),
        (None, "a, from all positions", [0.1 / 0.175, 0.125 / 0.175, 0.15 / 0.175, 1]),
    ):
        figure = figure_of(one, [0], query)
        assert figure.get_suptitle() == title
        found = figure.axes[1].images[1].get_array()[..., 3]
        np.testing.assert_allclose(found.reshape(-1) / found.max(), cover, rtol=1e-5)
