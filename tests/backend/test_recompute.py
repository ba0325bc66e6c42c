"""Layers that are computed again for the gradient, and replayed: gradients of products."""

from __future__ import annotations

import numpy as np
import pytest
from tinygrad import Tensor

from archdsl.backend.program import Program
from archdsl.backend.recompute import Tape
from archdsl.backend.tensors import zeros

LONG = pytest.mark.long


def number(value: float) -> Tensor:
    return Tensor(np.array([value], np.float32), device="CPU").realize()


@pytest.mark.parametrize("kinds", [[0, 1, 1, 0, 1, 0], pytest.param([0] * 5, marks=LONG)])
def test_gradients_of_products(kinds: list[int]) -> None:
    """x_(i + 1) = x_i w_i + (1 + kind) m, where x_0 = 2 a and m = 3 a; the loss is x_n a."""
    count = len(kinds)
    weights = {f"w{i}": number(i + 2) for i in range(count)} | {"a": number(5), "b": number(7)}
    gradients = {path: zeros((1,), "CPU", "float32") for path in weights}
    traced: list[int] = []

    def differentiated(two: Tensor) -> Tensor:
        tape = Tape(weights, gradients, "CPU")
        start, memory = weights["a"] * two, tape.cut(weights["a"] * 3)

        def trace(i: int, x: Tensor) -> Tensor:
            traced.append(i)
            return x * weights[f"w{i}"] + (1 + kinds[i]) * memory

        x = tape.stack(kinds, start, trace, lambda i: {"w": weights[f"w{i}"]})
        loss = (x * weights["a"]).sum()  # []
        tape.backward(loss)
        return loss.realize()

    program = Program(differentiated, "CPU")
    loss = [program(number(2)).item() for _ in range(2)]

    x, a = [10.0], 5.0
    for i, kind in enumerate(kinds):
        x.append(x[i] * (i + 2) + (1 + kind) * 15)
    assert loss == [x[count] * a] * 2
    upstream, right = a, {"a": x[count], "b": 0.0}
    for i in reversed(range(count)):
        right[f"w{i}"] = upstream * x[i]
        right["a"] += upstream * (1 + kinds[i]) * 3
        upstream *= i + 2
    right["a"] += upstream * 2
    assert {path: each.item() for path, each in gradients.items()} == right
    # Two layers of each kind, forward and backward; the others are replayed.
    assert len(traced) == 4 * len(set(kinds))
