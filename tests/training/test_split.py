"""Weights split over devices: the losses, the files and the traffic are those of the plan."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import archdsl
from archdsl.backend.tinygrad_seam import Ops
from archdsl.diagnostics import ArchError
from archdsl.execution.executable import Executable
from archdsl.execution.train_step import TrainStep
from archdsl.graph.cost import BYTES
from archdsl.training import metrics
from archdsl.training.data import Data
from archdsl.training.loop import train_step
from archdsl.training.settings import settings_from
from archdsl.training.split import plan_split, split_of
from tests.training.fakes import GRAPH, Counting

ROWS, VOCAB, CONTEXT, PIXELS, CLASSES = 4, 32, 8, 8, 6
DEVICES = ["CPU:0", "CPU:1"]
TEXT = {"vocab": VOCAB, "context": CONTEXT, "D": 16, "heads": 2, "depth": 1}
SIZES: dict[str, dict[str, Any]] = {
    "gpt.arch": TEXT,
    "llama.arch": TEXT | {"heads": 4, "kv_heads": 2, "inner": 24},
    "llama.arch, tied": TEXT | {"heads": 4, "kv_heads": 2, "inner": 24, "tied": True},
    "transformer.arch": TEXT,
    "vit.arch": {
        "image": PIXELS,
        "patch": 4,
        "classes": CLASSES,
        "D": 16,
        "heads": 2,
        "depth": 1,
    },
}


def batch(name: str) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(0)
    if name == "vit.arch":
        pixels = random.standard_normal((ROWS, 3, PIXELS, PIXELS)).astype(np.float32)
        return {"pixels": pixels, "label": random.integers(0, CLASSES, ROWS).astype(np.int32)}
    names = ("source", "target") if name == "transformer.arch" else ("tokens",)
    found = {n: random.integers(1, VOCAB, (ROWS, CONTEXT)).astype(np.int32) for n in names}
    if "source" in found:
        found["source"][0, 5:] = 0  # padding
    return found


def built(name: str, dtype: str = "float32") -> Executable:
    spec = name.partition(",")[0]
    return archdsl.compile(spec, device="CPU", dtype=dtype, **SIZES[name]).executable


def step_of(name: str, split: str, dtype: str, **more: Any) -> TrainStep:
    executable, settings = built(name, dtype), settings_from({"steps": 3, **more})
    found = split_of(executable.graph, settings, 2, split, frozenset())
    if found is not None:
        executable = executable.split_over(DEVICES, found.axis_of)
    return train_step(executable, settings, frozenset())


def losses(name: str, split: str, dtype: str = "float32", **more: Any) -> list[float]:
    """The losses of three steps, and the lengths of their gradients."""
    step = step_of(name, split, dtype, **more)
    batches = [batch(name)] * step.accumulate
    found = [step(batches, 1e-2, [0, i]) for i in range(3)]
    return [number for each in found for number in (each.loss, each.norm)]


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_the_losses_are_those_of_one_device(name: str) -> None:
    assert losses(name, "tensor") == pytest.approx(losses(name, "batch"), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        {"optimizer": "lamb"},
        {"optimizer": "sgd"},
        {"accumulate": 2},
        {"recompute": True},
        {"ema": 0.9},
    ],
    ids=str,
)
def test_other_settings(more: dict[str, Any]) -> None:
    one = losses("gpt.arch", "batch", **more)
    assert losses("gpt.arch", "tensor", **more) == pytest.approx(one, rel=1e-5)


@pytest.mark.slow
def test_half_precision() -> None:
    one = losses("gpt.arch", "batch", "bfloat16")
    assert losses("gpt.arch", "tensor", "bfloat16") == pytest.approx(one, rel=1e-2)


def received(step: TrainStep) -> int:
    """The numbers that the second device receives in the captured gradients of a step."""
    (captured,) = step._captures
    calls = captured.program._run.captured.linear.src
    copies = (call.src[1] for call in calls if call.src[0].op is Ops.COPY)
    return sum(prod(to.shape) for to in copies if to.device == DEVICES[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_the_traffic_is_that_of_the_plan(name: str) -> None:
    step, settings = step_of(name, "tensor", "float32"), settings_from({"steps": 3})
    step([batch(name)], 1e-2, [0, 0])
    split = split_of(step.graph, settings, 2, "tensor", frozenset())
    assert split is not None
    sizes = {axis.name: CONTEXT for axis in step.graph.varying}
    plan = plan_split(step.graph, split, "float32", ROWS, sizes, settings, 0)
    planned = sum(each.bytes for each in plan.traffic) // BYTES["float32"]
    # And for the length of the gradient, a number for each weight that is split.
    assert received(step) == planned + len(split.axis_of)


def fit(folder: Path, steps: int, on: list[str] | None = None, **more: Any) -> list[float]:
    sizes: dict[str, Any] = {"vocab": 9, "context": 8, "D": 16, "heads": 2, "depth": 1}
    model = archdsl.compile("gpt.arch", device="CPU", **sizes)
    settings: dict[str, Any] = {"steps": steps, "batch": 4, "warmup": 1, "schedule": "constant"}
    settings |= {"eval_every": 0, "learning_rate": 0.01}
    model.fit(folder, data=Data(Counting()), devices=on or (), **settings, **more)
    assert all(isinstance(each.device, str) for each in model.executable.parameters.values())
    return [each["loss"] for each in metrics.read(folder / metrics.NAME) if "loss" in each]


@pytest.mark.slow
def test_a_run_continues_on_one_device(tmp_path: Path) -> None:
    whole = fit(tmp_path / "one", 4)
    fit(tmp_path / "two", 2, DEVICES, split="tensor")
    found = fit(tmp_path / "two", 4, resume=True)
    assert found == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize(
    ("count", "more", "message"),
    [
        (0, {}, "`split` needs several devices"),
        (2, {"optimizer": "muon"}, "muon multiplies whole matrices"),
        (2, {"sample_every": 2}, "samples need a whole model"),
    ],
)
def test_what_is_refused(count: int, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ArchError, match=message):
        split_of(GRAPH, settings_from(more), count, "tensor", frozenset())
