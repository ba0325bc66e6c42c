"""Attention of several sequences at once, such as the windows of an image, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import archdsl
from archdsl.diagnostics import ArchError
from archdsl.execution.decoder import Decoder
from archdsl.graph.cost import cost
from tests.backend.test_operators import model, normal
from tests.reference.agreement import apart

Array = np.ndarray[Any, Any]
HEADS = 'reshape("W T (H h) -> W T H h", H = 2)'


def expected(x: Array, seen: Array, bias: Array | float = 0.0) -> Array:
    """Attention of x [B, W, T, 8] with itself in two heads: [B, W, T, 2, 4]."""
    q = x.reshape(*x.shape[:-1], 2, 4)
    scores = np.einsum("bwthf,bwshf->bwhts", q, q) / 2 + bias
    weights = np.exp(np.where(seen, scores, -np.inf))
    return np.einsum("bwhts,bwshf->bwthf", weights / weights.sum(-1, keepdims=True), q)


ATTENTION = {
    "attend(q, q, q)": "",
    "attend(q, q, q, bias = bias, mask = causal | same(rows))": "same or causal, bias",
    "attend(q, q, q, bias = own)": "own",
    "mix(scores(q, q) -> softmax(mask = same(rows)), q)": "same",
}


@pytest.mark.parametrize(
    "written",
    [
        pytest.param(each, marks=[pytest.mark.slow] * (i > 0))
        for i, each in enumerate(ATTENTION)
    ],
)
def test_each_window_sees_itself(written: str) -> None:
    x, bias, own = normal(2, 3, 6, 8), normal(2, 2, 6, 6), normal(2, 3, 2, 6, 6)
    rows = np.random.default_rng(0).integers(0, 2, (2, 3, 6))
    given = {"x": x, "rows": rows, "bias": bias, "own": own}
    found = model(f"""
        input x: float[3, 6, 8]
        {"input rows: int[3, 6] < 2" if "rows" in written else ""}
        {"input bias: float[2, 6, 6]" if "= bias" in written else ""}
        {"input own: float[3, 2, 6, 6]" if "own" in written else ""}
        q = x -> {HEADS}
        output y: float[3, 6, 2, 4] = {written}
    """)
    given = {each.name: given[each.name] for each in found.graph.inputs}
    same = (rows[..., None] == rows[..., None, :])[:, :, None]  # [B, W, 1, T, S]
    right = {
        "same or causal, bias": expected(x, same | np.tri(6, dtype=bool), bias[:, None]),
        "": expected(x, np.ones((6, 6), bool)),
        "own": expected(x, np.ones((6, 6), bool), own),
        "same": expected(x, same),
    }[ATTENTION[written]]
    assert apart(found(**given)["y"], right) < 1e-6


@pytest.mark.few(1)
@pytest.mark.parametrize("mask", ["none", "not causal | prefix(2)", "causal"])
def test_each_sequence_ignores_padding(mask: str) -> None:
    x, tokens = normal(2, 5, 3, 8), np.array([[1, 2, 3, 0, 0], [1, 2, 3, 4, 5]])
    y = model(f"""
        input tokens: int[T <= 8] < 9 pad 0
        input x: float[T, 3, 8]
        q = x -> reshape("T W D -> W T D") -> {HEADS}
        output y: float[3, T, 2, 4] = attend(q, q, q, mask = {mask})
    """)(tokens=tokens, x=x)["y"].numpy()
    seen = np.tri(5, dtype=bool)
    seen = {"none": seen | True, "causal": seen}.get(mask, ~seen | (np.arange(5) < 2))
    for row, length in enumerate((3, 5)):
        windows = x[row : row + 1, :length].transpose(0, 2, 1, 3)
        right = expected(windows, seen[:length, :length])
        assert apart(y[row : row + 1, :, :length], right) < 1e-6


@pytest.mark.slow
def test_attention_with_projections_in_each_window() -> None:
    """As of windows that are examples of a batch."""
    spec = archdsl.parse("""
        model M(W = 3) {
          input x: float[W, 6, 8]
          input seen: bool[W, 6]
          output y: float[W, 6, 8] = x -> attention(2, over = x * 2, mask = causal | keys(seen))
          expect flops() == W * (2 * 4 * 6 * 8 * 8 + 2 * 2 * 6 * 6 * 8)
        }
    """)
    x, seen = normal(2, 3, 6, 8), np.random.default_rng(0).integers(0, 2, (2, 3, 6)) > 0
    windows = archdsl.compile(spec, seed=1)(x=x, seen=seen)["y"].numpy()
    one = archdsl.compile(spec, W=1, seed=1)
    rows = one(x=x.reshape(6, 1, 6, 8), seen=seen.reshape(6, 1, 6))["y"].numpy()
    assert apart(windows, rows.reshape(2, 3, 6, 8)) < 1e-6


def test_windows_cost_less_than_the_image() -> None:
    found = archdsl.parse("""
        model M(W = 1) {
          input x: float[W, 36 // W, 2, 4]
          output y: float[W, 36 // W, 2, 4] = attend(x, x, x)
        }
    """)
    whole, windows = (archdsl.compile(found, W=each).graph for each in (1, 4))
    assert cost(whole).flops == 4 * cost(windows).flops == 36 * 36 * 2 * 2 * 8


def test_windows_of_a_mask_must_fit() -> None:
    with pytest.raises(ArchError, match="a tensor of `same` does not fit"):
        model("""
            input x: float[3, 6, 2, 4]
            input rows: int[4, 6] < 2
            output y: float[3, 6, 2, 4] = attend(x, x, x, mask = same(rows))
        """)


@pytest.mark.parametrize("pattern", ["T W H h -> W T H h", "T W H h -> T W H h"])
def test_several_sequences_are_not_decoded(pattern: str) -> None:
    back = pattern.replace("->", "<-").partition(" <- ")
    found = model(f"""
        input tokens: int[T <= 8] < 9
        q = tokens -> embed(9, 24) -> reshape("T (W H h) -> T W H h", W = 3, H = 2)
        w = q -> reshape("{pattern}")
        y = attend(w, w, w, causal) -> reshape("{back[2]} -> {back[0]}")
        output logits: float[T, 9] = y -> reshape("T W H h -> T (W H h)") -> linear(9)
        loss next_token(logits, tokens)
    """)
    with pytest.raises(ArchError, match="attend is over several sequences at once"):
        Decoder(found.executable, rows=1)


def test_attention_of_several_sequences_is_not_decoded() -> None:
    found = model("""
        input tokens: int[T <= 8] < 9
        x = tokens -> embed(9, 24) -> reshape("T (W D) -> W T D", W = 3) -> attention(2, causal)
        output logits: float[T, 9] = x -> reshape("W T D -> T (W D)") -> linear(9)
        loss next_token(logits, tokens)
    """)
    with pytest.raises(ArchError, match="attend is over several sequences at once"):
        Decoder(found.executable, rows=1)
