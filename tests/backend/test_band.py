"""Attention in blocks sees the pairs that the mask has."""

from __future__ import annotations

import numpy as np
import pytest
from tinygrad import Tensor

import archdsl
from archdsl.backend import attend as attention
from archdsl.backend import band as bands
from archdsl.graph import masks
from archdsl.passes import select_kernels
from tests.execution.test_masks import MODEL
from tests.reference.agreement import apart
from tests.suite import some

RANDOM = np.random.default_rng(4)
MASKS = ("causal & within(7)", "within(6)", "chunk(9) | causal & within(3)")
MASKS += ("within(12) & same(row_1, column_1) | within(1)", "causal & chunk(8) & not within(2)")


@pytest.mark.parametrize("text", some(MASKS, MASKS[3]))
def test_the_pairs_of_a_band_are_those_of_the_mask(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bands, "_SMALLEST", 4)
    mask, T, batch, group = masks.parse(text), 161, 2, 2
    band = bands.band(mask, T)
    assert band is not None
    assert band.width < T / 2
    kinds = RANDOM.integers(0, 2, (batch, T))
    inside = np.arange(T) < np.array([[T], [90]])  # the second row has padding
    data = {name: Tensor(kinds) for name in masks.inputs(mask)}
    valid = Tensor(inside) if masks.ahead(mask) != 0 else None
    seen = band.visible(mask, batch, group, data, valid).numpy()  # [B N, 1, G C, W]
    seen = seen.reshape(batch, band.count, group, band.block, band.width)
    # A key is known by its number: position + 1, and 0 for what is outside.
    numbers = np.tile(np.arange(T, dtype=np.int32) + 1, (batch, 1))
    keys = band.keys(Tensor(numbers)).numpy().reshape(batch, band.count, band.width)
    found = np.zeros((batch, group, T, T), bool)
    for b, n, g, c, w in np.argwhere(seen):
        if (i := n * band.block + c) < T:
            found[b, g, i, keys[b, n, w] - 1] = True
    i, j = np.arange(T)[:, None], np.arange(T)
    values = {"row_1": kinds[:, :, None], "column_1": kinds[:, None]}
    wanted = masks.visible(mask, i, j, values, lambda: np.ones(1, bool))
    if valid is not None:
        wanted = wanted & inside[:, None]
    assert (found == (wanted if wanted.ndim == 2 else wanted[:, None])).all()


@pytest.mark.parametrize("text", ["causal", "causal & (within(5) | prefix(3))"])
def test_a_mask_without_bounds_has_no_band(text: str) -> None:
    assert bands.band(masks.parse(text), 5000) is None


def test_a_band_that_saves_little_is_not_used() -> None:
    mask = masks.parse("causal & within(100)")
    assert bands.band(mask, 300) is None
    assert bands.band(mask, 1000) is not None


@pytest.mark.long
def test_a_model_computes_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select_kernels, "KERNELS", ())
    text = MODEL.replace("T <= 90", "T <= 300").format(mask="causal & within(7)")
    text = text.replace("softcap = 3.0", "softcap = 3.0, sink = sink")
    text = text.replace("  q = x", "  weight sink: float[4]\n  q = x")
    tokens, kinds = RANDOM.integers(0, 20, (2, 250)), RANDOM.integers(0, 3, (2, 250))

    def logits() -> np.ndarray:
        model = archdsl.compile(archdsl.parse(text), device="CPU", seed=3)
        found: np.ndarray = model(tokens=tokens, kinds=kinds)["logits"].numpy()
        return found

    in_blocks = logits()
    monkeypatch.setattr(attention, "band", lambda *_: None)
    assert apart(in_blocks, logits()) < 1e-6
