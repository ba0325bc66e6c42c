"""A training step and data that need no compiler, for tests of the loop and its files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from archdsl.analysis import analyse
from archdsl.execution.train_step import Batch, Losses, Step
from archdsl.graph.sites import parameters
from archdsl.training import curves, loop, metrics
from archdsl.training.data import Data
from archdsl.training.events import Report
from archdsl.training.settings import Settings

GRAPH = analyse(
    "gpt.arch", settings={"vocab": 9, "context": 8, "D": 4, "heads": 1, "depth": 1}
).graph
SETTINGS = Settings(steps=12, batch=4, eval_every=5, save_every=4, learning_rate=0.01)
PEAK = 1e9  # flops per second
SPEC = "model GPT {\n}\n"


class Counting:
    """Sequences that count upwards modulo 9."""

    def __init__(self, count: int = 32, fingerprint: str = "counting"):
        self.count, self.fingerprint = count, fingerprint

    def __len__(self) -> int:
        return self.count

    def batch(self, numbers: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        return {"tokens": ((numbers[:, None] + np.arange(8)) % 9).astype(np.int32)}

    def describe(self) -> str:
        return f"{self.count} sequences"


DATA = Data(Counting(), Counting(16))


class Executable:
    """Weights as arrays."""

    device, graph = "CPU", GRAPH

    def __init__(self, dtype: str = "float32"):
        self.dtype = dtype
        self.weights = {each.path: each for each in parameters(GRAPH)}
        self.parameters: dict[str, NDArray[np.float32]] = {
            path: np.ones(each.weight.shape, np.float32) for path, each in self.weights.items()
        }

    def fill(self, found: Mapping[str, Any]) -> None:
        self.parameters = {path: each.read().copy() for path, each in found.items()}


class Learner:
    """Moves all weights toward the mean of a batch, with momentum and noise from the seed.

    `losses` replaces the losses of some steps.
    """

    losses: Mapping[int, float] = {}

    def __init__(
        self,
        executable: Executable,
        settings: Settings,
        frozen: frozenset[str] = frozenset(),
        parts: Any = None,
    ):
        self.executable, self.accumulate = executable, settings.accumulate
        self.graph = executable.graph
        self.scale, self.since_overflow = 1.0, 0
        if executable.dtype == "float16":
            self.scale = 2.0**16
        self.weights: dict[str, Any] = {}
        self.averages: dict[str, Any] = {}
        self.momenta = {path: np.zeros_like(w) for path, w in executable.parameters.items()}

    def __call__(self, batches: Sequence[Batch], rate: float, seed: Sequence[int]) -> Step:
        assert len(batches) == self.accumulate
        scale = self.scale
        loss = self.losses.get(seed[1], self._loss(np.concatenate([*map(_mean, batches)])))
        if np.isfinite(loss):
            self._move(np.float32(np.mean([*map(_mean, batches)])), rate, seed)
            self.since_overflow += 1
        else:
            self.scale, self.since_overflow = max(1.0, self.scale / 2), 0
        return Step(_losses(loss), abs(loss), scale, bool(np.isfinite(loss)))

    def _move(self, target: np.float32, rate: float, seed: Sequence[int]) -> None:
        rng = np.random.default_rng([*seed])
        for path, weight in self.executable.parameters.items():
            gradient = weight - target + rng.normal(size=weight.shape).astype(np.float32)
            self.momenta[path][...] = np.float32(0.9) * self.momenta[path] + gradient
            weight -= np.float32(rate) * self.momenta[path]

    def _loss(self, target: NDArray[np.float32]) -> float:
        first = next(iter(self.executable.parameters.values()))
        return float(np.square(first.mean() - target).mean())

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The weights are their own averages."""
        yield

    def evaluate(self, batch: Batch) -> Losses:
        return _losses(self._loss(_mean(batch)))

    def state(self) -> dict[str, NDArray[np.float32]]:
        return {f"momentum {path}": each for path, each in self.momenta.items()}

    def load_state(self, stored: Mapping[str, Any], numbers: Mapping[str, float]) -> None:
        assert stored.keys() == self.state().keys()
        for name, array in self.state().items():
            array[...] = stored[name].read()
        self.scale, self.since_overflow = numbers["scale"], int(numbers["since_overflow"])


def _mean(batch: Batch) -> NDArray[np.float32]:
    return batch["tokens"].mean(1).astype(np.float32)


def _losses(value: float) -> Losses:
    return Losses(np.array([value]), np.ones(1), np.ones(1))


@contextmanager
def learners(draws: bool) -> Iterator[None]:
    """Within the block, the loop uses `Learner`, and leaves out what takes the most time:
    waiting for the disk, and drawing curves unless it `draws`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_step", Learner)
        patch.setattr(loop, "report_not_finite", lambda *of_step: None)
        patch.setattr(loop, "peak_rate", lambda executable: PEAK)
        patch.setattr(os, "fsync", lambda descriptor: None)
        if not draws:
            patch.setattr(curves, "draw", lambda folder, tell: False)
        yield


def fit(
    folder: Path,
    settings: Settings = SETTINGS,
    data: Data = DATA,
    spec: str = SPEC,
    resume: bool = False,
    report: Report | None = None,
    dtype: str = "float32",
    draws: bool = False,
    **options: Any,
) -> loop.Result:
    """`loop.fit` with a `Learner`."""
    with learners(draws):
        executable: Any = Executable(dtype)
        return loop.fit(
            executable,
            folder,
            data,
            settings,
            spec=spec,
            resume=resume,
            report=report,
            **options,
        )


def computed(folder: Path) -> tuple[bytes, bytes, list[dict[str, Any]]]:
    """What two equal runs have in common: the last weights and state, and the metrics."""
    lines = [
        {n: v for n, v in each.items() if n not in ("seconds", "tokens_per_second")}
        for each in metrics.read(folder / metrics.NAME)
    ]
    last = folder / "last"
    return (
        (last / "model.safetensors").read_bytes(),
        (last / "state.safetensors").read_bytes(),
        lines,
    )
