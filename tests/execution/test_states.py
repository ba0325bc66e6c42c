"""States along an axis: whole sequences, steps, padding and gradients."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tinygrad import Tensor

import archdsl
from archdsl.execution.decoder import Decoder
from archdsl.graph.nodes import Scan, walk
from archdsl.graph.printer import show
from archdsl.passes import optimise

MODEL = """
use "blocks.arch"

block matrix(x: float[T, D], K = 3): float[T, D] {
  k = x -> k: linear(K)
  q = x -> q: linear(K)
  state s: float[K, D] along T = s * 0.9 + contract("K, D -> K D", k, x)
  contract("T K D, T K -> T D", s, q)
}
block cell(s: float[D], x: float[D], gate: float[D]): float[D] {
  new = s * gate + x
  new -> tanh
}
block recurrent(x: float[T, D], first: float[D]): float[T, D] {
  gate = x -> gate: linear(D) -> sigmoid
  state s: float[D] along T from first = cell(s, x, gate)
  s
}
model States(vocab = 20, n = 60, D = 4) {
  input tokens: int[T <= n] < vocab pad 0
  input first: float[D]
  h = tokens -> embed(vocab, D) -> prepend(start) -> h: matrix * 2
  output logits: float[T, vocab] = h -> recurrent(first) -> slice(T, 1) -> head: linear(vocab)
  init normal(std = 0.7)
  loss next_token(logits, tokens)
}
"""
FIRST = np.full((2, 4), 0.5, np.float32)
TOKENS = np.random.default_rng(0).integers(1, 20, (2, 40))


@functools.cache
def model() -> archdsl.Model:
    return archdsl.compile(archdsl.parse(MODEL), seed=3)


def logits(tokens: NDArray[Any]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = model()(tokens=tokens, first=FIRST[: len(tokens)])[
        "logits"
    ].numpy()
    return found


@functools.cache
def decoder() -> Decoder:
    return Decoder(model().executable, 2)


def weights() -> dict[str, NDArray[np.float64]]:
    return {name: w.numpy().astype(np.float64) for name, w in model().parameters.items()}


def test_a_state_is_what_its_update_says() -> None:
    w = weights()
    x = w["embed.weight"][TOKENS[0, :5]]
    x = np.concatenate([w["prepend.weight"].reshape(1, -1), x])

    def linear(x: NDArray[np.float64], path: str) -> NDArray[np.float64]:
        return x @ w[f"{path}.weight"].T + w[f"{path}.bias"]

    for i in range(2):
        k, q = (linear(x, f"h.{i}.{name}") for name in "kq")
        state = np.zeros((3, 4))
        rows = []
        for t in range(len(x)):
            state = 0.9 * state + np.outer(k[t], x[t])
            rows.append(q[t] @ state)
        x = np.stack(rows)
    gate = 1 / (1 + np.exp(-linear(x, "recurrent.gate")))
    s, rows = FIRST[0].astype(np.float64), []
    for t in range(len(x)):
        s = np.tanh(s * gate[t] + x[t])
        rows.append(s)
    wanted = linear(np.stack(rows)[1:], "head")
    assert np.allclose(logits(TOKENS[:1, :5])[0], wanted, atol=1e-4 * abs(wanted).max())


@pytest.mark.long
def test_padding_changes_no_state() -> None:
    padded = TOKENS[:, :6].copy()
    padded[1, 3:] = 0
    assert np.allclose(logits(padded)[1, :3], logits(TOKENS[1:, :3])[0], atol=1e-5)


def test_steps_give_what_the_whole_sequence_gives() -> None:
    steps, whole = decoder(), logits(TOKENS[:, :6])
    steps.begin(first=FIRST)
    found = [steps.feed(TOKENS[:, i:j]) for i, j in ((0, 1), (1, 4), (4, 6))]
    assert np.allclose(np.concatenate(found, 1), whole, atol=1e-4 * abs(whole).max())
    # Its end, and nothing before it, is in the state.
    assert steps.truncate(6) == 6
    assert steps.truncate(5) == 0
    assert np.allclose(steps.feed(TOKENS[:, :1]), whole[:, :1], atol=1e-4 * abs(whole).max())


def test_rows_of_other_lengths_have_their_own_states() -> None:
    steps = decoder()
    steps.begin(first=FIRST)
    rows = [list(TOKENS[0, :5]), list(TOKENS[1, :2])]
    found = steps.prefill(rows)
    for row, prompt in enumerate(rows):
        wanted = logits(np.array([prompt]))[0, -1]
        assert np.allclose(found[row], wanted, atol=1e-4 * abs(wanted).max())
    steps.reorder([1, 1])
    found = steps.feed(np.array([[4], [7]]))[:, 0]
    for row, token in enumerate((4, 7)):
        wanted = logits(np.array([[*rows[1], token]]))[0, -1]
        assert np.allclose(found[row], wanted, atol=1e-4 * abs(wanted).max())


@pytest.mark.long
def test_prompts_of_many_tokens_are_fed_in_chunks() -> None:
    steps = decoder()
    steps.begin(first=FIRST)
    rows = [list(TOKENS[0, :40]), list(TOKENS[1, :9])]
    found = steps.prefill(rows)
    for row, prompt in enumerate(rows):
        wanted = logits(np.array([prompt]))[0, -1]
        assert np.allclose(found[row], wanted, atol=1e-4 * abs(wanted).max())


def test_decoding_keeps_states_of_fixed_size() -> None:
    kept = {each.path: each for each in decoder().plan.states}
    assert str(kept["h.{}.s"]) == "h.{}.s: float[K = 3, D = 4] * 2, carried from step to step"
    assert str(kept["recurrent.s"]) == "recurrent.s: float[D = 4], carried from step to step"
    text = show(decoder().plan.step)
    assert "begin(recurrent_s, start = first, past = past)" in text


def test_what_reads_a_state_is_computed_with_it() -> None:
    graph = optimise(model().executable.graph)
    scans = [node for node, _ in walk(graph.nodes) if isinstance(node, Scan)]
    assert [str(scan.type) for scan in scans] == ["float[start:T = T + 1, D = 4]"] * 2


@pytest.mark.long
def test_gradients_are_slopes_of_the_loss() -> None:
    trained = archdsl.compile(archdsl.parse(MODEL), seed=5)
    given = {"tokens": TOKENS[:, :4], "first": FIRST}
    for path in ("h.0.k.weight", "recurrent.gate.weight"):
        weight = trained.parameters[path]
        trained.loss(**given).backward()
        assert weight.grad is not None
        slope = float(weight.grad.numpy()[1, 2])
        start = weight.numpy().copy()
        sides = []
        for step in (1e-2, -1e-2):
            moved = start.copy()
            moved[1, 2] += step
            weight.assign(Tensor(moved, device=weight.device)).realize()
            sides.append(float(trained.loss(**given).item()))
        weight.assign(Tensor(start, device=weight.device)).realize()
        assert slope == pytest.approx((sides[0] - sides[1]) / 2e-2, abs=2e-3, rel=0.02)


def test_one_head_whose_decay_is_a_number() -> None:
    spec = """
block decaying(q: float[T, H, K], v: float[T, H, V]): float[T, H, V] {
  decay = 1 - exp((positions(H) + 2) * -1.0)
  state s: float[H, K, V] along T = decay * s + contract("H K, H V -> H K V", q, v)
  contract("T H K, T H K V -> T H V", q, s)
}
model M(D = 3) {
  input x: float[T <= 20, D]
  q = x -> reshape("T (H K) -> T H K", H = 1)
  v = x -> reshape("T (H V) -> T H V", H = 1)
  output y: float[T, 1, 3] = (q, v) -> decaying
}
"""
    x = np.random.default_rng(3).normal(size=(2, 12, 3)).astype(np.float32)
    found = archdsl.compile(archdsl.parse(spec), device="CPU")(x=x)["y"].numpy()[:, :, 0]
    state = np.zeros((2, 3, 3))
    for t in range(12):
        state = state * (1 - np.exp(-2.0)) + x[:, t, :, None] * x[:, t, None]
        wanted = np.einsum("bk,bkv->bv", x[:, t], state)
        np.testing.assert_allclose(found[:, t], wanted, rtol=1e-5, atol=1e-5)
