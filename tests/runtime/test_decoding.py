"""Step by step, in chunks and at once: the same logits, whatever the model and the lengths."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import archdsl
from archdsl.diagnostics import ArchError
from archdsl.runtime.decoding import CHUNK, Decoder

TOLERANCE = 1e-4  # of the largest logit, float32

SMALL: dict[str, Any] = {"vocab": 50, "context": 90, "D": 24, "depth": 2}
SPECS: dict[str, dict[str, Any]] = {
    "annalog.arch": {**SMALL, "heads": 3, "hidden": 20},
    "gpt.arch": {**SMALL, "heads": 3},
    "gpt1.arch": {**SMALL, "heads": 3},
    "gpt2.arch": {**SMALL, "heads": 3, "depth": 3, "inner": 20},
    "llama.arch": {**SMALL, "heads": 6, "kv_heads": 2, "inner": 20},
    "marian.arch": {**SMALL, "heads": 3, "inner": 20, "pad_id": 0},
    "mistral.arch:Mistral": {**SMALL, "heads": 6, "kv_heads": 3, "inner": 20, "window": 5},
    "mistral.arch:Mixtral": {**SMALL, "heads": 3, "kv_heads": 1, "inner": 20, "count": 3},
    "qwen.arch:Qwen2": {**SMALL, "heads": 6, "kv_heads": 2, "inner": 20},
    "qwen.arch:Qwen3": {**SMALL, "heads": 6, "kv_heads": 2, "inner": 20, "head_size": 10},
    "t5.arch": {**SMALL, "heads": 3, "size": 10, "inner": 20, "distance": 20, "buckets": 8},
    "transformer.arch": {**SMALL, "heads": 3},
    "vaswani2017.arch": {**SMALL, "heads": 3, "hidden": 20},
    "whisper.arch": {**SMALL, "heads": 3, "inner": 20, "bins": 4, "length": 7},
}  # fmt: skip
ALIBI = """
model Alibi(vocab = 50, n = 90, D = 24) {
  input tokens: int[T <= n] < vocab
  x = tokens -> embed(vocab, D)
  scores = x -> alibi(3)
  q = x -> q: linear(D) -> reshape("T (h d) -> T h d", h = 3)
  k = x -> k: linear(D) -> reshape("T (h d) -> T h d", h = 3)
  output logits: float[T, vocab] =
    attend(q, k, k, causal, bias = scores) -> reshape("T h d -> T (h d)") -> linear(vocab)
  loss next_token(logits, tokens)
}
"""

random = np.random.default_rng(7)


class Case:
    """A model of random weights, two rows of tokens, and the logits of all at once."""

    def __init__(self, spec: str, length: int = CHUNK + 9):
        if spec == "alibi":
            self.model = archdsl.compile(archdsl.parse(ALIBI), device="CPU", seed=3)
        else:
            self.model = archdsl.compile(spec, device="CPU", seed=3, **SPECS[spec])
        self.decoder = Decoder(self.model, rows=2)
        plan = self.decoder.plan
        self.others: dict[str, Any] = {}
        for each in self.model.graph.inputs:
            if each.name == plan.tokens:
                continue
            if each.type.dtype == "int":
                source = random.integers(2, 50, (2, 9))
                if each.pad is not None:
                    source[1, 6:] = each.pad
                self.others[each.name] = source
            else:
                sizes = [axis.size.value for axis in each.type.axes]
                self.others[each.name] = random.standard_normal((2, *sizes))  # type: ignore[misc]
        self.tokens = random.integers(2, 50, (2, length))
        out = self.model(**{plan.tokens: self.tokens}, **self.others)
        self.logits = out[plan.logits].numpy()
        self.begin()

    def begin(self) -> None:
        self.decoder.begin(**self.others)

    def apart(self, found: NDArray[Any], right: NDArray[Any]) -> float:
        return float(abs(found - right).max() / abs(self.logits).max())


@functools.cache
def case_of(spec: str) -> Case:
    """One for all tests that leave the model as it is: its programs are captured once."""
    return Case(spec)


@pytest.mark.parametrize("spec", [*SPECS, "alibi"])
def test_steps_and_chunks_are_the_whole(spec: str) -> None:
    case = case_of(spec)
    feed, tokens = case.decoder.feed, case.tokens
    # A chunk, then one by one; and after a reset one by one, then a chunk.
    for cuts in ([CHUNK, *range(CHUNK + 1, CHUNK + 9)], [1, 2, 3, CHUNK + 3]):
        case.begin()
        pieces = [feed(piece) for piece in np.split(tokens, cuts, axis=1)]
        assert case.apart(np.concatenate(pieces, axis=1), case.logits) <= TOLERANCE


@pytest.mark.parametrize("spec", [*SPECS, "alibi"])
@pytest.mark.parametrize("lengths", [(3, 5), (CHUNK + 8, 4)])
def test_prompts_of_unequal_lengths(spec: str, lengths: tuple[int, int]) -> None:
    case = case_of(spec)
    case.begin()
    rows = [case.tokens[i, :n].tolist() for i, n in enumerate(lengths)]
    found = case.decoder.prefill(rows)
    right = np.stack([case.logits[i, n - 1] for i, n in enumerate(lengths)])
    assert case.apart(found, right) <= TOLERANCE
    following = np.stack([case.tokens[i, n : n + 1] for i, n in enumerate(lengths)])
    found = case.decoder.feed(following)[:, 0]
    right = np.stack([case.logits[i, n] for i, n in enumerate(lengths)])
    assert case.apart(found, right) <= TOLERANCE


@pytest.mark.parametrize("spec", ["gpt.arch", "t5.arch"])
def test_rows_go_on_as_copies_of_others(spec: str) -> None:
    case = Case(spec)
    if case.others:
        case.others = {name: value[[1, 1]] for name, value in case.others.items()}
        case.begin()
    tokens = case.tokens[:, :4]
    case.decoder.feed(tokens)
    case.decoder.reorder([1, 1])
    found = case.decoder.feed(case.tokens[[1, 1], 4:5])
    plan = case.decoder.plan
    swapped = case.model(**{plan.tokens: case.tokens[[1, 1], :5]}, **case.others)
    right = swapped[plan.logits].numpy()[:, 4:]
    assert case.apart(found, right) <= TOLERANCE


def test_a_window_keeps_a_ring() -> None:
    case = Case("mistral.arch:Mistral", length=88)  # more than the ring has places
    buffers = {tuple(each.shape) for each in case.decoder._keys.values()}
    assert buffers == {(2, 64, 3, 4)}
    for cuts in ([40, 41, 80], [3, 70]):
        case.begin()
        pieces = [case.decoder.feed(piece) for piece in np.split(case.tokens, cuts, axis=1)]
        assert case.apart(np.concatenate(pieces, axis=1), case.logits) <= TOLERANCE
    assert case.decoder.keep(5) == 0  # which no place holds any more
    case.decoder.feed(case.tokens[:, :70])
    assert case.decoder.keep(60) == 60
    found = case.decoder.feed(case.tokens[:, 60:65])
    assert case.apart(found, case.logits[:, 60:65]) <= TOLERANCE


def test_what_stood_behind_is_forgotten() -> None:
    case = Case("gpt.arch")
    case.decoder.feed(case.tokens[:, ::-1])
    case.decoder.keep(0)
    case.decoder.feed(case.tokens[:, :6])
    case.decoder.feed(case.tokens[:, ::-1])
    case.decoder.keep(6)
    found = case.decoder.feed(case.tokens[:, 6:9])
    assert case.apart(found, case.logits[:, 6:9]) <= TOLERANCE


def test_one_capture_serves_all_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("gpt.arch")
    runs = []
    program = case.decoder._program

    def counted(last: bool) -> Any:
        inner = program(last)
        return lambda *args, **given: (runs.append(last), inner(*args, **given))[1]

    monkeypatch.setattr(case.decoder, "_program", counted)
    case.decoder._steps.clear()
    case.begin()
    for i in range(20):
        case.decoder.feed(case.tokens[:, i : i + 1])
    assert len(runs) == 1


def test_the_end_of_the_context_is_told() -> None:
    case = Case("gpt.arch")
    for i in range(0, 90, 30):
        case.decoder.feed(np.resize(case.tokens, (2, 30)) if i else case.tokens[:, :30])
    with pytest.raises(ArchError, match="ends after 90 tokens"):
        case.decoder.feed(case.tokens[:, :1])
    with pytest.raises(ArchError, match="no sequences of 91 tokens"):
        Decoder(case.model, 1, 91)


def test_new_weights_are_taken(tmp_path: Any) -> None:
    case = Case("gpt.arch")
    other = archdsl.compile("gpt.arch", device="CPU", seed=4, **SPECS["gpt.arch"])
    other.save(tmp_path / "w.safetensors")
    before = case.model.decoder(2).feed(case.tokens[:, :1])
    case.model.load(tmp_path / "w.safetensors")
    after = case.model.decoder(2).feed(case.tokens[:, :1])
    right = other(tokens=case.tokens[:, :1])["logits"].numpy()
    assert abs(before - right).max() > 1e-3
    np.testing.assert_allclose(after, right, atol=1e-5)
