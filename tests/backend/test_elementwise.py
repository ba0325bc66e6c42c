"""Elementwise operators, broadcast by the names of axes, and trained tensors, against NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import archdsl
from archdsl.execution.decoder import Decoder
from archdsl.graph.rules import FUNCTIONS
from tests.backend.test_operators import filled, model, normal
from tests.reference.agreement import apart

Array = NDArray[Any]


def test_axes_are_matched_by_name() -> None:
    x, v, s, w = normal(2, 5, 3, 4), normal(2, 4), normal(2, 5), normal(2, 4, 5)
    one = normal(2)
    found = model("""
        H = 3
        E = 4
        input x: float[T <= 9, H, E]
        input v: float[E]
        input s: float[T]
        input w: float[E, T]
        input one: float
        output a: float[T, H, E] = x + v
        output b: float[T, H, E] = v - x
        output c: float[T, H, E] = x * s
        output d: float[T, H, E] = x * w
        output e: float[T, H, E] = w / exp(x)
        output f: float[T, H, E] = one * x + one
        output g: float[E, T] = w + (w -> reshape("E T -> T E"))
        output h: float[T, H, 2 * E] = concat(v, x)
    """)(x=x, v=v, s=s, w=w, one=one)
    v_, s_, w_ = v[:, None, None], s[:, :, None, None], w.swapaxes(1, 2)[:, :, None]
    one_ = one.reshape(-1, 1, 1, 1)
    right = {"a": x + v_, "b": v_ - x, "c": x * s_, "d": x * w_, "e": w_ / np.exp(x)}
    right |= {"f": one_ * x + one_, "g": 2 * w}
    right["h"] = np.concatenate([np.broadcast_to(v_, x.shape), x], -1)
    for name, each in right.items():
        assert apart(found[name], each) < 1e-6, name


def test_whole_numbers_times_a_fraction_are_float() -> None:
    x = np.array([[3, 0, 6]], dtype=np.int32)
    found = model("""
        input x: int[3] < 9
        output a: float[3] = x * 0.5 + 1
        output b: float[3] = log(x // 2 * 1.0 + 1)
    """)(x=x)
    assert apart(found["a"], x * 0.5 + 1) < 1e-6
    assert apart(found["b"], np.log(x // 2 + 1)) < 1e-6


def test_numbers_join() -> None:
    x = np.abs(normal(2, 3)) + 0.5
    found = model("""
        input x: float[3]
        output a: float[3] = 1 - x / 4 - -x
        output b: float[3] = 2 / x + 3 * x - 0.5
        output c: float[3] = 1 / x
        output d: float[3] = sqrt(x) + sqrt(16)
        output e: float[3] = x -> sqrt
    """)(x=x)
    right = {"a": 1 + 0.75 * x, "b": 2 / x + 3 * x - 0.5, "c": 1 / x}
    right |= {"d": np.sqrt(x) + 4, "e": np.sqrt(x)}
    for name, each in right.items():
        assert apart(found[name], each) < 1e-6, name


def test_comparisons(tmp_path: Path) -> None:
    x, v, ids = normal(2, 5, 4), normal(2, 4), np.array([[3, 1, 3, 0, 0], [2, 3, 1, 1, 3]])
    found = model("""
        input ids: int[T <= 9] < 7 pad 0
        input x: float[T, 4]
        input v: float[4]
        three = ids == 3
        output a: float[T, 4] = x * three
        output b: float[T, 4] = (x -> linear(4, bias = false)) * (ids != 3) * (v <= x)
        output c: float = three -> mean
        output d: int = three -> sum
        output e: bool[T, 4] = x > v
        output f: int[T] = positions(T) * (2 <= ids)
        output g: bool[T] = (positions(T) >= 1) * (ids < positions(T))
    """)
    weight = normal(4, 4)
    found = filled(found, {"linear.weight": weight}, tmp_path)(ids=ids, x=x, v=v)
    three, at, v_ = ids == 3, np.arange(5), v[:, None]
    right = {"a": x * three[..., None], "c": np.array([2 / 3, 2 / 5]), "d": np.array([2, 2])}
    right["b"] = x @ weight.T * (ids != 3)[..., None] * (v_ <= x)
    right |= {"e": x > v_, "f": at * (ids >= 2), "g": (at >= 1) & (ids < at)}
    kept = (ids != 0).reshape(2, 5)
    for name, each in right.items():
        mine = found[name].numpy()
        padded = mine.ndim > 1
        assert apart(mine[kept] if padded else mine, each[kept] if padded else each) < 1e-6, (
            name
        )


def test_functions_of_each_number() -> None:
    x = np.abs(normal(2, 30)) + 0.1
    lines = [f"output {name}_: float[30] = x -> {name}" for name in FUNCTIONS]
    found = model("\n".join(["input x: float[30]", *lines]))(x=x)
    right = {name: getattr(np, name) for name in ("exp", "log", "sqrt", "reciprocal")}
    right |= {name: getattr(np, name) for name in ("abs", "sin", "cos")}
    right["softplus"] = lambda x: np.log1p(np.exp(x))
    assert right.keys() == FUNCTIONS.keys()
    for name, function in right.items():
        assert apart(found[f"{name}_"], function(x)) < 1e-6, name
    large = model("input x: float[2]\noutput y: float[2] = x -> softplus")
    assert large(x=np.array([[200.0, -200.0]]))["y"].numpy().tolist() == [[200, 0]]


# -- trained tensors --

WEIGHTS = """
    D = 4
    input x: float[T <= 9, D]
    weight drawn: float[3, D]
    weight wide: float[200, D] = normal(std = 3)
    weight zero: float[D] = zeros
    weight one: float[D] = ones
    weight half: float = 0.5
    output y: float[T, D] = half * x + zero * one
    output table: float[3, D] = drawn
    output mixed: float[3, D] = drawn -> linear(D)
    output large: float[200, D] = wide * 1
"""


def test_how_weights_start(tmp_path: Path) -> None:
    found, x = model(WEIGHTS), normal(2, 5, 4)
    out = found(x=x)
    assert apart(out["y"], x / 2) == 0
    weights = {path: each.numpy() for path, each in found.parameters.items()}
    shapes = {path: each.shape for path, each in weights.items()}
    assert shapes == {
        "drawn": (3, 4), "wide": (200, 4), "zero": (4,), "one": (4,), "half": (),
        "linear.weight": (4, 4), "linear.bias": (4,),
    }  # fmt: skip
    assert (weights["zero"] == 0).all()
    assert (weights["one"] == 1).all()
    assert weights["half"] == 0.5
    assert 0.005 < weights["drawn"].std() < 0.04
    assert 2.7 < weights["wide"].std() < 3.3
    # The same for each example.
    assert out["table"].shape == (2, 3, 4)
    assert (out["table"].numpy() == weights["drawn"]).all()
    assert (out["large"].numpy() == weights["wide"]).all()
    right = weights["drawn"] @ weights["linear.weight"].T
    assert apart(out["mixed"], np.stack([right, right])) < 1e-6
    other = {path: normal(*each.shape) for path, each in weights.items()}
    again = filled(model(WEIGHTS), other, tmp_path)(x=x)
    assert apart(again["y"], other["half"] * x + other["zero"] * other["one"]) < 1e-6


def test_a_weight_that_a_condition_leaves_out_does_not_exist() -> None:
    found = model("""
        wanted = false
        input x: float[4]
        weight bias: float[4] = zeros
        output y: float[4] = x + bias if wanted else x
    """)
    assert not found.weights


def test_gradients_of_weights() -> None:
    x, label = normal(2, 5, 4), np.array([1, 3])
    found = model("""
        D = 4
        input x: float[T <= 9, D]
        weight gain: float[D] = 0.5
        weight shared: float[D] = zeros
        weight sharp: float = 1
        output logits: float[D] = (x * (1 + gain) + shared) * exp(sharp) -> mean
        loss cross_entropy(logits, label: int < D)
    """)
    found.loss(x=x, label=label).backward()
    logits = np.e * 1.5 * x.mean(1)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    slope = (p - np.eye(4)[label]) / 2
    right = {
        "gain": (slope * np.e * x.mean(1)).sum(0),
        "shared": np.e * slope.sum(0),
        "sharp": (slope * logits).sum(),
    }
    for path, each in right.items():
        gradient = found.parameters[path].grad
        assert gradient is not None
        assert apart(gradient.numpy()[None], np.asarray(each)[None]) < 1e-5, path


@pytest.mark.long
def test_latents_look_at_an_input() -> None:
    """A value of weights alone in a stack, in attention and behind it."""
    found = model("""
        D = 4
        input x: float[T <= 9, D]
        weight latents: float[3, D]
        output y: float[3, D] = latents -> look: { attention(2, over = x) -> norm } * 3
    """)
    x = normal(2, 5, 4)
    both, one = found(x=x)["y"].numpy(), found(x=x[1:])["y"].numpy()
    assert both.shape == (2, 3, 4)
    assert apart(both[1:], one) < 1e-5
    assert apart(both[:1], one) > 1e-3


# -- blocks of the library --

BLOCKS = """
use "blocks.arch"
model M() {
  input x: float[T <= 9, 4]
  input a: float[4]
  input b: float[4]
  output small: float[T, 4] = x -> layer_scale
  output half: float[T, 4] = x -> half: layer_scale(0.5)
  output same: float[T, 4] = x -> add_bias
  output sums: float = dot(a, b)
  output y: float[4] = a -> logit_scale
  output cool: float[4] = a -> cool: logit_scale(0)
}
"""


def test_blocks_with_weights(tmp_path: Path) -> None:
    first = archdsl.compile(archdsl.parse(BLOCKS))
    x, a, b = normal(2, 5, 4), normal(2, 4), normal(2, 4)
    found = {name: out.numpy() for name, out in first(x=x, a=a, b=b).items()}
    sums = (a * b).sum(-1)
    assert apart(found["small"], 1e-5 * x) < 1e-6
    assert (found["half"] == x / 2).all()
    assert (found["same"] == x).all()
    assert apart(found["sums"], sums) < 1e-6
    assert apart(found["y"], np.exp(2.6592) * a) < 1e-6
    assert apart(found["cool"], a) < 1e-6
    weights = {"add_bias": (4,), "layer_scale": (4,), "half": (4,), "logit_scale": ()}
    weights = {f"{name}.weight": normal(*shape) for name, shape in weights.items()}
    weights["cool.weight"] = normal()
    # A weight of no axes is kept like any other.
    filled(first, weights, tmp_path).save(tmp_path / "saved.safetensors")
    second = archdsl.compile(archdsl.parse(BLOCKS))
    second.load(tmp_path / "saved.safetensors")
    again = second(x=x, a=a, b=b)
    assert apart(again["y"], np.exp(weights["logit_scale.weight"]) * a) < 1e-5
    assert apart(again["same"], x + weights["add_bias.weight"]) < 1e-6


DECODED = """
block scaled(x: float[T, D]): float[T, D] {
  weight weight: float[D] = 0.1
  weight shared: float[D, D]
  (x -> norm(rms, scale = false)) * (1 + weight) + (shared -> linear(D) -> mean)
}
model M(vocab = 11, D = 8, depth = 3) {
  input tokens: int[T <= 16] < vocab
  weight latents: float[4, D] = normal(std = 0.5)
  weight s: float
  h = tokens -> embed(vocab, D) -> first: scaled
    -> h: { scaled -> attention(2, causal) } * depth -> tied(first)
  bias = latents -> linear(D) -> mean
  output logits: float[T, vocab] = h / (2 - s) + bias - s -> linear(vocab)
  loss next_token(logits, tokens)
}
"""


def test_values_of_weights_in_a_decoding_step() -> None:
    made = archdsl.compile(archdsl.parse(DECODED), seed=1)
    tokens = np.random.default_rng(0).integers(0, 11, (3, 7))
    decoder = Decoder(made.executable, rows=3)
    # What depends on no input is computed in each step, but matrix products outside of stacks.
    once = [state.name for state in decoder.plan.states if not state.cache]
    assert once == ["first_mean", "first_mean_2", "mean"]
    whole = made(tokens=tokens)["logits"].numpy()
    steps = [decoder.feed(tokens[:, i : i + n]) for i, n in ((0, 3), (3, 1), (4, 3))]
    assert apart(np.concatenate(steps, 1), whole) < 1e-5


@pytest.mark.long
def test_adapters(tmp_path: Path) -> None:
    made = archdsl.compile(
        archdsl.parse("""
use "adapters.arch"
model M() {
  input x: float[T <= 9, 4]
  output y: float[T, 3] = x -> lora(3, rank = 2, alpha = 3)
  output longer: float[T + 2, 4] = x -> prompt(2)
  output z: float[T, 4] = x -> ia3
}
""")
    )
    x = normal(2, 5, 4)
    assert (made.parameters["lora.up"].numpy() == 0).all()
    assert (made(x=x)["z"].numpy() == x).all()
    w = {path: normal(*each.shape) for path, each in made.parameters.items()}
    out = filled(made, w, tmp_path)(x=x)
    low = w["lora.up"] @ w["lora.down.weight"]
    right = x @ (w["lora.linear.weight"] + 1.5 * low).T + w["lora.linear.bias"]
    assert apart(out["y"], right) < 1e-5
    prompt = np.stack([w["prompt.weight"]] * 2)
    assert apart(out["longer"], np.concatenate([prompt, x], 1)) == 0
    assert apart(out["z"], x * w["ia3.weight"]) < 1e-6
