"""`archdsl runs`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from archdsl.cli import main
from archdsl.cli.table import WIDTH
from archdsl.training.summary import summarize
from tests.training.fakes import SETTINGS, fit

SHORT = replace(SETTINGS, steps=4, eval_every=2)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    fit(folder / "a", SHORT)
    fit(folder / "sub" / "b", replace(SHORT, learning_rate=0.02, clip=None), dtype="bfloat16")
    return folder


def test_runs_are_listed_and_compared(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(runs)
    assert main(["runs", "."]) == 0
    head, first, second, _, names, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "step", "loss", "valid", "best", "tokens/s", "time",
                            "state"]  # fmt: skip
    assert max(map(len, (head, first, second))) <= WIDTH
    assert first.split()[:2] == ["a", "4/4"]
    assert first.endswith("complete")
    assert second.split()[0] == "sub/b"
    assert names.split() == ["a", "sub/b"]
    assert [row.split() for row in rows] == [
        ["dtype", "float32", "bfloat16"],
        ["learning_rate", "0.01", "0.02"],
        ["clip", "1.0", "none"],
    ]


def test_runs_as_json(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(runs / "a"), str(runs), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    first, second = found["runs"]
    text = (runs / "a" / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    valid = {each["step"]: each["valid"] for each in lines if "valid" in each}
    losses = [each["loss"] for each in lines if "loss" in each]
    assert first["loss"] == pytest.approx(sum(losses) / 4)
    assert (first["step"], first["valid"], first["model"]) == (4, valid[4], "GPT")
    assert (first["best_step"], first["best_valid"]) == min(valid.items(), key=lambda e: e[1])
    assert second["settings"]["clip"] is None
    assert found["differing"].keys() == {"dtype", "learning_rate", "clip"}


def test_a_run_that_is_running_or_was_stopped(tmp_path: Path) -> None:
    states: list[str] = []

    def report(event: Any) -> None:
        states.append(summarize(tmp_path).state)
        if len(states) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, SHORT, report=report)
    assert states == ["running", "running"]
    found = summarize(tmp_path)
    assert (found.state, found.step) == ("stopped", 2)


def test_a_folder_without_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(tmp_path)]) == 1
    assert f"{tmp_path}: there is no run" in capsys.readouterr().err
