"""Attention under masks, in a whole model and step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import archdsl
from archdsl.diagnostics import ArchError
from archdsl.execution.decoder import Decoder
from archdsl.passes import select_kernels
from tests.reference.agreement import apart
from tests.suite import some

Array = NDArray[Any]
RANDOM = np.random.default_rng(5)

MODEL = """
block seen(x: float[T, D], mask = none): float[T, D] {{
  q = x -> q: linear(D) -> reshape("T (H h) -> T H h", H = 4)
  k = x -> k: linear(D // 2) -> reshape("T (H h) -> T H h", H = 2)
  x + (attend(q, k, k, mask = mask, softcap = 3.0) -> reshape("T H h -> T (H h)"))
}}

model M(vocab = 20, D = 24) {{
  input tokens: int[T <= 90] < vocab
  input kinds: int[T] < 3 = 0
  init normal(std = 0.4)
  facts = causal & same(kinds)
  x = tokens -> embed(vocab, D) -> h: {{ seen({mask}) -> seen(within(1) | facts) }} * 2
  output logits: float[T, vocab] = x -> linear(vocab)
  loss next_token(logits, tokens)
}}
"""
MASKS = ("causal & (within(5) | prefix(3))", "causal & chunk(8)", "causal & not within(4)")
MASKS += ("causal & within(7)", "causal & within(40) & chunk(9)", "causal", "facts & within(9)")
BY = ("tinygrad", "kernels")


@pytest.mark.parametrize("by", some(BY, "kernels"))
@pytest.mark.parametrize("mask", some(MASKS, MASKS[0]))
def test_steps_see_what_the_whole_sees(
    mask: str, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by == "tinygrad":
        monkeypatch.setattr(select_kernels, "KERNELS", ())
    model = archdsl.compile(archdsl.parse(MODEL.format(mask=mask)), device="CPU", seed=3)
    tokens, kinds = RANDOM.integers(0, 20, (2, 45)), RANDOM.integers(0, 3, (2, 45))
    whole = model(tokens=tokens, kinds=kinds)["logits"].numpy()
    decoder = Decoder(model.executable, rows=2)
    decoder.begin()
    cuts = (1, 4, 5, 20)
    pieces = zip(np.split(tokens, cuts, 1), np.split(kinds, cuts, 1), strict=True)
    found = [decoder.feed(piece, kinds=also) for piece, also in pieces]
    assert apart(np.concatenate(found, 1), whole) < 1e-5


@pytest.mark.parametrize("mask", some(MASKS[:4], MASKS[0]))
def test_a_row_with_padding_at_its_left(mask: str) -> None:
    text = MODEL.format(mask=mask).replace("input kinds: int[T] < 3 = 0", "")
    text = text.replace("facts = causal & same(kinds)", "facts = causal")
    model = archdsl.compile(archdsl.parse(text), device="CPU", seed=3)
    tokens, lengths = RANDOM.integers(0, 20, (2, 45)), (5, 13)
    whole = model(tokens=tokens)["logits"].numpy()

    def behind(values: Array, start: int, end: int) -> Array:
        return np.stack([values[i, n + start : n + end] for i, n in enumerate(lengths)])

    decoder = Decoder(model.executable, rows=2)
    decoder.begin()
    found = [decoder.prefill([tokens[i, :n].tolist() for i, n in enumerate(lengths)])[:, None]]
    found += [decoder.feed(behind(tokens, *piece)) for piece in ((0, 2), (2, 15))]
    assert apart(np.concatenate(found, 1), behind(whole, -1, 15)) < 1e-5


TALK = """
block mixed_heads(x: float[H, T, S]): float[H, T, S] {
  x -> reshape("H T S -> T S H") -> linear(H) -> reshape("T S H -> H T S")
}

block talking(x: float[T, D], heads, seen = causal): float[T, D] {
  q = x -> q: linear(D) -> reshape("T (H h) -> T H h", H = heads)
  k = x -> k: linear(D // 2) -> reshape("T (H h) -> T H h", H = heads // 2)
  shares = scores(q, k) -> before: mixed_heads -> softmax(mask = seen) -> after: mixed_heads
  x + (mix(shares, k, mask = seen) -> reshape("T H h -> T (H h)"))
}

model Talking(vocab = 20, D = 16) {
  input tokens: int[T <= 40] < vocab
  init normal(std = 0.4)
  x = tokens -> embed(vocab, D) -> h: talking(4, causal & within(9)) * 2
  output logits: float[T, vocab] = x -> linear(vocab)
  loss next_token(logits, tokens)
}
"""


@pytest.mark.long
def test_talking_heads_step_by_step() -> None:
    model = archdsl.compile(archdsl.parse(TALK), device="CPU", seed=3)
    tokens = RANDOM.integers(0, 20, (2, 24))
    whole = model(tokens=tokens)["logits"].numpy()
    changed = tokens.copy()
    changed[:, 15] = (changed[:, 15] + 1) % 20
    moved = abs(model(tokens=changed)["logits"].numpy() - whole).max((0, 2))
    assert (moved[:15] == 0).all()
    assert (moved[15:] > 0).all()
    decoder = Decoder(model.executable, rows=2)
    decoder.begin()
    found = [decoder.feed(piece) for piece in np.split(tokens, (1, 4, 5), 1)]
    assert apart(np.concatenate(found, 1), whole) < 1e-5


def test_a_prefix_that_is_seen_as_a_whole_is_not_fed_in_steps() -> None:
    text = """
        use "blocks.arch"
        model M(vocab = 20, D = 16) {
          input tokens: int[T <= 60] < vocab
          x = tokens -> embed(vocab, D) -> prepend(a) -> prepend(b)
          seen = x -> attention(2, mask = causal | prefix(2))
          output logits: float[T, vocab] = seen -> slice(T, 2) -> linear(vocab)
          loss next_token(logits, tokens)
        }
    """
    model = archdsl.compile(archdsl.parse(text), device="CPU")
    with pytest.raises(ArchError, match="sees a prefix as a whole") as refused:
        Decoder(model.executable, rows=1)
    assert refused.value.diagnostics[0].code == "not-causal"


@pytest.mark.slow
@pytest.mark.parametrize("mask", ["causal", "none"])
def test_a_softmax_with_a_sink_is_that_of_attention(mask: str) -> None:
    """Also of several sequences, W."""
    model = archdsl.compile(
        archdsl.parse(f"""
        model M() {{
          input q: float[W <= 3, T <= 9, 4, 6]
          input s: float[4]
          output whole: float[W, T, 4, 6] = attend(q, q, q, mask = {mask}, sink = s)
          output parts: float[W, T, 4, 6] =
            mix(scores(q, q) -> softmax(mask = {mask}, sink = s), q, mask = {mask})
        }}
        """)
    )
    q, sink = (RANDOM.standard_normal(n).astype(np.float32) for n in ((2, 3, 9, 4, 6), (2, 4)))
    found = {name: each.numpy() for name, each in model(q=q, s=sink).items()}
    assert apart(found["parts"], found["whole"]) < 1e-5


def test_a_mask_of_data_and_a_sink() -> None:
    model = archdsl.compile(
        archdsl.parse("""
        model M() {
          input q: float[T <= 9, 4, 6]
          input k: float[S <= 7, 2, 6]
          input a: int[T]
          input b: int[S]
          input there: bool[S]
          input all: bool[T]
          input pairs: bool[T, S]
          input s: float[4]
          output y: float[T, 4, 6] =
            attend(q, k, k, mask = (same(a, b) | queries(all) | pairs) & keys(there), sink = s)
        }
        """)
    )
    shapes = ((2, 9, 4, 6), (2, 7, 2, 6), (2, 4))
    q, k, sink = (RANDOM.standard_normal(shape).astype(np.float32) for shape in shapes)
    a, b = RANDOM.integers(0, 3, (2, 9)), RANDOM.integers(0, 3, (2, 7))
    there, all, pairs = (RANDOM.random((2, *n)) < 0.5 for n in ((7,), (9,), (9, 7)))
    found = model(q=q, k=k, a=a, b=b, there=there, all=all, pairs=pairs, s=sink)["y"].numpy()
    seen = (a[:, :, None] == b[:, None]) | all[:, :, None] | pairs
    seen = (seen & there[:, None])[:, None]
    keys = np.repeat(k, 2, 2)
    shares = np.exp(np.einsum("bthd,bshd->bhts", q, keys) / np.sqrt(6)) * seen
    shares = shares / (shares.sum(-1, keepdims=True) + np.exp(sink)[:, :, None, None])
    assert apart(found, np.einsum("bhts,bshd->bthd", shares, keys)) < 1e-5
