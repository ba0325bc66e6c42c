"""What a run will need: exact numbers, an estimate within its factor, and what would fit."""

from __future__ import annotations

import gc
import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tinygrad.helpers import GlobalCounters

import archdsl
from archdsl.backend.optimizers import OPTIMIZERS, Optimizer, Rule
from archdsl.diagnostics import ArchError
from archdsl.execution import inputs
from archdsl.execution.peak_rate import peak_rate
from archdsl.execution.train_step import TrainStep
from archdsl.model import Model
from archdsl.training import plan as planning
from archdsl.training.data import Data, open_data
from archdsl.training.finetuning import frozen_weights
from archdsl.training.plan import make_plan, needed_bytes
from archdsl.training.processes import Shares
from archdsl.training.settings import Settings, settings_from
from archdsl.training.split import split_of

T, VOCAB = 16, 20
SIZES: dict[str, Any] = {"vocab": VOCAB, "context": T, "D": 16, "heads": 2, "depth": 2}
FACTOR = 1.5  # as the docstring of `plan` says


class Rows:
    """Examples of random tokens."""

    fingerprint = "rows"

    def __init__(self, count: int):
        rng = np.random.default_rng(0)
        self.tokens = rng.integers(0, VOCAB, (count, T), dtype=np.int32)

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, numbers: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        return {"tokens": self.tokens[numbers]}

    def describe(self) -> str:
        return "rows"


@pytest.fixture(scope="module")
def model() -> Model:
    return archdsl.compile("gpt.arch", device="CPU", **SIZES)


def test_the_memory_of_a_device_that_has_a_share_of_the_weights(model: Model) -> None:
    graph = model.executable.graph
    split = split_of(graph, Settings(), 2, "tensor", frozenset())
    assert split is not None
    found = make_plan(model.executable, Settings(), Data(Rows(40)), split=split)
    whole = make_plan(model.executable, Settings(), Data(Rows(40)))
    every = {path: prod(each.weight.shape) for path, each in model.weights.items()}
    numbers = sum(n // (2 if path in split.axis_of else 1) for path, n in every.items())
    assert sum(every.values()) // 2 < numbers < sum(every.values())
    assert found.bytes.weights == found.bytes.gradients == 4 * numbers
    assert found.bytes.optimizer == 2 * 4 * numbers
    assert found.split is not None
    assert (found.split.share, found.split.bytes) == (4 * numbers, whole.bytes.weights)
    assert found.split.memory == whole.bytes.total > found.bytes.total
    assert json.loads(json.dumps(found.split.as_dict()))["count"] == 2


def test_counts_of_a_run(model: Model) -> None:
    settings = settings_from({"steps": 30, "batch": 4, "accumulate": 2})
    found = make_plan(model.executable, settings, Data(Rows(40)), peak=1e9)
    assert (found.unit, found.step_units, found.data_units) == ("tokens", 8 * T, 40 * T)
    assert (found.run_units, found.epochs) == (30 * 8 * T, 6.0)
    assert found.parameters == found.trained == model.cost().params
    assert found.flops == 3 * 8 * model.cost(T=T).flops
    assert found.step_seconds == found.flops / 1e9
    assert found.run_seconds == pytest.approx(30 * found.flops / 1e9)
    assert found.as_dict()["epochs"] == 6.0


def test_a_share_of_a_batch(model: Model) -> None:
    given = (model.executable, Settings(batch=7, steps=3), Data(Rows(40)))
    whole = make_plan(*given, peak=1e9)
    share = make_plan(*given, peak=1e9, shares=Shares(3, here=2))
    assert (share.flops, share.step_units) == (whole.flops, whole.step_units)
    assert share.step_seconds == pytest.approx(whole.flops / 3 / 1e9)
    assert share.run_seconds == pytest.approx(whole.flops / 1e9)
    assert share.bytes == needed_bytes(model.executable, Settings(), {"T": T}, 3)
    assert share.memory is not None
    assert whole.memory is not None
    assert share.memory == pytest.approx(whole.memory / 2, rel=0.1)  # what is free changes


def test_without_momentum_there_is_no_state(model: Model) -> None:
    how = Settings(optimizer="sgd", momentum=0.0)
    assert needed_bytes(model.executable, how, {"T": T}, 8).optimizer == 0
    rule = Rule("sgd", momentum=0.0)
    assert not Optimizer(rule, dict(model.parameters), frozenset()).state()


def test_frozen_weights_have_no_gradients(model: Model) -> None:
    frozen = frozenset({"embed.weight"})
    found = make_plan(model.executable, Settings(), Data(Rows(40)), frozen)
    count = VOCAB * SIZES["D"]
    assert found.parameters - found.trained == count
    assert found.bytes.gradients == 4 * found.trained
    assert found.bytes.weights == 4 * found.parameters


def test_a_recomputed_layer_needs_less(model: Model) -> None:
    stored, again = (
        needed_bytes(model.executable, Settings(recompute=each), {"T": T}, 8).activations
        for each in (False, True)
    )
    assert again < stored


def nbytes(tensors: Mapping[str, Any]) -> int:
    return sum(prod(each.shape) * each.dtype.itemsize for each in tensors.values())


@pytest.mark.few(1)
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(("dtype", "ema"), [("float32", None), ("bfloat16", 0.9)])
def test_the_bytes_of_the_tensors_of_a_step_are_exact(
    name: str, dtype: str, ema: float | None
) -> None:
    model = archdsl.compile("gpt.arch", device="CPU", dtype=dtype, **SIZES)
    step = TrainStep(model.executable, Rule(name), ema=ema)
    found = needed_bytes(model.executable, Settings(optimizer=name, ema=ema), {"T": T}, 8)
    state = step.state()
    masters = {name: each for name, each in state.items() if name.startswith("master ")}
    averages = {name: each for name, each in state.items() if name.startswith("average ")}
    powers = {name: each for name, each in state.items() if name.startswith("beta")}
    rest = state.keys() - masters.keys() - averages.keys() - powers.keys()
    assert found.weights == nbytes(model.parameters)
    assert found.gradients == nbytes(step.gradients)
    assert (found.masters, found.averages) == (nbytes(masters), nbytes(averages))
    assert found.optimizer == nbytes({name: state[name] for name in rest})
    assert nbytes(powers) <= 64  # a number for all weights of a kind


def test_the_rate_of_the_processor(model: Model) -> None:
    found = peak_rate(model.executable)
    assert found is not None
    assert 1e8 < found < 1e14


def refused(model: Model, memory: int, **settings: Any) -> str:
    with pytest.raises(ArchError) as error:
        make_plan(model.executable, settings_from(settings), Data(Rows(64)))
    (found,) = error.value.diagnostics
    assert found.message == "training `GPT` needs more memory than CPU has"
    assert found.expected == f"at most {memory / 1000:.4g} kB"
    return found.help or ""


def test_what_does_not_fit_is_refused_with_what_does(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bytes_of(batch: int, **how: Any) -> int:
        return needed_bytes(model.executable, Settings(**how), {"T": T}, batch).total

    def limit(memory: int) -> int:
        monkeypatch.setattr(planning, "usable_memory", lambda device, shares: memory)
        return memory

    memory = limit(bytes_of(16) - 1)
    help = refused(model, memory, batch=16, accumulate=3)
    assert help == "set batch = 8 and accumulate = 6, or recompute = true"
    memory = limit(bytes_of(16, recompute=True) - 1)
    help = refused(model, memory, batch=16, recompute=True)
    assert help == "set batch = 8 and accumulate = 2"
    given = (model.executable, settings_from({"batch": 16}), Data(Rows(64)))
    assert make_plan(*given, shares=Shares(2, here=2)).bytes.total <= memory
    memory = limit(1000)
    assert refused(model, memory, batch=4) == "set smaller sizes of the model"
    limit(bytes_of(16))
    assert make_plan(model.executable, Settings(batch=16), Data(Rows(64))).memory


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kernels", "settings", "recompute", "freeze"),
    [
        ("best", {}, False, ()),
        ("tinygrad", {}, False, ()),
        ("best", {"depth": 4, "D": 32}, False, ()),
        ("best", {"depth": 4}, True, ()),
        ("best", {"depth": 8}, False, ("embed", "posenc", "**.0-5")),
        ("best", {"depth": 4}, False, ("**.mlp", "**.attention.out", "**.norm*")),
    ],
)
def test_activations_are_within_a_factor_of_what_a_step_allocates(
    kernels: str, settings: dict[str, int], recompute: bool, freeze: tuple[str, ...]
) -> None:
    sizes = SIZES | {"context": 64, "vocab": VOCAB} | settings
    model = archdsl.compile("gpt.arch", device="CPU", kernels=kernels, **sizes)
    frozen = frozen_weights(model.graph, freeze)
    step = TrainStep(model.executable, Rule(), recompute=recompute, frozen=frozen)
    tokens = np.random.default_rng(0).integers(0, VOCAB, (16, 64))
    batch = inputs.check(model.graph, {"tokens": tokens}, labels=True)
    gc.collect()  # what earlier tests left
    before = GlobalCounters.mem_used
    for number in range(3):  # the second call captures the program
        step([batch], 1e-3, seed=(0, number))
    used = GlobalCounters.mem_used - before
    how = Settings(recompute=recompute)
    found = needed_bytes(model.executable, how, {"T": 64}, 16, frozen).activations
    assert 1 / FACTOR < used / found < FACTOR


def test_packed_texts_are_counted_once(model: Model, tmp_path: Path) -> None:
    lines = [json.dumps({"text": "abc" * (1 + i % 3)}) + "\n" for i in range(40)]
    (tmp_path / "a.jsonl").write_text("".join(lines))
    settings = settings_from({"pack": True, "batch": 2})
    data = open_data(tmp_path, model.graph, pack=True)
    found = make_plan(model.executable, settings, data)
    assert T < found.step_units <= 2 * T
