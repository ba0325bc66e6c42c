"""The times of a race, told: quartiles, ratios, memory, and the limits."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import quantiles
from typing import Any

import archdsl
from archdsl.bench.roofline import PRODUCT_FLOPS, READ_BYTES, ROOFLINE
from archdsl.bench.runner import THREADS, Candidate, Timing, relative_difference, run_rounds


@dataclass(frozen=True)
class Workload:
    """Something to compute, and those who do; the first one is ours.

    A call makes `amount` of `unit`. `flops` and `bytes` are what it must at least compute and
    read, where that is known.
    """

    name: str
    candidates: tuple[Candidate, ...]
    unit: str = "run"
    amount: float = 1.0
    flops: float | None = None
    bytes: float | None = None


@dataclass(frozen=True)
class WorkloadResult:
    """A workload's times: those of its candidates, and of the machine's limits beside them."""

    workload: Workload
    timed: tuple[Timing, ...]
    product: Timing
    read: Timing

    def as_dict(self) -> dict[str, Any]:
        """All that is known, for JSON."""
        work = self.workload
        return {
            "workload": work.name,
            "unit": work.unit,
            "amount": work.amount,
            "compute_roofline_flops_per_second": PRODUCT_FLOPS
            / quartiles(self.product.seconds)[1],
            "memory_roofline_bytes_per_second": READ_BYTES / quartiles(self.read.seconds)[1],
            "candidates": [self._entry(each) for each in self.timed],
        }

    def _entry(self, each: Timing) -> dict[str, Any]:
        if not each.seconds:
            return {"name": each.name, "absent": each.absent, "failed": each.failed}
        work, ours = self.workload, self.timed[0]
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
            pairs = zip(each.seconds, self.product.seconds, strict=True)
            shares = [work.flops / s / (PRODUCT_FLOPS / limit) for s, limit in pairs]
            entry["compute_roofline_share"] = quartiles(shares)[1]
        if work.bytes:
            pairs = zip(each.seconds, self.read.seconds, strict=True)
            shares = [work.bytes / s / (READ_BYTES / limit) for s, limit in pairs]
            entry["memory_roofline_share"] = quartiles(shares)[1]
        if each is not ours and each.answer is not None and ours.answer is not None:
            entry["difference"] = relative_difference(ours.answer, each.answer)
        return entry


def measure(
    workload: Workload, rounds: int, told: Callable[[str], None] = lambda what: None
) -> WorkloadResult:
    """A race of a workload's candidates and of the machine's limits."""
    *timed, product, read = run_rounds(
        (*workload.candidates, *ROOFLINE), rounds, lambda what: told(f"{workload.name}: {what}")
    )
    return WorkloadResult(workload, tuple(timed), product, read)


def quartiles(numbers: Sequence[float]) -> tuple[float, float, float]:
    """The quartiles: a quarter of the numbers is below the first, half below the second.

    >>> quartiles([3.0, 1.0, 2.0, 5.0, 4.0])
    (2.0, 3.0, 4.0)
    """
    if len(numbers) == 1:
        return (numbers[0],) * 3
    low, median, high = quantiles(numbers, n=4, method="inclusive")
    return low, median, high


def report(results: Sequence[WorkloadResult]) -> dict[str, Any]:
    """All that is known, for JSON, with the machine, the day and the versions."""
    packages = ("numpy", "tinygrad", "torch", "transformers", "onnxruntime", "llama_cpp_python")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"system": platform.platform(), "cpu": _processor(), "threads": THREADS},
        "versions": {"archdsl": archdsl.__version__, **dict(_versions(packages))},
        "workloads": [each.as_dict() for each in results],
    }


def _versions(packages: Sequence[str]) -> Iterator[tuple[str, str]]:
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            yield package, metadata.version(package)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        if lines:
            return lines[0].partition(":")[2].strip()
    return platform.processor() or platform.machine()


def table(result: WorkloadResult) -> str:
    """A workload's results for a terminal, a candidate a line."""
    found = result.as_dict()
    work = result.workload
    width = max(len(each["name"]) for each in found["candidates"])
    product = found["compute_roofline_flops_per_second"] / 1e9
    read = found["memory_roofline_bytes_per_second"] / 1e9
    lines = [f"{work.name}  (this machine: {product:.0f} GFLOP/s, {read:.1f} GB/s)"]
    for each in found["candidates"]:
        said = each.get("absent") or each.get("failed") or _line(each, work)
        lines.append(f"  {each['name']:<{width}}  {said}")
    return "\n".join(lines)


def _line(entry: dict[str, Any], work: Workload) -> str:
    low, median, high = (1000 * seconds for seconds in entry["quartiles"])
    parts = [f"{median:9.2f} ms  [{low:.2f}, {high:.2f}]"]
    if work.unit != "run":
        parts.append(f"{entry['per_second']:.4g} {work.unit}/s")
    if "relative_time" in entry:
        low, median, high = entry["relative_time"]
        parts.append(f"{median:.2f}x [{low:.2f}, {high:.2f}]")
    for roof in ("compute", "memory"):
        if f"{roof}_roofline_share" in entry:
            parts.append(f"{entry[f'{roof}_roofline_share']:.0%} of {roof} roofline")
    parts.append(f"{entry['peak_bytes'] / 1e6:.0f} MB")
    if "difference" in entry:
        parts.append(f"differs {entry['difference']:.0e}")
    return "  ".join(parts)
