"""The training loop: what it writes, and that an interrupted run continues bit for bit."""

from __future__ import annotations

import math
import os
import random
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from archdsl.diagnostics import ArchError
from archdsl.training import checkpoints, curves, metrics
from archdsl.training.batches import evaluated
from archdsl.training.data import Data
from archdsl.training.events import Event, Notice
from archdsl.training.order import Order
from archdsl.training.settings import Settings
from tests.test_full_disks import small_files
from tests.training import fakes
from tests.training.fakes import PEAK, SETTINGS, Counting, computed, fit


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was not interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    fit(folder)
    return folder


def kept(folder: Path) -> list[int]:
    return checkpoints.steps(folder / "checkpoints")


def test_a_run_reports_each_step(tmp_path: Path) -> None:
    events: list[Any] = []
    result = fit(tmp_path / "run", report=events.append)
    events = [each for each in events if isinstance(each, Event)]
    assert [each.step for each in events] == [*range(1, 13)]
    assert [each.step for each in events if each.valid is not None] == [5, 10, 12]
    assert [each.step for each in events if each.saved] == [4, 5, 8, 10, 12]
    assert events[-1].seconds_left == 0 < events[0].seconds_left
    assert {each.unit for each in events} == {"tokens"}
    assert all(each.speed > 0 and each.flops > 0 for each in events)
    assert all(each.share == each.flops / PEAK for each in events)
    assert (result.step, result.loss, result.signal) == (12, events[-1].loss, None)
    assert (result.valid, result.best_valid) == (
        events[-1].valid,
        min(each.valid for each in events if each.valid is not None),
    )


def test_the_folder_of_a_run(whole: Path) -> None:
    names = {each.name for each in whole.iterdir() if each.name != curves.NAME}
    assert names == {
        ".lock", "best", "checkpoints", "environment.json", "last", "metrics.jsonl",
        "settings.toml", "spec.arch",
    }  # fmt: skip
    assert (whole / "last").resolve() == (whole / "checkpoints" / "12").resolve()
    assert kept(whole) == [10, 12]
    lines = list(metrics.read(whole / metrics.NAME))
    assert [each["step"] for each in lines if "loss" in each] == [*range(1, 13)]
    assert [each["step"] for each in lines if "valid" in each] == [5, 10, 12]
    first = {"step", "loss", "terms", "norm", "rate", "tokens_per_second", "seconds"}
    assert lines[0].keys() == first


def stop_at(step: int, number: signal.Signals) -> Callable[[Event | Notice], None]:
    def report(event: Event | Notice) -> None:
        if isinstance(event, Event) and event.step == step:
            os.kill(os.getpid(), number)

    return report


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_run_which_continues_bit_for_bit(
    tmp_path: Path, whole: Path, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    result = fit(tmp_path, report=stop_at(6, number))
    assert (result.step, result.signal) == (6, number)
    assert signal.getsignal(number) == before
    assert kept(tmp_path)[-1] == 6
    result = fit(tmp_path, resume=True)
    assert (result.step, result.signal) == (12, None)
    assert computed(tmp_path) == computed(whole)


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    def twice(event: Event | Notice) -> None:
        if isinstance(event, Event) and event.step == 6:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, report=twice)
    assert kept(tmp_path)[-1] == 5


OPERATIONS = ("replace", "fsync", "symlink", "mkdir", "unlink", "rmdir")


def killed(folder: Path, at: int) -> bool:
    """Runs in another process, which ends at the operation `at` on files, without a clean-up;
    returns whether it came so far."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) in (0, 9)
        return os.waitstatus_to_exitcode(status) == 9
    try:
        left = at

        def counted(operation: Any) -> Any:
            def run(*args: Any, **named: Any) -> Any:
                nonlocal left
                left -= 1
                if not left:
                    os._exit(9)
                return operation(*args, **named)

            return run

        for name in OPERATIONS:
            setattr(os, name, counted(getattr(os, name)))
        fit(folder, resume=folder.exists())
        os._exit(0)
    finally:
        os._exit(1)


def test_a_run_that_is_killed_continues_bit_for_bit(tmp_path: Path, whole: Path) -> None:
    rng = random.Random(0)
    for run in range(2):
        folder, kills = tmp_path / str(run), 0
        while killed(folder, rng.randrange(1, 60)):
            kills += 1
        assert kills
        assert computed(folder) == computed(whole)
        assert not [*(folder / "checkpoints").glob(".*")]


@pytest.mark.slow
def test_a_run_may_be_killed_at_any_operation(tmp_path: Path, whole: Path) -> None:
    at = 1
    while killed(tmp_path / str(at), at):
        folder = tmp_path / str(at)  # missing if its creation was the first operation
        assert fit(folder, resume=folder.exists()).step == 12
        assert computed(tmp_path / str(at)) == computed(whole)
        at += 1
    assert at > 100


def test_a_complete_run_can_be_made_longer(tmp_path: Path, whole: Path) -> None:
    constant = replace(SETTINGS, schedule="constant", warmup=0)
    fit(tmp_path / "long", constant)
    fit(tmp_path / "short", replace(constant, steps=8))
    assert fit(tmp_path / "short", replace(constant, steps=8), resume=True).step == 8
    fit(tmp_path / "short", constant, resume=True)
    assert computed(tmp_path / "short")[:2] == computed(tmp_path / "long")[:2]


def test_checkpoints_that_are_kept(tmp_path: Path) -> None:
    settings = replace(SETTINGS, keep=3, save_every=1, eval_every=2, learning_rate=0.5)
    result = fit(tmp_path, settings)
    assert result.best_step is not None
    assert result.best_step < 9  # a run with such a rate diverges
    assert kept(tmp_path) == [result.best_step, 10, 11, 12]
    assert (tmp_path / "best").resolve().name == str(result.best_step)


def test_a_run_without_validation(tmp_path: Path) -> None:
    result = fit(tmp_path, replace(SETTINGS, save_every=0), Data(Counting()))
    assert (result.valid, result.best_step) == (None, None)
    assert kept(tmp_path) == [0, 12]
    assert not (tmp_path / "best").exists()


def test_accumulated_batches_are_those_of_a_larger_batch(tmp_path: Path) -> None:
    seen: list[int] = []

    class Seen(Counting):
        def batch(self, numbers: Any) -> Any:
            seen.extend(numbers.tolist())
            return super().batch(numbers)

    fit(tmp_path, replace(SETTINGS, steps=4, batch=2, accumulate=3), Data(Seen()))
    order = Order(32, 2, 0)
    assert seen == [n for step in range(12) for n in order.numbers(step).tolist()]


def test_nan_stops_the_run_and_keeps_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fakes.Learner, "losses", {6: math.nan})
    with pytest.raises(ArchError) as error:
        fit(tmp_path)
    (found,) = error.value.diagnostics
    assert (found.code, found.message) == ("overflow", "the loss of step 7 is not finite")
    assert kept(tmp_path)[-1] == 5
    *_, last = metrics.read(tmp_path / metrics.NAME)
    assert (last["step"], last["loss"]) == (7, None)


def test_overflows_in_float16_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fakes.Learner, "losses", {2: math.inf, 6: math.inf})
    assert fit(tmp_path, dtype="float16").step == 12
    position = checkpoints.read(tmp_path / "checkpoints" / "12").position
    assert (position.scale, position.since_overflow) == (2.0**14, 5)
    monkeypatch.setattr(fakes.Learner, "losses", dict.fromkeys(range(40), math.inf))
    with pytest.raises(ArchError, match="the loss of step 17 is not finite"):
        fit(tmp_path / "all", replace(SETTINGS, steps=40), dtype="float16")


@pytest.mark.parametrize("name", ["checkpoints/8/model.safetensors", metrics.NAME])
def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path, whole: Path, name: str) -> None:
    fit(tmp_path, report=stop_at(6, signal.SIGINT))
    before = computed(tmp_path)
    size = (tmp_path / "last" / "model.safetensors").stat().st_size - 1
    if name == metrics.NAME:
        size = (tmp_path / name).stat().st_size + 99
    with small_files(size), pytest.raises(ArchError) as error:
        fit(tmp_path, resume=True)
    (found,) = error.value.diagnostics
    assert found.code == "file"
    assert found.message == f"{tmp_path / name}: cannot write: File too large"
    assert computed(tmp_path)[:2] == before[:2]
    assert kept(tmp_path)[-1] == 6
    assert not [*(tmp_path / "checkpoints").glob(".*")]
    fit(tmp_path, resume=True)
    assert computed(tmp_path) == computed(whole)


def test_a_damaged_checkpoint_is_skipped(tmp_path: Path, whole: Path) -> None:
    fit(tmp_path, report=stop_at(6, signal.SIGINT))
    path = tmp_path / "checkpoints" / "6" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    events: list[Any] = []
    fit(tmp_path, resume=True, report=events.append)
    assert events[0] == Notice(
        f"{path}: the file has changed since it was written; it is skipped"
    )
    assert events[1].step == 6
    assert computed(tmp_path) == computed(whole)


def test_a_damaged_checkpoint_does_not_count_as_kept(tmp_path: Path, whole: Path) -> None:
    settings = replace(SETTINGS, eval_every=0)
    fit(tmp_path, settings, report=stop_at(11, signal.SIGINT))
    (tmp_path / "checkpoints" / "11" / "model.safetensors").unlink()
    settings = replace(settings, keep=1, save_every=1)
    fit(tmp_path, settings, resume=True, report=stop_at(9, signal.SIGINT))
    assert kept(tmp_path) == [9, 11]
    fit(tmp_path, settings, resume=True)
    assert kept(tmp_path) == [12]
    assert computed(tmp_path)[:2] == computed(whole)[:2]


def test_without_matplotlib_curves_are_not_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    events: list[Any] = []
    fit(tmp_path, report=events.append, draws=True)
    (notice,) = [each for each in events if isinstance(each, Notice)]
    assert "matplotlib is not installed" in notice.text
    assert not (tmp_path / curves.NAME).exists()


@pytest.mark.long
@pytest.mark.reference("matplotlib")
def test_curves_of_equal_runs_are_equal(tmp_path: Path) -> None:
    settings = Settings(steps=2, batch=4)
    for name in ("a", "b"):
        fit(tmp_path / name, settings, draws=True)
    a, b = ((tmp_path / name / curves.NAME).read_text() for name in ("a", "b"))
    assert a.startswith("<?xml")
    assert "<!-- learning rate -->" in a
    assert "<!-- valid -->" in a
    assert a == b


def test_samples_along_the_way(tmp_path: Path) -> None:
    texts = iter(["one", "two", "three"])
    settings = replace(SETTINGS, sample_every=4)
    events: list[Any] = []
    fit(tmp_path, settings, sample=lambda: next(texts), report=events.append)
    assert [each.sample for each in events if getattr(each, "sample", None)] == [
        "one", "two", "three",
    ]  # fmt: skip
    assert (tmp_path / "samples.txt").read_text() == (
        "-- step 4 --\none\n\n-- step 8 --\ntwo\n\n-- step 12 --\nthree\n\n"
    )


def test_an_evaluation_has_the_same_examples_each_time() -> None:
    found = evaluated(100, 8, 3)
    assert found.shape == (3, 8)
    assert len({*found.ravel().tolist()}) == 24
    assert found.max() >= 90
