"""`archdsl train` as a user types it: mistakes, the plan, a run, and how it goes on."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import archdsl
from archdsl.analysis import analyse
from archdsl.cli import main
from archdsl.cli.train_report import Reporter, format_plan, format_split
from archdsl.execution.train_step import loss_graph
from archdsl.passes import optimise
from archdsl.passes.split_weights import split_weights
from archdsl.training.events import Event, Notice
from archdsl.training.job import JOB_ROWS
from archdsl.training.loop import Result
from archdsl.training.plan import Bytes, Plan
from archdsl.training.settings import ROWS, Settings
from archdsl.training.split import plan_split
from tests.cli import tiny
from tests.cli.terminal import Terminal

ROOT = Path(__file__).parents[2]
SIZES = ("vocab=16", "context=8", "D=8", "heads=2", "depth=1")
TINY = ["gpt.arch", *(part for size in SIZES for part in ("--set", size))]
EVENT = Event(
    20, 100, 2.5, 1e-3, 0.7, "tokens", 12345.6, 9.0, 75.2, 3e9, share=0.42, valid=None
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("texts")
    (folder / "a.txt").write_text("the cat sat on the mat. " * 40)
    return str(folder)


def failing(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    assert main(["train", *map(str, args)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    return err


def test_the_help_has_every_setting_under_its_title(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    parts = dict(re.findall(r"^([a-z -]+):\n((?: .*\n|\n(?= ))*)", text, re.M))
    for row in (*JOB_ROWS, *ROWS):
        if row.name not in ("spec", "set"):
            assert re.search(rf"(^|\s){row.option}\b", parts[row.about]), row.name
    assert re.search(r"--steps N +updates of the weights \(default: 1000\)", text)
    assert "archdsl train --resume runs/gpt" in text


@pytest.mark.parametrize(
    ("args", "messages"),
    [
        (["gpt.arch", "-o", "new"], ["there are no data", "expected: --data PATH"]),
        (["--data", "a.txt", "-o", "new"], ["there is no model to train", "--init"]),
        (["gpt.arch", "--data", "a.txt"], ["no folder for the run", "expected: -o FOLDER"]),
        (["gpt.arch", "--steps", "0"], ["--steps cannot be '0'", "a whole number, at least 1"]),
        (["gpt.arch", "--steps", "5e3"], ["--steps cannot be '5e3'"]),
        (["gpt.arch", "--learning-rate", "-1"], ["--learning-rate cannot", "a number above 0"]),
        (["gpt.arch", "--optimizer", "adam"], ["did you mean `adamw`?"]),
        (["gpt.arch", "--steps", "5", "--warmup", "6"], ["warmup is longer than the run"]),
        (["gpt.arch", "--dtype", "half"], ["--dtype cannot", "`float32`, `float16` or"]),
        (["--resume", "gone"], ["`gone` is not the folder of a run"]),
        (["gpt.arch", "--resume", "gone"], ["spec cannot be given", "--init"]),
        (["--config", "gone.toml"], ["`gone.toml` cannot be read"]),
    ],
)
def test_mistakes(
    args: list[str], messages: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    err = failing(capsys, *args)
    for message in messages:
        assert message in err


def test_the_plan(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["train", *TINY, "--data", data, "--plan", "--device", "CPU", "--steps", "30"]
    assert main(args) == 0
    text = capsys.readouterr().out
    assert "\n  step        64 tokens, " in text
    assert main([*args, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["event"], found["run_units"], found["unit"]) == ("plan", 30 * 64, "tokens")
    assert found["bytes"]["optimizer"] == 2 * 4 * found["parameters"]


def test_options_override_a_file(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        'spec = "gpt.arch"',
        f'data = "{data}"',
        'device = "CPU"',
        "steps = 7",
        "batch = 4",
    ]
    sizes = [size.replace("=", " = ") for size in SIZES]
    (tmp_path / "run.toml").write_text("\n".join([*lines, "[set]", *sizes, ""]))
    config = ["train", "--config", str(tmp_path / "run.toml"), "--plan", "--json"]
    assert main([*config, "--steps", "9", "--set", "D=16"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["steps"], found["step_units"]) == (9, 4 * 8)
    model = archdsl.compile("gpt.arch", vocab=16, context=8, D=16, heads=2, depth=1)
    assert found["parameters"] == model.cost().params


@pytest.mark.long
@pytest.mark.reference("tokenizers")
def test_a_published_checkpoint_brings_its_tokenizer(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny.gpt2(tmp_path)
    args = ["train", "--init", folder, "--data", data, "--device", "CPU", "--plan", "--json"]
    assert main(args) == 0
    whole = json.loads(capsys.readouterr().out)
    assert any(line.startswith(f"the tokenizer `{folder}`") for line in whole["data"])
    assert whole["trained"] == whole["parameters"]
    assert main([*args, "--lora-rank", "2", "--quantize", "int8"]) == 0
    low = json.loads(capsys.readouterr().out)
    assert low["parameters"] == whole["parameters"] + low["trained"]
    assert low["bytes"]["weights"] < whole["bytes"]["weights"]
    assert low["bytes"]["gradients"] == 4 * low["trained"]


def test_a_plan_as_text(golden: Callable[[str, str], None]) -> None:
    bytes = Bytes(4_000_000, 0, 4_000_000, 8_000_000, 0, 123_456_789)
    plan = Plan(
        "GPT",
        1_000_000,
        900_000,
        2000,
        "tokens",
        8192,
        1_100_000,
        1,
        bytes,
        8 * 10**9,
        10**11,
        5e10,
    )
    unknown = replace(plan, memory=None, peak=None, trained=1_000_000)
    shared = replace(plan, shares=4)
    texts = [format_plan(plan, ["training: a", "validation: b"])]
    texts += [format_plan(each, ["a"]) for each in (unknown, shared)]
    golden("train/plan.txt", "\n\n".join(texts) + "\n")


def test_a_split_as_text(golden: Callable[[str, str], None]) -> None:
    sizes: Any = {"vocab": 63, "context": 8, "D": 8, "heads": 2, "depth": 3}
    graph = loss_graph(optimise(analyse("gpt.arch", settings=sizes).graph))
    split = split_weights(graph, 2)
    plan = plan_split(graph, split, "float32", 4, {"T": 8}, Settings(), 12_000_000)
    golden("train/split.txt", "\n".join(format_split(plan)) + "\n")


def reported(capsys: pytest.CaptureFixture[str], as_json: bool) -> list[str]:
    begun: list[bool] = []
    reporter = Reporter(100, as_json, 10, lambda: begun.append(True))
    for step in range(1, 21):
        reporter(
            replace(EVENT, step=step, valid=2.75 if step == 15 else None, saved=step == 16)
        )
    reporter(replace(EVENT, step=21, sample="a b"))
    reporter(Notice("a remark"))
    reporter.end(Result(Path("runs/a"), 100, 2.5, 2.75, 15, 2.625, 75.2, None))
    assert begun == [True]
    return capsys.readouterr().out.splitlines()


def test_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    line = "loss 2.5000, 12,346 tokens/s, 1 min 15 s left, 42 % of the peak"
    assert reported(capsys, as_json=False) == [
        f"step 10/100, {line}",
        f"step 15/100, {line}, validation loss 2.7500",
        f"step 20/100, {line}",
        f"step 21/100, {line}",
        "a b",
        "100 steps in 1 min 15 s: loss 2.5000, validation loss 2.7500",
        "least validation loss 2.6250 at step 15",
        "weights: runs/a/best/model.safetensors",
    ]


def test_lines_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = [json.loads(line) for line in reported(capsys, as_json=True)]
    assert [(each["event"], each.get("step")) for each in found] == [
        *(("step", step) for step in (10, 15, 16, 20, 21)),
        ("notice", None),
        ("end", 100),
    ]
    assert (found[1]["valid"], found[1]["speed"]) == (2.75, 12345.6)
    assert (found[-1]["best_valid"], found[-1]["folder"]) == (2.625, "runs/a")


def test_infinity_is_null_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    """In float16 the norm of a skipped step is infinite."""
    reporter = Reporter(100, True, 10, lambda: None)
    reporter(replace(EVENT, step=10, norm=math.inf, loss=math.nan))
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert (found["norm"], found["loss"]) == (None, None)


def test_a_folder_with_files_is_refused_before_the_model_is_built(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    assert main(["train", "gpt.arch", "--data", data, "-o", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert (out, "the folder exists" in err) == ("", True)


@pytest.mark.long
def test_a_run_continues_and_begins_another(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    run = [*TINY, "--data", data, "--device", "CPU", "--batch", "2", "--eval-every", "2"]
    assert main(["train", *run, "--steps", "4", "--log-every", "2", "-o", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert re.findall(r"^step (\d)/4, loss \d\.\d+, ", out, re.M) == ["2", "4"]
    weights = folder / "best" / "model.safetensors"
    assert f"weights: {weights}" in out
    assert (weights.is_file(), err) == (True, "")
    # Its folder cannot have another run, and it continues by its name alone.
    assert "the folder exists" in _err_of(capsys, "train", *run, "-o", str(folder))
    assert main(["train", "--resume", str(folder), "--steps", "6", "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [e["step"] for e in events if e["event"] == "step"] == [6]
    assert events[-1]["step"] == 6
    # Another run starts with its weights.
    model = ["train", "--init", str(folder), "--data", data, "--device", "CPU"]
    assert main([*model, "--batch", "2", "--steps", "1", "-o", str(tmp_path / "next")]) == 0
    first = archdsl.compile(str(folder / "spec.arch"), device="CPU")
    first.load(tmp_path / "next" / "checkpoints" / "1" / "model.safetensors")
    before = archdsl.compile(str(folder / "spec.arch"), device="CPU")
    before.load(weights)
    for name, weight in first.parameters.items():
        moved = np.abs(weight.numpy() - before.parameters[name].numpy()).max()
        assert moved < 1e-3  # one step of 3e-4


def _err_of(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(list(args)) == 1
    return capsys.readouterr().err


@pytest.mark.slow
def test_a_terminal_shows_one_live_line(data: str, tmp_path: Path) -> None:
    folder = str(tmp_path / "run")
    command = ["train", *TINY, "--data", data, "-o", folder, "--steps", "100000"]
    with Terminal(*command, COLUMNS="120") as terminal:
        plan = terminal.wait_for("memory")
        assert "parameters" in plan
        seen = terminal.wait_for(
            r"training: .*\| \d+/100000, loss \d\.\d+, [\d,]+ tokens/s, .* left"
        )
        assert "\nstep 10/" not in seen
        terminal.type("\x03")
        terminal.wait_for("continues")
        assert terminal.end() == -signal.SIGINT


@pytest.mark.slow
def test_an_interrupted_run_is_saved_and_says_how_to_continue(
    data: str, tmp_path: Path
) -> None:
    folder = str(tmp_path / "run")
    command = [sys.executable, "-m", "archdsl", "train", *TINY, "--data", data, "-o", folder]
    with subprocess.Popen(
        [*command, "--steps", "100000", "--log-every", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"DEV": "CPU"},
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step 3/"):
                break
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    found = re.search(
        rf"^stopped after step (\d+); `archdsl train --resume {folder}` continues\n$", err, re.M
    )
    assert found is not None
    assert process.returncode == -signal.SIGINT
    assert (tmp_path / "run" / "last").resolve().name == found[1]
