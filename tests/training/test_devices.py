"""Several devices of one process: threads that train together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import archdsl
from archdsl.diagnostics import ArchError
from archdsl.training import devices, loop, metrics
from archdsl.training.data import Data
from archdsl.training.processes import Processes, Several
from tests.training import fakes
from tests.training.fakes import Counting


def trained(folder: Path, on: tuple[str, ...] = (), dtype: str = "float32") -> list[float]:
    """The losses of a run, and its validation loss."""
    model = archdsl.compile(
        "gpt.arch", device="CPU", dtype=dtype, vocab=9, context=8, D=16, heads=2, depth=1
    )
    data = Data(Counting(), Counting(16))
    settings: dict[str, Any] = {"steps": 6, "batch": 5, "warmup": 1, "learning_rate": 0.01}
    model.fit(folder, data=data, devices=on, **settings)
    lines = list(metrics.read(folder / metrics.NAME))
    return [value for each in lines for name in ("loss", "valid") if (value := each.get(name))]


@pytest.mark.slow
@pytest.mark.parametrize("on", [("CPU:0", "CPU:1"), ("CPU:0", "CPU:1", "CPU:2")])
def test_the_losses_are_those_of_one_device(on: tuple[str, ...], tmp_path: Path) -> None:
    one, several = trained(tmp_path / "one"), trained(tmp_path / "several", on)
    assert len(one) == 7
    assert several == pytest.approx(one, rel=1e-6)


def on_threads(folder: Path, count: int) -> loop.Result:
    """A run of fakes on several devices."""
    executables: list[Any] = [fakes.Executable() for _ in range(count)]
    options: dict[str, Any] = {"frozen": frozenset(), "spec": fakes.SPEC}
    with fakes.learners(draws=False):
        return devices.fit_on(executables, folder, fakes.DATA, fakes.SETTINGS, **options)


@pytest.fixture
def equal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that need no device."""
    monkeypatch.setattr(Several, "make_equal", lambda self, executable, step: None)


def test_one_thread_alone_writes(tmp_path: Path, equal: None) -> None:
    assert on_threads(tmp_path / "run", 3).step == 12
    lines = list(metrics.read(tmp_path / "run" / metrics.NAME))
    assert [each["step"] for each in lines if "loss" in each] == [*range(1, 13)]


@pytest.mark.parametrize("fails", [0, 1])
def test_an_error_of_one_device_ends_the_run(
    fails: int, tmp_path: Path, equal: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = Several.seed

    def failing(self: Several, *numbers: int) -> tuple[int, ...]:
        if self.rank == fails and numbers[1] == 3:
            raise ValueError("the cable")
        return seed(self, *numbers)

    monkeypatch.setattr(Several, "seed", failing)
    with pytest.raises(ValueError, match="the cable"):
        on_threads(tmp_path / "run", 2)


def test_devices_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"vocab": 9, "context": 8, "D": 8, "heads": 2, "depth": 1}
    model = archdsl.compile("gpt.arch", device="CPU", **sizes)
    for wrong in (["CPU:1", "CPU:2"], ["CPU", "CPU:0"]):
        with pytest.raises(ArchError, match="cannot be trained on these devices"):
            model.fit(tmp_path / "run", data=Data(Counting()), devices=wrong)
    with pytest.raises(ArchError, match="a batch of 4 cannot be divided over 5 processes"):
        on_threads(tmp_path / "run", 5)
    monkeypatch.setattr(Processes, "count", 2)
    monkeypatch.setattr(devices, "processes", Processes)
    with pytest.raises(ArchError, match="several processes or several devices"):
        on_threads(tmp_path / "run", 2)
    assert list(tmp_path.iterdir()) == []
