"""Layers computed again for the gradient: the same gradients, in less memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import archdsl
from archdsl.backend.emit import EMIT
from archdsl.backend.optimizers import Rule
from archdsl.backend.tinygrad_seam import Ops
from archdsl.execution.train_step import TrainStep
from archdsl.model import Model

LONG, SLOW = pytest.mark.long, pytest.mark.slow
Gradients = dict[str, NDArray[Any]]

# An inner stack, a stack whose layers have the same weights, dropout, a value that all layers
# use, a weight of layers that is used outside of them, and one that no loss uses.
LAYERS = """
block layer(x: float[T, D], start: float[T, D]): float[T, D] {
  x + (x -> linear(D) -> tanh -> dropout(0.3)) + 0.1 * start
}
block around(x: float[T, D], start: float[T, D]): float[T, D] {
  x -> inner: layer(start) * 2 -> norm
}
model Layers(D = 8, depth = 4) {
  input x: float[T <= 9, D]
  first = x -> linear(D) -> norm
  outside = first -> tanh
  second = first -> outer: around(outside) * depth -> same: layer(first) * 3 tied
  output z: float[T, D] = second + first -> end: layer(second) * 2
  loss squared_error(z, y: float[T, D])
}
"""
SPECS: dict[str, tuple[Any, dict[str, Any]]] = {
    "layers": (LAYERS, {}),
    "gpt": ("gpt.arch:GPT", {"vocab": 30, "context": 16, "D": 16, "heads": 2, "depth": 3}),
    "t5": (
        "t5.arch:T5",
        {"vocab": 30, "D": 16, "heads": 2, "size": 8, "inner": 24, "depth": 3},
    ),
    "gemma": (
        "gemma.arch:Gemma3",
        {
            "vocab": 30,
            "D": 16,
            "heads": 2,
            "kv_heads": 1,
            "head_size": 8,
            "inner": 20,
            "depth": 7,
            "period": 3,
            "window": 4,
        },
    ),
    "mamba": ("mamba.arch:Mamba", {"vocab": 30, "D": 16, "depth": 4, "size": 4}),
}


def compiled(name: str, **more: Any) -> Model:
    spec, sizes = SPECS[name]
    spec = archdsl.parse(spec) if spec is LAYERS else spec
    return archdsl.compile(spec, device="CPU", **{**sizes, **more})


def batch_of(model: Model, rows: int = 2) -> dict[str, NDArray[Any]]:
    random, given = np.random.default_rng(4), {}
    for each in (*model.graph.inputs, *model.graph.labels):
        sizes = [
            axis.size.at({v.name: 8 for v in model.graph.varying}) for axis in each.type.axes
        ]
        given[each.name] = (
            random.integers(2, 20, (rows, *sizes)).astype(np.int32)
            if each.type.dtype == "int"
            else random.standard_normal((rows, *sizes)).astype(np.float32)
        )
    return given


def step_of(model: Model, recompute: bool, **options: Any) -> TrainStep:
    return TrainStep(model.executable, Rule("sgd"), recompute=recompute, **options)


def gradients(
    step: TrainStep, batch: dict[str, NDArray[Any]]
) -> tuple[float, float, Gradients]:
    """The loss, the sum of squares of the gradients, and the gradients."""
    key = np.array([1, 2], np.uint32)
    losses, square = step._gradients(batch, None, key, 0)
    for number in range(1, step.accumulate):
        losses, square = step._gradients(batch, None, key, number)
    return losses.value, square, {path: g.numpy() for path, g in step.gradients.items()}


def agree(model: Model, **options: Any) -> None:
    batch = batch_of(model)
    value, square, right = gradients(step_of(model, False, **options), batch)
    again, square_again, found = gradients(step_of(model, True, **options), batch)
    assert again == pytest.approx(value, rel=1e-6)
    assert square_again == pytest.approx(square, rel=1e-5)
    assert sum(np.abs(each).max() > 0 for each in right.values()) > len(right) // 2
    for path, each in right.items():
        assert np.abs(found[path] - each).max() <= 1e-6 * max(1, np.abs(each).max()), path


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=LONG if name == "layers" else SLOW) for name in SPECS]
)
def test_gradients(name: str) -> None:
    agree(compiled(name))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"accumulate": 2}, {"frozen": frozenset({"self_attention_block.1.mlp.0.weight"})}],
    ids=["accumulated", "frozen"],
)
def test_options(options: dict[str, Any]) -> None:
    agree(compiled("gpt"), **options)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_weights_train(dtype: str) -> None:
    model = compiled("gpt", dtype=dtype)
    step = TrainStep(model.executable, Rule(), recompute=True)
    batch = batch_of(model)
    losses = [step([batch], 1e-2, seed=(0, i)).loss for i in range(12)]
    assert losses[-1] < 0.8 * losses[0]


def captured(step: TrainStep, batch: dict[str, NDArray[Any]]) -> Any:
    """The captured calls of a step's gradients."""
    gradients(step, batch)
    (one,) = step._captures
    return one.program._run.captured._linear


def buffers_of(step: TrainStep, batch: dict[str, NDArray[Any]]) -> int:
    """The bytes of all buffers of the captured gradients, without weights and gradients."""
    known = {each.uop.base for part in (step.weights, step.gradients) for each in part.values()}
    uops = captured(step, batch).toposort()
    return sum(each.nbytes() for each in uops if each.op is Ops.BUFFER and each not in known)


@pytest.mark.slow
def test_memory_does_not_grow_with_all_that_layers_compute() -> None:
    stored, again = (
        [
            buffers_of(
                step_of(model := compiled("gpt", depth=depth), recompute), batch_of(model)
            )
            for depth in (4, 8)
        ]
        for recompute in (False, True)
    )
    a_layer = 4 * 2 * 8 * 16  # bytes of its input: float32, B, T, D
    assert again[1] - again[0] <= 1.5 * 4 * a_layer
    assert stored[1] - stored[0] > 4 * (again[1] - again[0])
    assert again[1] < stored[1] / 2


@pytest.mark.slow
def test_layers_are_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    emit = EMIT["linear"]
    monkeypatch.setitem(EMIT, "linear", lambda op: (calls.append(op.place), emit(op))[1])
    counted = []
    for depth in (3, 8):
        calls.clear()
        model = compiled("gpt", depth=depth)
        gradients(step_of(model, True), batch_of(model))
        counted.append(len(calls))
    assert counted[0] == counted[1] > 4
