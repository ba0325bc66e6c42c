"""The results of a benchmark: quartiles, relative times, memory, and roofline shares."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import quantiles
from typing import Any

import archdsl
from archdsl.bench.roofline import COMPUTE_FLOPS, MEMORY_BYTES, ROOFLINE
from archdsl.bench.runner import THREADS, Candidate, Timing, relative_difference, run_rounds
from archdsl.execution.machine import processor, versions


@dataclass(frozen=True)
class Workload:
    """A task and its candidates; the first candidate is archdsl.

    One call produces `amount` of `unit`. `flops` and `bytes` are the least that it must compute
    and read, or None if unknown.
    """

    name: str
    candidates: tuple[Candidate, ...]
    unit: str = "run"
    amount: float = 1.0
    flops: float | None = None
    bytes: float | None = None


@dataclass(frozen=True)
class WorkloadResult:
    """The times of a workload: of its candidates, and of both rooflines in the same rounds."""

    workload: Workload
    timings: tuple[Timing, ...]
    compute: Timing
    memory: Timing

    def as_dict(self) -> dict[str, Any]:
        """Returns the result for JSON."""
        work = self.workload
        return {
            "workload": work.name,
            "unit": work.unit,
            "amount": work.amount,
            "compute_roofline_flops_per_second": COMPUTE_FLOPS
            / quartiles(self.compute.seconds)[1],
            "memory_roofline_bytes_per_second": MEMORY_BYTES
            / quartiles(self.memory.seconds)[1],
            "candidates": [self._entry(each) for each in self.timings],
        }

    def _entry(self, each: Timing) -> dict[str, Any]:
        if not each.seconds:
            return {"name": each.name, "absent": each.absent, "failed": each.failed}
        work, ours = self.workload, self.timings[0]
        low, median, high = quartiles(each.seconds)
        entry: dict[str, Any] = {
            "name": each.name,
            "seconds": list(each.seconds),
            "quartiles": [low, median, high],
            "per_second": work.amount / median,
            "first_seconds": each.first,
            "peak_bytes": each.peak_bytes,
        }
        if ours.seconds and each is not ours:
            pairs = zip(each.seconds, ours.seconds, strict=True)
            entry["relative_time"] = list(quartiles([theirs / own for theirs, own in pairs]))
        if work.flops:
            pairs = zip(each.seconds, self.compute.seconds, strict=True)
            shares = [work.flops / s / (COMPUTE_FLOPS / limit) for s, limit in pairs]
            entry["compute_roofline_share"] = quartiles(shares)[1]
        if work.bytes:
            pairs = zip(each.seconds, self.memory.seconds, strict=True)
            shares = [work.bytes / s / (MEMORY_BYTES / limit) for s, limit in pairs]
            entry["memory_roofline_share"] = quartiles(shares)[1]
        if each is not ours and each.answer is not None and ours.answer is not None:
            entry["difference"] = relative_difference(ours.answer, each.answer)
        return entry


def measure(
    workload: Workload, rounds: int, report: Callable[[str], None] = lambda step: None
) -> WorkloadResult:
    """Measures the candidates of a workload, and the rooflines in the same rounds."""
    *timings, compute, memory = run_rounds(
        (*workload.candidates, *ROOFLINE),
        rounds,
        lambda step: report(f"{workload.name}: {step}"),
    )
    return WorkloadResult(workload, tuple(timings), compute, memory)


def quartiles(numbers: Sequence[float]) -> tuple[float, float, float]:
    """Returns the lower quartile, the median and the upper quartile.

    >>> quartiles([3.0, 1.0, 2.0, 5.0, 4.0])
    (2.0, 3.0, 4.0)
    """
    if len(numbers) == 1:
        return (numbers[0],) * 3
    low, median, high = quantiles(numbers, n=4, method="inclusive")
    return low, median, high


def report(results: Sequence[WorkloadResult]) -> dict[str, Any]:
    """Returns all results for JSON, with the date, the machine and the versions."""
    packages = ("numpy", "tinygrad", "torch", "transformers", "onnxruntime", "llama_cpp_python")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"system": platform.platform(), "cpu": processor(), "threads": THREADS},
        "versions": {"archdsl": archdsl.__version__, **versions(packages)},
        "workloads": [each.as_dict() for each in results],
    }


def format_result(result: WorkloadResult) -> str:
    """Formats a result as a table: a title, and a line per candidate."""
    found = result.as_dict()
    work = result.workload
    width = max(len(each["name"]) for each in found["candidates"])
    compute = found["compute_roofline_flops_per_second"] / 1e9
    memory = found["memory_roofline_bytes_per_second"] / 1e9
    lines = [f"{work.name}  (rooflines: {compute:.0f} GFLOP/s, {memory:.1f} GB/s)"]
    for each in found["candidates"]:
        text = each.get("absent") or each.get("failed") or _line(each, work)
        lines.append(f"  {each['name']:<{width}}  {text}")
    return "\n".join(lines)


def _line(entry: dict[str, Any], work: Workload) -> str:
    low, median, high = (1000 * seconds for seconds in entry["quartiles"])
    parts = [f"{median:9.2f} ms [{low:.2f}, {high:.2f}]"]
    if work.unit != "run":
        parts.append(f"{entry['per_second']:.4g} {work.unit}/s")
    if "relative_time" in entry:
        low, median, high = entry["relative_time"]
        parts.append(f"{median:.2f}x archdsl's time [{low:.2f}, {high:.2f}]")
    for roof in ("compute", "memory"):
        if f"{roof}_roofline_share" in entry:
            parts.append(f"{entry[f'{roof}_roofline_share']:.0%} of {roof} roofline")
    parts.append(f"peak {entry['peak_bytes'] / 1e6:.0f} MB")
    if "difference" in entry:
        parts.append(f"max difference {entry['difference']:.0e}")
    return "  ".join(parts)
