"""A chart of the results: the time of each candidate relative to archdsl, with quartiles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from archdsl.bench.results import WorkloadResult


def draw(results: Sequence[WorkloadResult], path: Path) -> None:
    """Writes an .svg or .png; a bar to the right of 1 is slower than archdsl."""
    from matplotlib import pyplot
    from matplotlib.ticker import ScalarFormatter

    bars = [
        (f"{result.workload.name}: {entry['name']}", entry["relative_time"])
        for result in results
        for entry in result.as_dict()["candidates"]
        if "relative_time" in entry
    ]
    names = [name for name, _ in bars]
    middles = [median for _, (_, median, _) in bars]
    errors = [
        [median - low for _, (low, median, _) in bars],
        [high - median for _, (_, median, high) in bars],
    ]
    figure, axes = pyplot.subplots(figsize=(9, 1 + 0.32 * len(bars)), layout="constrained")
    axes.barh(names, [m - 1 for m in middles], left=1, xerr=errors, color="#4878a8", capsize=2)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.invert_yaxis()
    axes.set_xlabel("time, as a multiple of archdsl's (median and quartiles of the rounds)")
    figure.savefig(path)
    pyplot.close(figure)
