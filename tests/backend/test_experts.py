"""Mixtures of experts against NumPy: whole, in steps, in training, of other blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import archdsl
from archdsl.analysis import analyse
from archdsl.describe.compare import difference
from archdsl.describe.expand import expand
from archdsl.model import Model
from tests.backend.test_operators import model, normal
from tests.reference.agreement import apart

ROUTED = """
use "blocks.arch"
model M(vocab = 11, E = 3, D = 32, hidden = 64, chosen = 2) {
  input tokens: int[T <= 99] < vocab
  x = tokens -> embed(vocab, D) -> norm(l2) -> scale(6)
  scores = x -> router: linear(E, bias = false) -> softmax
  y = x -> experts: mixture(scores * top(scores, chosen), gated_mlp(hidden, bias = true))
  output logits: float[T, vocab] = y -> unembed(embed)
  loss next_token(logits, tokens)
}
"""


def routed(**settings: Any) -> Model:
    return archdsl.compile(archdsl.parse(ROUTED), seed=1, device="CPU", **settings)


def right(found: Model, tokens: np.ndarray, chosen: int, only: int | None = None) -> np.ndarray:
    """The logits, each vector and each chosen expert by itself; or of one expert for all."""
    weights = {name: w.numpy().astype(float) for name, w in found.parameters.items()}
    x = weights["embed.weight"][tokens]
    x = 6 * x / np.linalg.norm(x, axis=-1, keepdims=True)
    scores = np.exp(x @ weights["router.weight"].T)
    scores /= scores.sum(-1, keepdims=True)
    out = np.zeros_like(x)
    for at in np.ndindex(tokens.shape):
        largest = np.argsort(-scores[at], kind="stable")[:chosen]
        for e in largest if only is None else [only]:

            def linear(name: str, of: np.ndarray, e: int = e) -> Any:
                path = f"experts.{e}.{name}"
                return of @ weights[f"{path}.weight"].T + weights[f"{path}.bias"]

            gate = linear("gate", x[at])
            hidden = gate / (1 + np.exp(-gate)) * linear("up", x[at])
            out[at] += scores[at][e] * linear("down", hidden)
    return out @ weights["embed.weight"].T


@pytest.mark.few(1)
@pytest.mark.parametrize(("kernels", "length"), [("best", 4), ("best", 40), ("tinygrad", 4)])
def test_whole_and_in_steps(kernels: str, length: int) -> None:
    found = routed(kernels=kernels)
    tokens = np.random.default_rng(0).integers(0, 11, (2, length))
    logits = right(found, tokens, 2)
    assert apart(found(tokens=tokens)["logits"], logits) < 1e-5
    decoder = found.decoder(2)
    parts = [decoder.feed(tokens[:, :-1]), decoder.feed(tokens[:, -1:])]
    assert apart(np.concatenate(parts, 1), logits) < 1e-5


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("length", "dtype"), [(1, "float32"), (30, "float32"), (7, "bfloat16")]
)
def test_only_the_chosen_experts_are_computed(length: int, dtype: str) -> None:
    found = routed(chosen=1, dtype=dtype)
    tokens = np.full((1, length), 3)  # one token chooses one expert
    before = found(tokens=tokens)["logits"].numpy()
    at = [right(found, tokens, 1, e) for e in range(3)]
    chosen = int(np.argmin([apart(each, before) for each in at]))
    assert apart(at[chosen], before) < (1e-5 if dtype == "float32" else 0.05)
    for name, weight in found.parameters.items():
        if name.startswith("experts.") and int(name.split(".")[1]) != chosen:
            weight.assign(weight.full_like(np.nan)).realize()
    assert apart(found(tokens=tokens)["logits"], before) == 0


@pytest.mark.long
def test_an_expert_that_is_not_chosen_learns_nothing() -> None:
    found = routed(chosen=1)
    tokens = np.array([[3, 3]])
    found.loss(tokens=tokens).backward()
    learned = {
        path.split(".")[1]
        for path, weight in found.parameters.items()
        if path.endswith("down.weight")
        and weight.grad is not None
        and weight.grad.numpy().any()
    }
    assert len(learned) == 1
    router = found.parameters["router.weight"]
    assert router.grad is not None
    assert router.grad.numpy().any()


def test_all_gates_count_if_none_is_chosen_by_top() -> None:
    found = model("""
        input x: float[T <= 9, 4]
        input g: float[T, 3]
        output y: float[T, 6] = x -> mixture(g, linear(6))
    """)
    x, g = normal(2, 5, 4), normal(2, 5, 3)
    parts = [
        found.parameters[f"mixture.{e}.{n}"].numpy()
        for e in range(3)
        for n in ("weight", "bias")
    ]
    out = sum(g[..., e : e + 1] * (x @ parts[2 * e].T + parts[2 * e + 1]) for e in range(3))
    assert apart(found(x=x, g=g)["y"], out) < 1e-5


def test_experts_of_any_block_expand_to_the_same_graph() -> None:
    graph = analyse(
        archdsl.parse("""
        use "blocks.arch"
        block deep(x: float[T, D]): float[T, D] { x -> norm -> { mlp(5, D) } * 2 -> softmax(D) }
        model M(E = 4, D = 8) {
          input x: float[T <= 9, D]
          gates = x -> linear(E) -> softmax
          h = x -> { attention(2, causal) -> experts: mixture(gates, gated_mlp(6)) } * 2
          inner = gates * top(gates, 1)
          output y: float[T, D] = h -> a: mixture(inner, deep) -> mixture(gates, linear(D))
            -> mixture(gates, { norm -> relu })
        }
    """)
    ).graph
    again = analyse(archdsl.parse(archdsl.format(expand(graph)))).graph
    assert difference(graph, again) is None


@pytest.mark.long
def test_quantized_experts() -> None:
    plain, found = routed(), routed(quantize="int8")
    tokens = np.random.default_rng(0).integers(0, 11, (1, 6))
    assert apart(found(tokens=tokens)["logits"], plain(tokens=tokens)["logits"].numpy()) < 0.05
