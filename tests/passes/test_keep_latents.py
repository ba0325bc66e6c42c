"""Attention whose keys and values are linear in a small vector, which decoding keeps."""

from __future__ import annotations

import numpy as np
import pytest

import archdsl
from archdsl.analysis import analyse
from archdsl.graph.cost import cost
from archdsl.passes.split_decoding import split_decoding
from tests.reference.agreement import apart
from tests.reference.families import Reference, stepped

MODEL = """
model Latent(vocab = 30, n = 16, D = 8, H = 4) {
  input tokens: int[T <= n] < vocab
  x = tokens -> embed(vocab, D)
  q = x -> q: linear(H * 9, bias = false) -> reshape("T (H h) -> T H h", H = H)
  z, turned = x -> down: linear(7, bias = false) -> split(3, 4)
  plain, v = z -> up: linear(H * 11, bias = false)
    -> reshape("T (H h) -> T H h", H = H) -> split(5, 6)
  k = concat(turned -> rotary, plain)
  y = attend(q, k, v, causal, softcap = 3.0) -> reshape("T H h -> T (H h)")
  output logits: float[T, vocab] = y -> linear(vocab)
  loss next_token(logits, tokens)
}
"""


def states(text: str) -> list[str]:
    graph = analyse(archdsl.parse(text, "m.arch")).graph
    plan = split_decoding(graph)
    kept = sum(state.elements.at({"T": 16}) for state in plan.states)
    assert kept == cost(graph).cache_bytes // 4
    return [str(state) for state in plan.states]


def test_a_latent_and_shared_features_are_kept() -> None:
    assert states(MODEL) == ["attend.latent: float[T, H = 1, h = 7], cache of all positions"]


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("up: linear(H * 11, bias = false)", "up: linear(H * 11)"),
        ("H = 4) {", "H = 1) {"),  # too little would be saved
        ("concat(turned -> rotary, plain)", "concat(turned -> rotary, plain) -> scale(2)"),
        ("attend(q, k, v,", "attend(q, k, v -> relu,"),
        ("= y ->", '= y + (attend(k, k, v, causal) -> reshape("T H h -> T (H h)")) ->'),
    ],
)
def test_other_keys_and_values_are_kept_themselves(text: str, other: str) -> None:
    changed = MODEL.replace(text, other)
    assert changed != MODEL
    assert len(states(changed)) == 2


def test_attention_from_a_norm_without_biases() -> None:
    text = MODEL.replace(
        "  y = attend(q, k, v, causal, softcap = 3.0)",
        "  y = x -> attention(4, causal, head_size = 4, bias = false)",
    )
    text = text[: text.index("  q =")] + text[text.index("  y =") :]
    text = text.replace(", H = 4", "").replace(' -> reshape("T H h -> T (H h)")', "")
    assert states(text) == [
        "attention.attend.latent: float[T, H = 1, h = 8], cache of all positions"
    ]


@pytest.mark.long
def test_steps_compute_the_same() -> None:
    model = archdsl.compile(archdsl.parse(MODEL, "m.arch"), device="CPU", seed=1)
    tokens = np.random.default_rng(1).integers(0, 30, (2, 12))
    whole = model(tokens=tokens)["logits"].numpy()
    assert apart(stepped(model, Reference({"tokens": tokens}, {})), whole) < 1e-5
