"""The part of a report that compares expected and measured times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from html import escape
from typing import Any

from archdsl.graph.cost import format_bytes, format_count
from archdsl.report.markup import seconds, table

Data = Mapping[str, Any]

_PACKAGES = ("archdsl", "tinygrad", "numpy")  # those that the measured model runs on


def timing(data: Data, command: str) -> Iterator[str]:
    """HTML of the measured times, or of the command that measures them."""
    if "measured" not in data:
        yield (
            "<p>Not measured. This command runs the model on your machine, with random "
            f"weights, and adds its times: <code>{escape(command)} --measure</code></p>"
        )
        return
    found = data["measured"]
    machine = found["machine"]
    versions = ", ".join(f"{each} {found['versions'][each]}" for each in _PACKAGES)
    when = datetime.fromisoformat(found["date"])
    yield (
        f"<p>Measured on {when:%Y-%m-%d at %H:%M} UTC: device {escape(found['device'])}, "
        f"{escape(machine['cpu'])}, {machine['threads']} threads, {escape(machine['system'])}; "
        f"weights in {escape(found['dtype'])}; {escape(versions)}. Times are the median of "
        f"{found['rounds']} runs, and the quartiles in brackets.</p>"
    )
    heads = ("workload", "expected", "limit", "measured", "reached", "peak memory")
    rows = map(_row, found["workloads"])
    yield table(heads, rows, frozenset({1, 3, 4, 5}))
    if any("expected_seconds" in each for each in found["workloads"]):
        peaks = found["workloads"][0]
        compute, memory = (
            format_count(peaks[f"{limit}_per_second"], unit)
            for limit, unit in (
                ("compute_roofline_flops", "FLOP/s"),
                ("memory_roofline_bytes", "B/s"),
            )
        )
        yield (
            '<p class="quiet">Expected is the least time: the FLOPs at the peak of this '
            f"machine, {compute}, or the weights read once for each new token at the bandwidth "
            f"of its memory, {memory}; the larger of the two. Both limits were measured in the "
            "same rounds. Peak memory is that of the whole process, with Python.</p>"
        )
    else:
        yield (
            '<p class="quiet">There is no expected time: the limits of a machine are measured '
            "for its CPU alone.</p>"
        )


def _row(entry: Data) -> Iterator[str]:
    (ours,) = entry["candidates"]
    yield escape(entry["workload"])
    least = entry.get("expected_seconds")
    yield seconds(least) if least else ""
    yield {"compute": "FLOPs", "memory": "bandwidth"}.get(entry.get("limit", ""), "")
    if "quartiles" not in ours:
        yield f"failed: {escape(ours['failed'])}"
        yield from ("", "")
        return
    low, median, high = ours["quartiles"]
    yield f"{seconds(median)} [{seconds(low)}, {seconds(high)}]"
    yield f"{least / median:.0%}" if least else ""
    yield format_bytes(ours["peak_bytes"])
