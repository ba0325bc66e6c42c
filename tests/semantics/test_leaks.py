"""Ways to see the future, each refused at its line, and correct models that look like them.

A body stands between the vectors `x` [T, D] of the tokens and their logits. In `LEAKS` the line
that uses later positions ends with `# leak`. The bodies of `CORRECT` are decoded: a few tokens
at a time they give what all at once give.
"""

from __future__ import annotations

import numpy as np
import pytest

import archdsl
from archdsl.diagnostics import ArchError
from archdsl.execution.decoder import Decoder
from tests.specs import used_only

HEAD = """use "blocks.arch"

block see(x: float[T, D], how: block): float[T, D] {
  x + (x -> norm -> how)
}

model M(vocab = 11, D = 8, n = 24) {
  input tokens: int[T <= n] < vocab
  x = tokens -> embed(vocab, D)
"""
TAIL = """
  output logits: float[T, vocab] = h -> linear(vocab)
  loss next_token(logits, tokens)
}
"""
SUMMED = """
block summed(x: float[T, D]): float[T, D] {
  state s: float[D] along T = 0.5 * s + x
  s
}
"""
HEADS = """
  q = x -> q: linear(D) -> split_heads(2)
  k = x -> k: linear(D) -> split_heads(2)
  v = x -> v: linear(D) -> split_heads(2)
"""

LEAKS = {
    # attention
    "attention": "h = x -> attention(2)  # leak",
    "attention over itself": "h = x -> attention(2, over = x)  # leak",
    "a memory of the same tokens": """
  z = x -> linear(D)
  h = x -> attention(2, over = z)  # leak
""",
    "the second of two": """
  y = x -> attention(2, causal)
  h = y -> again: attention(2)  # leak
""",
    "in a stack": "h = x -> { attention(2) -> norm } * 2  # leak",
    "in the last layer of a block": """
  h = x -> { see(attention(2, causal)) -> see(attention(2)) } * 2  # leak
""",
    "as an argument": "h = x -> see(attention(2))  # leak",
    "the core": HEADS + "h = attend(q, k, v) -> merge_heads  # leak",
    "a bias that falls to both sides": HEADS
    + """
  near = x -> relative_bias(2)
  h = attend(q, k, v, bias = near) -> merge_heads  # leak
""",
    "alibi without causal": HEADS
    + """
  near = x -> alibi(2)
  h = attend(q, k, v, bias = near) -> merge_heads  # leak
""",
    "a bias computed from all": HEADS
    + """
  all = contract("i h c, j h c -> h i j", q, k) -> softmax(j)  # leak
  h = attend(q, k, v, causal, bias = all) -> merge_heads
""",
    # masks with an off-by-one or a wrong side
    "a window to both sides": HEADS
    + "h = attend(q, k, v, mask = within(3)) -> merge_heads  # leak",
    "a chunk": HEADS + "h = attend(q, k, v, mask = chunk(4)) -> merge_heads  # leak",
    "a prefix": HEADS + "h = attend(q, k, v, mask = causal | prefix(2)) -> merge_heads  # leak",
    "the other side": HEADS + "h = attend(q, k, v, mask = not causal) -> merge_heads  # leak",
    "one more": HEADS + "h = attend(q, k, v, mask = causal | within(2)) -> merge_heads  # leak",
    "one's own words": HEADS
    + "h = attend(q, k, v, mask = same(tokens)) -> merge_heads  # leak",
    # convolutions
    "a convolution": "h = x -> conv1d(D, 3, padding = 1)  # leak",
    "a wide convolution": "h = x -> conv1d(D, 5, padding = 2)  # leak",
    "a dilated convolution": "h = x -> conv1d(D, 3, padding = 2, dilation = 2)  # leak",
    "a strided convolution": """
  y = x -> conv1d(D, 3, causal, stride = 2)  # leak
  h = x -> attention(2, over = y)
""",
    "a depthwise convolution": "h = x -> conv1d(D, 3, padding = 1, groups = D)  # leak",
    "behind a causal one": """
  y = x -> conv1d(D, 3, causal)
  h = y -> again: conv1d(D, 3, padding = 1)  # leak
""",
    # pooling and norms along the sequence
    "softmax along the sequence": "h = x -> softmax(T)  # leak",
    "a mean of all": """
  all = x -> mean(T)  # leak
  h = x + all
""",
    "a gate of the mean": """
  gate = x -> mean -> linear(D) -> sigmoid  # leak
  h = x * gate
""",
    "the sum": """
  all = x -> sum(T)  # leak
  h = x - all
""",
    "the maximum": """
  peak = x -> max(T)  # leak
  h = x - peak
""",
    "centred along time": """
  centred = x - (x -> mean(T))  # leak
  h = centred -> linear(D)
""",
    "scaled by its length": """
  power = x * x -> mean(T)  # leak
  h = x / (power + 1)
""",
    "the last token": """
  last = x -> at_end(tokens)  # leak
  h = x + last
""",
    "the place of the largest token": """
  best = x -> at(tokens)  # leak
  h = x + best
""",
    # sorting, lookup, products
    "softmax of a transposed sequence": """
  h = x -> reshape("T D -> D T") -> softmax -> reshape("D T -> T D")  # leak
""",
    "a product over the sequence": """
  seen = contract("t c, t d -> c d", x, x)  # leak
  h = contract("t c, c d -> t d", x, seen)
""",
    "scores without a mask": """
  scores = contract("t c, s c -> t s", x, x)  # leak
  h = contract("t s, s d -> t d", scores, x)
""",
    # shifts
    "shifted to the front": """
  weight end: float[1, D]
  next = concat(x, end, T) -> slice(T, 1)  # leak
  h = x + next
""",
    "two to the front": """
  weight end: float[2, D]
  h = concat(x, end, T) -> attention(2, causal) -> slice(T, 2)  # leak
""",
    "the last of a suffix": """
  weight end: float[1, D]
  y = concat(x, end, T) -> attention(2, causal)  # leak
  read = y -> max(T)
  h = x + read
""",
    # routing and states
    "experts chosen for the whole": """
  gates = x -> mean(T) -> linear(4) -> softmax  # leak
  spread = (x -> linear(4)) * 0 + gates
  h = x -> mixture(spread * top(spread, 2), mlp(16, D))
""",
    "a state that takes a mean": """
  all = x -> mean(T)  # leak
  h = x + all -> summed
""",
    "a state behind attention": """
  y = x -> attention(2)  # leak
  h = y -> summed
""",
}

CORRECT = {
    "causal attention": "h = x -> attention(2, causal)",
    "a stack of two kinds": "h = x -> { see(attention(2, causal)) -> see(mlp(16, D)) } * 2",
    "a window": HEADS + "h = attend(q, k, v, causal, window = 3) -> merge_heads",
    "a window by its mask": HEADS
    + "h = attend(q, k, v, mask = causal & within(3)) -> merge_heads",
    "a causal chunk": HEADS + "h = attend(q, k, v, mask = causal & chunk(4)) -> merge_heads",
    "chunks or a window": HEADS
    + "h = attend(q, k, v, mask = causal & (chunk(4) | within(2))) -> merge_heads",
    "all but the nearest": HEADS
    + "h = attend(q, k, v, mask = causal & not (within(2) & not within(1))) -> merge_heads",
    "a prefix that is past": HEADS
    + "h = attend(q, k, v, mask = causal & (prefix(2) | within(2))) -> merge_heads",
    "words alike": HEADS + "h = attend(q, k, v, mask = causal & same(tokens)) -> merge_heads",
    "alibi": HEADS
    + """
  near = x -> alibi(2)
  h = attend(q, k, v, causal, bias = near) -> merge_heads
""",
    "a causal bias": HEADS
    + """
  near = x -> relative_bias(2, causal)
  h = attend(q, k, v, causal, bias = near) -> merge_heads
""",
    "keys shared by all heads": """
  q = x -> q: linear(D) -> split_heads(4)
  k = x -> k: linear(2) -> split_heads(1)
  h = attend(q, k, k, causal) -> merge_heads
""",
    "queries from another layer": """
  y = x -> mlp(16, D)
  q = y -> q: linear(D) -> split_heads(2)
  k = x -> k: linear(D) -> split_heads(2)
  h = attend(q, k, k, causal) -> merge_heads
""",
    "a causal convolution": "h = x -> conv1d(D, 3, causal)",
    "a dilated causal convolution": "h = x -> conv1d(D, 3, causal, dilation = 2)",
    "a depthwise causal convolution": "h = x -> conv1d(D, 4, causal, groups = D)",
    "two convolutions": "h = x -> conv1d(D, 3, causal) -> silu -> conv1d(D, 2, causal)",
    "a convolution of one": "h = x -> conv1d(D, 1)",
    "softmax of features": "h = x -> softmax",
    "a mean of features": "h = x - (x -> mean(D))",
    "the largest features": "h = x * top(x, 2)",
    "the first three": """
  some = x -> prepend(a) -> slice(T, 0, 1) -> mean(T)
  h = x + some
""",
    "a prefix": """
  weight prompt: float[3, D]
  y = concat(prompt, x, T) -> attention(2, causal)
  h = y -> slice(T, 3)
""",
    "a prepended vector read again": """
  y = x -> prepend(a)
  h = x + (y -> readout(a))
""",
    "a prepended vector behind attention": """
  y = x -> prepend(a) -> attention(2, causal)
  h = (y -> slice(T, 1)) + (y -> readout(a))
""",
    "a trained vector": """
  weight bias: float[D]
  h = x * (1 + bias)
""",
    "a trained table by tokens": """
  weight table: float[vocab, D]
  h = x + take(table, tokens)
""",
    "products of features": """
  outer = contract("t c, t d -> t c d", x, x)
  h = contract("t c d, t d -> t c", outer, x)
""",
    "a table of scores": """
  weight mix: float[D, D]
  h = contract("t c, c d -> t d", x, mix)
""",
    "learned positions": "h = x -> posenc(learned) -> attention(2, causal)",
    "positions from two": "h = x -> posenc(learned, n + 2, at = positions(T) + 2)",
    "sines": "h = x + sinusoid(positions(T), D) -> attention(2, causal)",
    "halved positions": "h = x + (positions(T) // 2 -> embed(n, D)) -> attention(2, causal)",
    "rotary of a part": """
  q = x -> q: linear(D) -> split_heads(2) -> rotary(size = 2)
  k = x -> k: linear(D) -> split_heads(2) -> rotary(size = 2)
  h = attend(q, k, k, causal) -> merge_heads
""",
    "experts for each token": """
  scores = x -> router: linear(4) -> softmax
  h = x -> experts: mixture(scores * top(scores, 2), mlp(16, D))
""",
    "a running sum": "h = x -> summed",
    "two states": """
  y = x -> summed
  h = y -> mlp(16, D) -> again: summed
""",
    "a state between attention": """
  y = x -> attention(2, causal) -> summed
  h = y -> again: attention(2, causal)
""",
    "a gate": "h = (x -> gate: linear(D) -> sigmoid) * (x -> attention(2, causal))",
    "a normed residual": "h = x + (x -> norm(rms) -> attention(2, causal) -> norm)",
    "a transposed head": """
  y = x -> reshape("T (a b) -> a T b", a = 2) -> reshape("a T b -> T (a b)")
  h = y -> attention(2, causal)
""",
}


def spec(body: str) -> str:
    used = SUMMED if "summed" in body else ""
    return used_only(f"{HEAD}  {body.strip()}{TAIL}{used}")


def test_there_are_forty_of_each() -> None:
    assert min(len(LEAKS), len(CORRECT)) >= 40


@pytest.mark.parametrize("body", LEAKS.values(), ids=list(LEAKS))
def test_a_leak_is_refused_at_its_line(body: str) -> None:
    (line,) = (line for line in spec(body).splitlines() if "# leak" in line)
    with pytest.raises(ArchError) as caught:
        archdsl.compile(archdsl.parse(spec(body)), device="CPU")
    (found,) = caught.value.diagnostics
    assert found.code == "not-causal", found
    assert found.notes[0].span.line_text == line


@pytest.mark.few(2)
@pytest.mark.parametrize("body", CORRECT.values(), ids=list(CORRECT))
def test_a_correct_model_is_decoded(body: str) -> None:
    model = archdsl.compile(archdsl.parse(spec(body)), device="CPU", seed=4)
    tokens = np.random.default_rng(1).integers(0, 11, (2, 15))
    whole = model(tokens=tokens)["logits"].numpy()
    decoder = Decoder(model.executable, rows=2)
    decoder.begin()
    pieces = [decoder.feed(piece) for piece in np.split(tokens, [4, 5, 6, 11], axis=1)]
    assert abs(np.concatenate(pieces, axis=1) - whole).max() <= 1e-4 * abs(whole).max()
