"""`archdsl bench`, its runner, and each workload of benchmarks/ with small sizes."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest

import benchmarks
from archdsl.bench.results import Workload, format_result, measure
from archdsl.bench.runner import Call, Candidate, run_rounds
from archdsl.cli import main
from benchmarks.__main__ import main as compare

# -- the runner --

SECONDS = {"slow": 0.03, "quick": 0.01}


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skips the pauses, because these tests do not compare times."""
    monkeypatch.setattr("archdsl.bench.runner._PAUSE", 0)


def sleeper(seconds: float, log: str, megabytes: int = 1) -> Call:
    """A candidate that sleeps, and logs each call."""
    held = np.ones(megabytes * 2**17)

    def once() -> np.ndarray:  # type: ignore[type-arg]
        time.sleep(seconds)
        with open(log, "a") as file:
            file.write(f"{seconds}\n")
        return held[:2] * (1 + seconds)

    return once


def failing() -> Call:
    raise ValueError("no such matrix\nand more")


def dying() -> Call:
    raise SystemExit(3)


@pytest.mark.long
def test_candidates_take_turns_in_separate_processes(tmp_path: Path) -> None:
    log = tmp_path / "log"
    options = [{"seconds": s, "log": str(log)} for s in SECONDS.values()]
    slow, quick = run_rounds(
        [
            Candidate("slow", sleeper, options[0]),
            Candidate("quick", sleeper, {**options[1], "megabytes": 300}),
        ],
        rounds=4,
    )
    turns = log.read_text().split()
    # Each is prepared and warmed up first; then the order rotates each round.
    assert turns[:6] == ["0.03"] * 3 + ["0.01"] * 3
    assert turns[6:] == ["0.03", "0.01", "0.01", "0.03"] * 2
    assert [len(slow.seconds), len(quick.seconds)] == [4, 4]
    assert min(slow.seconds) >= 0.03 > min(quick.seconds) >= 0.01
    assert quick.peak_bytes - slow.peak_bytes > 200 * 2**20
    assert slow.first >= 0.03


def test_candidates_ignore_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    process = multiprocessing.get_context("spawn").Process
    start = process.start

    def interrupted(starting: multiprocessing.process.BaseProcess) -> None:
        start(starting)
        assert starting.pid is not None
        os.kill(starting.pid, signal.SIGINT)

    monkeypatch.setattr(process, "start", interrupted)
    options = {"seconds": 0.01, "log": str(tmp_path / "log")}
    (timed,) = run_rounds([Candidate("one", sleeper, options)], rounds=2)
    assert (timed.failed, len(timed.seconds)) == (None, 2)
    assert capfd.readouterr().err == ""


def test_an_interrupted_benchmark_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("archdsl.bench.runner._Process.prepare", interrupted)
    options = {"seconds": 0.01, "log": str(tmp_path / "log")}
    with pytest.raises(KeyboardInterrupt):
        run_rounds([Candidate("one", sleeper, options)], rounds=2)
    assert multiprocessing.active_children() == []
    assert capfd.readouterr().err == ""


@pytest.mark.long
def test_missing_and_failing_candidates_are_reported(tmp_path: Path) -> None:
    options = {"seconds": 0.01, "log": str(tmp_path / "log")}
    workload = Workload(
        "sleep",
        (
            Candidate("archdsl", sleeper, options),
            Candidate("half", sleeper, {**options, "seconds": 0.02}),
            Candidate("nobody", sleeper, options, ("no_such_package",)),
            Candidate("wrong", failing),
            Candidate("gone", dying),
        ),
        "naps",
        2,
        flops=1e6,
        bytes=1e6,
    )
    result = measure(workload, rounds=3)
    text = format_result(result)
    assert "nobody   no_such_package not installed" in text
    assert "wrong    ValueError: no such matrix\n" in text
    assert "gone     its process ended with status 3" in text
    ours, half, *_ = result.as_dict()["candidates"]
    assert 1.5 < half["relative_time"][1] < 2.5
    assert half["difference"] == pytest.approx(0.01 / 1.02)
    assert ours["per_second"] == pytest.approx(2 / ours["quartiles"][1])
    limits = result.as_dict()
    share = 1e6 / ours["quartiles"][1] / limits["compute_roofline_flops_per_second"]
    assert ours["compute_roofline_share"] == pytest.approx(share, rel=0.5)
    assert limits["memory_roofline_bytes_per_second"] > 1e8


# -- a spec --

TINY = ("vocab=50", "context=40", "D=24", "heads=3", "depth=1")
QUICK = ("--length", "8", "--new", "2", "--rounds", "2", "--device", "CPU")


def settings(*sizes: str) -> list[str]:
    return [word for size in sizes for word in ("--set", size)]


@pytest.mark.slow
@pytest.mark.reference("torch", "transformers")
def test_a_spec_is_compared_with_transformers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "gpt2.arch", *settings(*TINY), *QUICK, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    names = [each["workload"] for each in found["workloads"]]
    assert names == ["forward, batch of 1, T = 8", "decoding, 2 tokens after 8"]
    for workload in found["workloads"]:
        ours, theirs = workload["candidates"]
        assert (ours["name"], theirs["name"]) == ("archdsl", "transformers")
        assert theirs["difference"] <= 1e-4  # equal outputs
        assert len(ours["seconds"]) == len(theirs["seconds"]) == 2
        assert min(ours["peak_bytes"], theirs["peak_bytes"]) > 2**24
    assert found["versions"]["tinygrad"]


@pytest.mark.long
def test_a_spec_without_an_export_is_measured_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["bench", "gpt.arch", *settings(*TINY), *QUICK]) == 0
    out, err = capsys.readouterr()
    assert "`GPT` cannot be exported" in err
    rows = [line for line in out.splitlines() if not line.startswith(6 * " ")]  # not wrapped
    assert [re.split(r"\W", line.strip())[0] for line in rows] == [
        "forward",
        "archdsl",
        "decoding",
        "archdsl",
    ]
    assert main(["bench", "gpt.arch", *settings(*TINY), "--dtype", "float64"]) == 1
    assert "a model cannot be of dtype float64" in capsys.readouterr().err


def test_a_count_must_be_positive() -> None:
    for wrong in (["--rounds", "0"], ["--length", "many"]):
        with pytest.raises(SystemExit) as stop:
            main(["bench", "gpt.arch", *wrong])
        assert stop.value.code == 2


# -- the comparisons --


@pytest.mark.slow
@pytest.mark.reference("torch", "transformers", "onnx", "onnxruntime", "matplotlib")
@pytest.mark.parametrize("name", benchmarks.NAMES)
def test_every_comparison_runs_and_agrees(name: str, tmp_path: Path) -> None:
    found, picture = tmp_path / "found.json", tmp_path / "picture.svg"
    arguments = [name, "--quick", "--rounds", "2", "--json", str(found)]
    assert compare([*arguments, "--picture", str(picture)]) == 0
    for workload in json.loads(found.read_text())["workloads"]:
        for each in workload["candidates"]:
            assert each.get("difference", 0) <= 1e-3, (workload["workload"], each["name"])
    assert picture.stat().st_size > 1000
