"""Layers that know their number, and weights with several uses, against models written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import archdsl
from archdsl.graph.nodes import Stack

SPEC = """
block layer(x: float[T, D], hidden, act = relu): float[T, D] {
  x + (x -> norm -> mlp(hidden, D, act))
}
model M(D = 6) {
  input x: float[T <= 5, D]
  y = x -> BODY
  output z: float[D] = y -> mean
  loss cross_entropy(z, label: int < D)
}
"""
NUMBERED = "h: layer(4 + i // 2, act = gelu if i % 2 == 1 else relu) * 4 as i"
ONE_BY_ONE = "h0: layer(4) -> h1: layer(4, gelu) -> h2: layer(5) -> h3: layer(5, gelu)"
REUSED = "h: layer(4) -> s: layer(5, act = gelu) * 3 tied -> tied(h) -> tied(s, act = relu)"
COPIES = (
    "h0: layer(4) -> a: layer(5, gelu) -> b: layer(5, gelu) -> c: layer(5, gelu) -> "
    "h1: layer(4) -> d: layer(5) -> e: layer(5) -> f: layer(5)"
)

RANDOM = np.random.default_rng(4)
INPUTS = {"x": RANDOM.standard_normal((2, 5, 6)), "label": RANDOM.integers(6, size=2)}


def compiled(body: str) -> archdsl.Model:
    return archdsl.compile(archdsl.parse(SPEC.replace("BODY", body)), device="CPU", seed=1)


def results(model: archdsl.Model) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    """The output, and the gradient of each weight."""
    out = model(x=INPUTS["x"])["z"].numpy()
    model.loss(**INPUTS).backward()
    return out, {name: each.grad.numpy() for name, each in model.parameters.items()}


@pytest.mark.long
def test_layers_with_numbers_are_these_layers() -> None:
    numbered, plain = compiled(NUMBERED), compiled(ONE_BY_ONE)
    (stack,) = (node for node in numbered.graph.nodes if isinstance(node, Stack))
    assert (len(stack.bodies), stack.kinds) == (4, (0, 1, 2, 3))
    names = {name: name.replace("h.", "h", 1) for name in numbered.parameters}
    assert {*names.values()} == {*plain.parameters}
    for name, other in names.items():
        plain.parameters[other].assign(numbered.parameters[name].numpy())
    (out, gradients), (right, others) = results(numbered), results(plain)
    assert np.allclose(out, right, atol=1e-6)
    for name, other in names.items():
        assert np.allclose(gradients[name], others[other], atol=1e-6)


@pytest.mark.long
def test_a_weight_with_several_uses_gets_the_sum_of_their_gradients() -> None:
    reused, copies = compiled(REUSED), compiled(COPIES)
    uses = {"h": ("h0", "h1"), "s": tuple("abcdef")}
    names = {
        name: [f"{use}.{name.partition('.')[2]}" for use in uses[name.partition(".")[0]]]
        for name in reused.parameters
    }
    assert {each for several in names.values() for each in several} == {*copies.parameters}
    for name, several in names.items():
        for each in several:
            copies.parameters[each].assign(reused.parameters[name].numpy())
    (out, gradients), (right, others) = results(reused), results(copies)
    assert np.allclose(out, right, atol=1e-6)
    for name, several in names.items():
        assert np.allclose(gradients[name], sum(others[each] for each in several), atol=1e-6)
