"""What is NaN in a step of training is named: an operator, or a weight's gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import archdsl
from archdsl.backend.optimizers import Rule
from archdsl.diagnostics import ArchError, Diagnostic
from archdsl.execution.find_nan import report_not_finite
from archdsl.execution.train_step import TrainStep
from archdsl.model import Model

LAYERS = """\
block sublayer(x: float[T, D]): float[T, D] {
  x + (x -> norm(rms) -> wide: linear(2 * D, bias = false) -> exp -> linear(D))
}

model Deep(vocab = 5, D = 4) {
  input tokens: int[T <= 8] < vocab pad 0
  x = tokens -> embed(vocab, D) -> layer: sublayer * 2
  output logits: float[T, vocab] = x -> head: linear(vocab, bias = false)
  loss next_token(logits, tokens)
}
"""
TOKENS = {"tokens": np.array([[1, 2, 3]], np.int32)}

# The value is 0, but the slope of its root is infinite.
ROOT = """\
model Root(D = 2) {
  input x: float[D]
  y = x -> first: linear(D, bias = false) -> relu -> sqrt
  output z: float[1] = y -> last: linear(1)
  loss squared_error(z, t: float[1])
}
"""
POINT = {"x": np.array([[-1, -1]], np.float32), "t": np.zeros((1, 1), np.float32)}


def model(spec: str, **named: Any) -> Model:
    return archdsl.compile(archdsl.parse(spec, "deep.arch"), device="CPU", **named)


def fill(model: Model, name: str, change: Callable[[np.ndarray], None]) -> None:
    weight = model.parameters[name]
    array = weight.float().numpy().copy()
    change(array)
    weight.assign(type(weight)(array, device="CPU").cast(weight.dtype).contiguous()).realize()


def found(model: Model, batch: dict[str, Any]) -> Diagnostic:
    """The error after a step that did not move."""
    step = TrainStep(model.executable, Rule("sgd"))
    assert not step([batch], 0.1, (0, 0)).moved
    with pytest.raises(ArchError) as caught:
        report_not_finite(step, [batch], (0, 0), " in step 1")
    (diagnostic,) = caught.value.diagnostics
    return diagnostic


def line(found: Diagnostic) -> int:
    assert found.span is not None
    return found.span.line


@pytest.mark.long
def test_a_weight_that_is_nan_is_named_with_its_operator() -> None:
    deep = model(LAYERS)

    def poison(weight: np.ndarray) -> None:
        weight[2, 1] = np.nan

    fill(deep, "layer.1.wide.weight", poison)
    error = found(deep, TOKENS)
    assert error.code == "overflow"
    assert "at `layer.1.wide` gives a number that is not finite in float32 in step 1" in (
        error.message
    )
    assert "its weight `layer.1.wide.weight` has nan at [2, 1]" in str(error.found)
    assert line(error) == 2


@pytest.mark.long
def test_an_exponential_that_overflows_is_named() -> None:
    deep = model(LAYERS)

    def grow(weight: np.ndarray) -> None:
        weight[:] = np.abs(weight) * 0 + 100

    fill(deep, "embed.weight", lambda weight: np.copyto(weight, 1.0))
    fill(deep, "layer.0.wide.weight", grow)
    error = found(deep, TOKENS)
    assert "exp" in error.message
    assert "`layer.0" in error.message
    assert str(error.found).startswith("inf at [0, 0, 0]")
    assert line(error) == 2


def test_a_gradient_that_alone_is_not_finite_is_named() -> None:
    root = model(ROOT)
    fill(root, "first.weight", lambda weight: np.copyto(weight, 1.0))
    error = found(root, POINT)
    assert error.message == "the gradient of `first.weight` is not finite in float32 in step 1"
    assert "nan at [0, 0]; the gradients of the 2 weights after it are finite" in str(
        error.found
    )
    assert line(error) == 3


def test_a_gradient_whose_length_overflows_is_named() -> None:
    root = model(ROOT)
    fill(root, "first.weight", lambda weight: np.copyto(weight, 1.0))
    error = found(root, {**POINT, "x": -POINT["x"], "t": np.array([[1e19]], np.float32)})
    assert error.message.startswith("the length of the gradient is not finite in float32")
    assert "in the gradient of `last.weight`" in str(error.found)


@pytest.mark.long
def test_a_loss_in_which_nothing_counts_is_named() -> None:
    error = found(model(LAYERS), {"tokens": np.array([[1, 0, 0]], np.int32)})
    assert (error.code, error.message) == ("input", "nothing counts in the loss in step 1")


def test_finite_numbers_are_no_error() -> None:
    root = model(ROOT)
    fill(root, "first.weight", lambda weight: np.copyto(weight, 1.0))
    step = TrainStep(root.executable, Rule("sgd"))
    batch = {**POINT, "x": -POINT["x"]}
    assert step([batch], 0.1, (0, 0)).moved
    report_not_finite(step, [batch], (0, 0))
