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
from archdsl.bench.roofline import LIMITS, PRODUCT_FLOPS, READ_BYTES
from archdsl.bench.runner import THREADS, Contestant, Timed, apart, race


@dataclass(frozen=True)
class Workload:
    """Something to compute, and those who do; the first one is ours.

    A call makes `amount` of `unit`. `flops` and `bytes` are what it must at least compute and
    read, where that is known.
    """

    name: str
    contestants: tuple[Contestant, ...]
    unit: str = "run"
    amount: float = 1.0
    flops: float | None = None
    bytes: float | None = None


@dataclass(frozen=True)
class Standing:
    """A workload's times: those of its contestants, and of the machine's limits beside them."""

    workload: Workload
    timed: tuple[Timed, ...]
    product: Timed
    read: Timed

    def as_dict(self) -> dict[str, Any]:
        """All that is known, for JSON."""
        work = self.workload
        return {
            "workload": work.name,
            "unit": work.unit,
            "amount": work.amount,
            "product_limit_flops_per_second": PRODUCT_FLOPS / middle(self.product.seconds)[1],
            "read_limit_bytes_per_second": READ_BYTES / middle(self.read.seconds)[1],
            "contestants": [self._entry(each) for each in self.timed],
        }

    def _entry(self, each: Timed) -> dict[str, Any]:
        if not each.seconds:
            return {"name": each.name, "absent": each.absent, "failed": each.failed}
        work, ours = self.workload, self.timed[0]
        low, median, high = middle(each.seconds)
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
            entry["times_ours"] = list(middle([theirs / own for theirs, own in pairs]))
        if work.flops:
            pairs = zip(each.seconds, self.product.seconds, strict=True)
            shares = [work.flops / s / (PRODUCT_FLOPS / limit) for s, limit in pairs]
            entry["of_product_limit"] = middle(shares)[1]
        if work.bytes:
            pairs = zip(each.seconds, self.read.seconds, strict=True)
            shares = [work.bytes / s / (READ_BYTES / limit) for s, limit in pairs]
            entry["of_read_limit"] = middle(shares)[1]
        if each is not ours and each.answer is not None and ours.answer is not None:
            entry["difference"] = apart(ours.answer, each.answer)
        return entry


def measured(
    workload: Workload, rounds: int, told: Callable[[str], None] = lambda what: None
) -> Standing:
    """A race of a workload's contestants and of the machine's limits."""
    *timed, product, read = race(
        (*workload.contestants, *LIMITS), rounds, lambda what: told(f"{workload.name}: {what}")
    )
    return Standing(workload, tuple(timed), product, read)


def middle(numbers: Sequence[float]) -> tuple[float, float, float]:
    """The quartiles: a quarter of the numbers is below the first, half below the second.

    >>> middle([3.0, 1.0, 2.0, 5.0, 4.0])
    (2.0, 3.0, 4.0)
    """
    if len(numbers) == 1:
        return (numbers[0],) * 3
    low, median, high = quantiles(numbers, n=4, method="inclusive")
    return low, median, high


def report(standings: Sequence[Standing]) -> dict[str, Any]:
    """All that is known, for JSON, with the machine, the day and the versions."""
    packages = ("numpy", "tinygrad", "torch", "transformers", "onnxruntime", "llama_cpp_python")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"system": platform.platform(), "cpu": _processor(), "threads": THREADS},
        "versions": {"archdsl": archdsl.__version__, **dict(_versions(packages))},
        "workloads": [each.as_dict() for each in standings],
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


def table(standing: Standing) -> str:
    """A workload's standings for a terminal, a contestant a line."""
    found = standing.as_dict()
    work = standing.workload
    width = max(len(each["name"]) for each in found["contestants"])
    product = found["product_limit_flops_per_second"] / 1e9
    read = found["read_limit_bytes_per_second"] / 1e9
    lines = [f"{work.name}  (this machine: {product:.0f} GFLOP/s, {read:.1f} GB/s)"]
    for each in found["contestants"]:
        said = each.get("absent") or each.get("failed") or _line(each, work)
        lines.append(f"  {each['name']:<{width}}  {said}")
    return "\n".join(lines)


def _line(entry: dict[str, Any], work: Workload) -> str:
    low, median, high = (1000 * seconds for seconds in entry["quartiles"])
    parts = [f"{median:9.2f} ms  [{low:.2f}, {high:.2f}]"]
    if work.unit != "run":
        parts.append(f"{entry['per_second']:.4g} {work.unit}/s")
    if "times_ours" in entry:
        low, median, high = entry["times_ours"]
        parts.append(f"{median:.2f}x [{low:.2f}, {high:.2f}]")
    for limit in ("product", "read"):
        if f"of_{limit}_limit" in entry:
            parts.append(f"{entry[f'of_{limit}_limit']:.0%} of {limit}")
    parts.append(f"{entry['peak_bytes'] / 1e6:.0f} MB")
    if "difference" in entry:
        parts.append(f"differs {entry['difference']:.0e}")
    return "  ".join(parts)
