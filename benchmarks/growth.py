"""Scaling of the time with prompt length, batch, depth, and number of earlier tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from archdsl.bench.candidates import Subject, save_subject
from archdsl.bench.results import Workload
from benchmarks import gpt2


def workloads(folder: Path, small: bool) -> list[Workload]:
    base: dict[str, Any] = gpt2.SMALL if small else {}
    length, new, times = (8, 2, (1, 2)) if small else (128, 16, (1, 2, 4))

    def model(depth: int) -> Subject:
        own = folder / str(depth)
        own.mkdir()
        return save_subject(own, "gpt2.arch", {**base, "depth": depth}, "CPU")

    def named(workload: Workload, what: str) -> Workload:
        return replace(workload, name=f"{workload.name}, {what}")

    models = {depth: model(depth) for depth in (3 * n for n in times)}
    whole = models[max(models)]
    return [
        *(gpt2.prefill(whole, n * length) for n in times),
        *(gpt2.decode(whole, n * length, new) for n in times),
        *(gpt2.forward(whole, n, length) for n in times),
        *(named(gpt2.prefill(m, length), f"{depth} layers") for depth, m in models.items()),
    ]
