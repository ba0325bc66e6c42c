"""The curves of a run: `curves.svg`, drawn by matplotlib from its metrics."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from archdsl.formats.atomic import replacing
from archdsl.training import metrics
from archdsl.training.events import Notice, Report

NAME = "curves.svg"


def draw(folder: Path, tell: Report) -> bool:
    """Draws the losses and the learning rate by step. Returns whether matplotlib could."""
    try:
        matplotlib = import_module("matplotlib")  # slow
        svg = import_module("matplotlib.backends.backend_svg")
        figures = import_module("matplotlib.figure")
    except ImportError:
        tell(
            Notice(
                f"{folder / NAME} is not drawn: matplotlib is not installed "
                "(pip install 'archdsl[train]')"
            )
        )
        return False
    lines = list(metrics.read(folder / metrics.NAME))
    figure = figures.Figure(figsize=(7, 5), layout="constrained")
    svg.FigureCanvasSVG(figure)
    above, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    for name, marker in (("loss", ""), ("valid", "o")):
        if any(each.get(name) is not None for each in lines):
            above.plot(*_points(lines, name), label=name, marker=marker, markersize=3)
    above.set_ylabel("loss")
    above.legend()
    below.plot(*_points(lines, "rate"))
    below.set_ylabel("learning rate")
    below.set_xlabel("step")
    # Without the date and with this salt for ids, equal metrics give equal files.
    with (
        replacing(folder / NAME) as temporary,
        matplotlib.rc_context({"svg.hashsalt": "archdsl"}),
    ):
        figure.savefig(temporary, format="svg", metadata={"Date": None})
    return True


def _points(lines: list[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """The steps and values of a metric."""
    found = [(each["step"], each[name]) for each in lines if each.get(name) is not None]
    return [step for step, _ in found], [value for _, value in found]
