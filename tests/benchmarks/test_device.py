"""`python -m benchmarks device`: its processes, its sizes and its parts, on the CPU."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.device import diagnosed, fast, right, sizes
from benchmarks.device.command import ENDS, main, shown
from benchmarks.device.runner import Line, Unit, run_units
from benchmarks.device.sizes import DECODERS, IMAGES, TRAINED

LIMIT = {"device": "CPU", "memory": 2**34, "dtypes": ["float32"], "flops": {"float32": 1e10}}
LIMIT |= {"bytes": 1e10}


def unit(name: str, seconds: float = 30, **options: Any) -> Unit:
    return Unit("part", name, "tests.benchmarks.units", name, options, "one", seconds)


def test_a_unit_that_fails_is_a_line_and_the_others_go_on() -> None:
    units = [unit("number", value=1), unit("mistake"), unit("number", value=2), unit("crash")]
    units += [unit("number", value=3), unit("hang", seconds=0.3)]
    lines: list[Line] = []
    run_units(units, lines.append, time.monotonic() + 60)
    assert [line.get("value") for line in lines] == [1, None, 2, None, 3, None]
    assert [line.get("error") for line in lines] == [
        None,
        "ValueError: a mistake",
        None,
        "its process ended with status -6",
        None,
        "no answer in 0 s",
    ]
    processes = [line["process"] for line in lines if "process" in line]
    assert processes[0] == processes[1] != processes[2]


def test_what_has_no_time_is_named() -> None:
    lines: list[Line] = []
    run_units([unit("number", value=1), unit("crash")], lines.append, time.monotonic())
    assert [(line["error"], line["not_run"]) for line in lines] == [
        ("2 not run: the time of this part was over", ["number", "crash"])
    ]


@pytest.mark.few(1)
@pytest.mark.parametrize("offered", [*DECODERS.values(), IMAGES, TRAINED])
def test_sizes_follow_memory_and_speed(offered: tuple[sizes.Sizes, ...]) -> None:
    trains = offered is TRAINED
    large, slow, quick = (
        sizes.chosen(offered, memory, flops, trains, quick)
        for memory, flops, quick in (
            (2**37, 5e14, False),
            (2**37, 1e9, False),
            (2**37, 5e14, True),
        )
    )
    assert large is offered[0]
    assert slow is quick is offered[-1]
    assert sizes.chosen(offered, 2**28, 5e14, trains, False) is not offered[0]


def test_a_line_for_people() -> None:
    about = {"part": "right", "name": "gpt"}
    wrong = shown({**about, "right": False, "difference": 0.1, "allowed": 1e-5})
    assert wrong.endswith("WRONG  1.0e-01 (allowed 1e-05)")
    assert shown({**about, "error": "it hangs"}).endswith("ERROR it hangs")
    assert shown({**about, "step_seconds": 0.5, "seconds": 3.0}).endswith("step_seconds 0.5")


def test_pytorch_does_what_archdsl_does() -> None:
    """But the first token of a process, and compiled steps."""
    beside = {**LIMIT, "torch_device": "cuda", "torch_flops": {"float32": 1e10}}
    ours = [each.name for each in fast.units(beside, quick=False)][1:]
    names = [each.name for each in fast.torch_units(beside, quick=False)]
    assert {name for name in names if name.endswith(": PyTorch, SDPA")} == {
        name.replace("archdsl", "PyTorch, SDPA") for name in ours
    }
    assert not [name for name in names if "step behind" in name and "compiled" in name]
    assert not list(fast.torch_units(LIMIT, quick=False))


@pytest.mark.long
def test_a_part_on_the_cpu(tmp_path: Path) -> None:
    line = right.check_stepped(
        spec="llama.arch", device="CPU", dtype="float32", references=None
    )
    assert line["right"], line
    size = DECODERS["GPT"][-1]
    options: dict[str, Any] = {"limit": LIMIT, "dtype": "float32", "size": size}
    found = diagnosed.longest(new=1, folder=str(tmp_path), **options)
    longest = found["longest"]
    assert 1 <= len(longest) <= 10
    assert longest == sorted(longest, key=lambda each: -each["seconds"])
    assert all(Path(each["source"]).read_text() for each in longest)
    assert all(each["kernel"].isidentifier() for each in longest)
    assert fast.prefill(size, "float32", 16, 2, LIMIT)["tokens_per_second"] > 0
    assert fast.step(size, "float32", 16, 2, LIMIT)["share_of_read_limit"] > 0


@pytest.mark.slow
def test_the_whole_command(tmp_path: Path) -> None:
    output = tmp_path / "results.jsonl"
    assert main(["--device", "CPU", "--quick", "--minutes", "10", "-o", str(output)]) == 0
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert {line["part"] for line in lines} == set(ENDS)
    assert not [line for line in lines if "error" in line or line.get("right") is False]
