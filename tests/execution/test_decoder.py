"""Step by step, in chunks and at once: the same logits, whatever the model and the lengths."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tinygrad.codegen import to_program_cache

import archdsl
from archdsl.diagnostics import ArchError
from archdsl.execution.decoder import Decoder, _leaves
from archdsl.passes.decoding_analysis import CHUNK
from tests import specs
from tests.suite import first, mostly_long, some

TOLERANCE = 1e-4  # of the largest logit, float32

# Every model of the library takes of these what it has a parameter for.
SMALL: dict[str, Any] = {
    "vocab": 50, "context": 90, "D": 24, "depth": 2, "heads": 6, "kv_heads": 2, "inner": 20,
    "hidden": 20, "head_size": 12, "size": 10, "window": 5, "count": 3, "top": 2,
    "distance": 20, "buckets": 8, "bins": 4, "length": 7, "pad_id": 0, "turned": 0.5, "turn": 2,
    "chosen": 2, "expert_inner": 12, "shared": 2, "kv_rank": 10, "plain_size": 6,
    "turned_size": 4, "value_size": 5, "groups": 1, "open_groups": 1, "dense": 1,
    "key_heads": 2, "value_heads": 4, "key_size": 6, "state_heads": 4, "state_size": 6,
    "states": 5, "period": 2, "image": 6, "patch": 3, "vision_D": 12, "vision_heads": 3,
    "vision_depth": 3, "chunk_size": 5, "memory": 5,
}  # fmt: skip
SPECS = {
    model: {name: size for name, size in SMALL.items() if name in known}
    for model, known in specs.causal_models().items()
}
del SPECS["marian.arch:Marian"]["shared"]  # whether it has one vocabulary
SPECS["llava.arch:Llava"]["context"] += 9  # of the image, and of what is in front of it
# Translation in tests/tasks decodes behind an encoder, and below a window has a test.
FEW = ("gpt.arch:GPT",)
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

CONVOLUTIONS = """
use "blocks.arch"
model Convolutions(vocab = 50, n = 90, D = 24) {
  input tokens: int[T <= n] < vocab
  h = tokens -> embed(vocab, D) -> prepend(start)
    -> layer: { conv1d(D, 4, causal, groups = D) -> conv1d(D, 3, causal, dilation = 2) } * 2
    -> norm
  # Two operators use as many of the same positions as they need.
  g = h + (h -> conv1d(D, 3, causal, groups = 2)) + (h -> delay(1))
  output logits: float[T, vocab] = g -> slice(T, 1) -> conv1d(D, 5, causal) -> linear(vocab)
  init normal(std = 0.5)
  loss next_token(logits, tokens)
}
"""
LAYERS = """
block layer(x: float[T, D], heads, window = none, theta = 100.0): float[T, D] {
  q = x -> q: linear(D) -> reshape("T (h d) -> T h d", h = heads) -> rotary(theta = theta)
  k = x -> k: linear(D) -> reshape("T (h d) -> T h d", h = heads) -> rotary(theta = theta)
  x + (attend(q, k, k, causal, window = window) -> reshape("T h d -> T (h d)") -> norm)
}
model Layers(vocab = 50, n = 90, D = 24) {
  input tokens: int[T <= n] < vocab
  x = tokens -> embed(vocab, D)
    -> h: layer(3, none if i % 3 == 2 else 4, 10.0 if i == 4 else 100.0) * 6 as i
    -> shared: layer(2, 3) -> again: { norm -> layer(4) } * 2 tied -> tied(shared)
  output logits: float[T, vocab] = x -> linear(vocab)
  loss next_token(logits, tokens)
}
"""
INLINE = {"alibi": ALIBI, "convolutions": CONVOLUTIONS, "layers": LAYERS}

LENGTH = CHUNK + 13
random = np.random.default_rng(7)


class Case:
    """A model of random weights, two rows of tokens, and the logits of all at once."""

    def __init__(self, spec: str, length: int = LENGTH):
        if spec in INLINE:
            self.model = archdsl.compile(archdsl.parse(INLINE[spec]), device="CPU", seed=3)
        else:
            self.model = archdsl.compile(spec, device="CPU", seed=3, **SPECS[spec])
        self.decoder = Decoder(self.model.executable, rows=2)
        plan = self.decoder.plan
        self.others: dict[str, Any] = {}
        for each in self.model.graph.inputs:
            if each.name == plan.tokens:
                continue
            if each.type.dtype == "int":
                source = random.integers(2, 50, (2, each.type.axes[0].size.value or 9))
                if each.pad is not None:
                    source[1, 6:] = each.pad
                self.others[each.name] = source
            else:
                lengths = {axis.name: axis.near(5) for axis in self.model.graph.varying}
                sizes = [axis.size.at(lengths) for axis in each.type.axes]
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


every_spec = pytest.mark.parametrize("spec", some([*SPECS, *INLINE], *FEW))


@pytest.mark.parametrize("spec", mostly_long(SPECS))
def test_the_sizes_are_small(spec: str) -> None:
    # A new spec whose parameters have other names says how it is small above.
    assert archdsl.compile(spec, **SPECS[spec]).cost().params < 50_000


@every_spec
@settings(max_examples=5)
@example(cuts=set(range(1, LENGTH)))  # one by one
@given(cuts=st.sets(st.integers(1, LENGTH - 1), max_size=6))
def test_any_split_gives_what_the_whole_gives(spec: str, cuts: set[int]) -> None:
    case = case_of(spec)
    case.decoder.reset()
    pieces = map(case.decoder.feed, np.split(case.tokens, sorted(cuts), axis=1))
    assert case.apart(np.concatenate(list(pieces), axis=1), case.logits) <= TOLERANCE


@every_spec
@pytest.mark.parametrize("lengths", [(3, 5), (CHUNK + 8, 4)])
def test_prompts_of_unequal_lengths(spec: str, lengths: tuple[int, int]) -> None:
    case = case_of(spec)
    unequal(case, lengths)


def unequal(case: Case, lengths: tuple[int, int]) -> None:
    """Prompts of these lengths, and five tokens behind each, in two pieces."""

    def behind(rows: NDArray[Any], start: int, end: int) -> NDArray[Any]:
        return np.stack([rows[i, n + start : n + end] for i, n in enumerate(lengths)])

    rows = [case.tokens[i, :n].tolist() for i, n in enumerate(lengths)]
    found = [case.decoder.prefill(rows)[:, None]]
    found += [case.decoder.feed(behind(case.tokens, *piece)) for piece in [(0, 2), (2, 5)]]
    right = behind(case.logits, -1, 5)
    assert case.apart(np.concatenate(found, axis=1), right) <= TOLERANCE


@pytest.mark.parametrize("spec", first(["gpt.arch:GPT", "t5.arch:T5"]))
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
    buffers = {tuple(each.shape) for _, each in _leaves(case.decoder._caches)}
    assert buffers == {(2, 64, 2, 12)}
    for cuts in ([40, 41, 80], [3, 70]):
        case.begin()
        pieces = [case.decoder.feed(piece) for piece in np.split(case.tokens, cuts, axis=1)]
        assert case.apart(np.concatenate(pieces, axis=1), case.logits) <= TOLERANCE
    unequal(case, (80, 20))
    case.begin()
    case.decoder.feed(case.tokens)
    assert case.decoder.truncate(5) == 0  # which no place holds any more
    case.decoder.feed(case.tokens[:, :70])
    assert case.decoder.truncate(60) == 60
    found = case.decoder.feed(case.tokens[:, 60:65])
    assert case.apart(found, case.logits[:, 60:65]) <= TOLERANCE


@pytest.mark.long
def test_a_convolution_keeps_its_last_inputs() -> None:
    case = Case("convolutions")
    assert {state.type.axes[0].size.value for state in case.decoder.plan.states} == {2, 3, 4}
    pieces = [case.decoder.feed(piece) for piece in np.split(case.tokens, [1, 4, 5], axis=1)]
    assert case.apart(np.concatenate(pieces, axis=1), case.logits) <= TOLERANCE
    unequal(case, (CHUNK + 8, 4))
    assert case.decoder.truncate(5) == 0  # the inputs that it needs are gone
    found = case.decoder.feed(case.tokens[:, :6])
    assert case.apart(found, case.logits[:, :6]) <= TOLERANCE


def test_what_stood_behind_is_forgotten() -> None:
    case = Case("gpt.arch:GPT")
    case.decoder.feed(case.tokens[:, ::-1])
    case.decoder.truncate(0)
    case.decoder.feed(case.tokens[:, :6])
    case.decoder.feed(case.tokens[:, ::-1])
    case.decoder.truncate(6)
    found = case.decoder.feed(case.tokens[:, 6:9])
    assert case.apart(found, case.logits[:, 6:9]) <= TOLERANCE


@every_spec
def test_the_context_grows_with_no_new_kernel(spec: str) -> None:
    case = case_of(spec)
    tokens = np.resize(case.tokens, (2, 90))
    case.decoder.reset()
    case.decoder.feed(tokens[:, : CHUNK + 1])
    known = len(to_program_cache)
    case.decoder.reset()
    for piece in np.split(tokens, [CHUNK, CHUNK + 1, 2 * CHUNK + 1], axis=1):
        case.decoder.feed(piece)
    assert case.decoder.filled == 90 + case.decoder.plan.lead
    assert len(to_program_cache) == known


@every_spec
def test_one_capture_serves_all_positions(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = case_of(spec)
    runs = []
    program = case.decoder._program

    def counted(n: int, last: bool) -> Any:
        inner = program(n, last)
        return lambda *args, **given: (runs.append(last), inner(*args, **given))[1]

    monkeypatch.setattr(case.decoder, "_program", counted)
    monkeypatch.setattr(case.decoder, "_captures", {})
    case.begin()
    for i in range(20):
        case.decoder.feed(case.tokens[:, i : i + 1])
    assert len(runs) == 1


def test_the_end_of_the_context_is_told() -> None:
    case = Case("gpt.arch:GPT")
    for i in range(0, 90, 30):
        case.decoder.feed(np.resize(case.tokens, (2, 30)) if i else case.tokens[:, :30])
    with pytest.raises(ArchError, match="ends after 90 tokens"):
        case.decoder.feed(case.tokens[:, :1])
    with pytest.raises(ArchError, match="no sequences of 91 tokens"):
        Decoder(case.model.executable, 1, 91)


def test_new_weights_are_taken(tmp_path: Any) -> None:
    case = Case("gpt.arch:GPT")
    other = archdsl.compile("gpt.arch:GPT", device="CPU", seed=4, **SPECS["gpt.arch:GPT"])
    other.save(tmp_path / "w.safetensors")
    before = case.model.decoder(2).feed(case.tokens[:, :1])
    case.model.load(tmp_path / "w.safetensors")
    after = case.model.decoder(2).feed(case.tokens[:, :1])
    right = other(tokens=case.tokens[:, :1])["logits"].numpy()
    assert abs(before - right).max() > 1e-3
    np.testing.assert_allclose(after, right, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("spec", ["gpt.arch", "llama.arch:tiny"])
def test_whole_tiles_of_columns_are_seen_as_columns_are(
    spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for tensor cores, which this machine may lack: float32, 1e-5 of the largest."""
    sizes: Any = (
        {} if ":" in spec else {"vocab": 97, "context": 32, "D": 48, "heads": 6, "depth": 1}
    )
    model = archdsl.compile(spec, device="CPU", kernels="tinygrad", **sizes)
    tokens = np.random.default_rng(3).integers(1, 97, (2, 19))
    right = model(tokens=tokens)["logits"].numpy()
    monkeypatch.setattr("archdsl.backend.context.accumulates_in_float32", lambda device: True)
    decoder = model.decoder(2)
    steps = [decoder.feed(tokens[:, i : i + 1])[:, 0] for i in range(19)]
    assert np.abs(np.stack(steps, 1) - right).max() < 1e-5 * np.abs(right).max()


# -- models whose decoding is more than a cache for each attention --

SHARED = """
use "llama.arch"
block looking(x: float[T, D], k: float[T, K, h], v: float[T, K, h], heads): float[T, D] {
  q = x -> q: linear(heads * h, bias = false) -> split_heads(heads) -> rotary
  attend(q, k, v, causal) -> merge_heads -> out: linear(D, bias = false)
}
model Shared(vocab = 97, context = 64, D = 48, heads = 6, kv_heads = 2, depth = 3) {
  input tokens: int[T <= context] < vocab
  y = tokens -> embed(vocab, D) -> norm(rms)
  k = y -> k: linear(kv_heads * D // heads, bias = false) -> split_heads(kv_heads) -> rotary
  v = y -> v: linear(kv_heads * D // heads, bias = false) -> split_heads(kv_heads)
  h = y -> cross: rms_layer(1e-5, looking(k, v, heads), gated_mlp(40)) * depth -> norm(rms)
  output logits: float[T, vocab] = h -> unembed(embed)
  loss next_token(logits, tokens)
}
"""
PREFIX = """
use "blocks.arch"
model Prefix(vocab = 97, context = 64, D = 24, heads = 4, depth = 2) {
  input tokens: int[T <= context - 2] < vocab
  h = tokens -> embed(vocab, D) -> prepend(p1) -> self_attention_block(heads, causal)
    -> prepend(p2) -> posenc(learned, context)
    -> h: self_attention_block(heads, causal) * depth -> slice(T, 2)
  output logits: float[T, vocab] = h -> linear(vocab)
  loss next_token(logits, tokens)
}
"""
SEGMENTS = """
model Segments(vocab = 50, context = 32, D = 32, heads = 4) {
  input tokens: int[T <= context] < vocab
  input kinds: int[T] < 2
  h = (tokens -> embed(vocab, D)) + (kinds -> kinds: embed(2, D)) -> attention(heads, causal)
  output logits: float[T, vocab] = h -> norm -> linear(vocab)
  loss next_token(logits, tokens)
}
"""


@pytest.mark.long
@pytest.mark.parametrize("kernels", some(["best", "tinygrad"], "best"))
@pytest.mark.parametrize(
    ("text", "cached"),
    [(SHARED, "128 T"), pytest.param(PREFIX, "576 T + 960", marks=pytest.mark.long)],
)
def test_shared_keys_and_prepended_vectors(text: str, cached: str, kernels: str) -> None:
    model = archdsl.compile(archdsl.parse(text), device="CPU", seed=3, kernels=kernels)
    assert str(model.cost().cache_formula) == cached
    tokens = random.integers(0, 97, (2, 45))
    right = model(tokens=tokens)["logits"].numpy()
    decoder = model.decoder(2)
    assert sum(state.elements.at({"T": 10}) for state in decoder.plan.states) * 4 == (
        model.cost(T=10).cache_bytes
    )
    for cuts in ([1, 2, 3], [32], [5, 6, 40]):
        decoder.reset()
        pieces = list(map(decoder.feed, np.split(tokens, cuts, axis=1)))
        assert abs(np.concatenate(pieces, 1) - right).max() <= TOLERANCE * abs(right).max()
    found = decoder.prefill([tokens[0, :40].tolist(), tokens[1, :3].tolist()])
    ends = np.stack([right[0, 39], right[1, 2]])
    assert abs(found - ends).max() <= TOLERANCE * abs(right).max()
    following = decoder.feed(np.stack([tokens[0, 40:42], tokens[1, 3:5]]))
    ends = np.stack([right[0, 40:42], right[1, 3:5]])
    assert abs(following - ends).max() <= TOLERANCE * abs(right).max()

    single = model.decoder(1)
    single.feed(tokens[:1, :20])
    assert single.truncate(7) == 7
    again = single.feed(tokens[:1, 7:9])
    assert abs(again - right[:1, 7:9]).max() <= TOLERANCE * abs(right).max()
    assert single.truncate(0) == 0
    assert (
        abs(single.feed(tokens[:1, :2]) - right[:1, :2]).max() <= TOLERANCE * abs(right).max()
    )


def test_a_second_input_along_the_tokens_is_fed_with_them() -> None:
    model = archdsl.compile(archdsl.parse(SEGMENTS, "s.arch"), device="CPU", seed=3)
    tokens, kinds = random.integers(0, 50, (2, 20)), random.integers(0, 2, (2, 20))
    right = model(tokens=tokens, kinds=kinds)["logits"].numpy()
    decoder = model.decoder(2)
    both = zip(np.split(tokens, [3, 4], 1), np.split(kinds, [3, 4], 1), strict=True)
    found = np.concatenate([decoder.feed(t, kinds=k) for t, k in both], 1)
    assert abs(found - right).max() <= TOLERANCE * abs(right).max()


def test_tokens_without_the_input_beside_them_are_refused() -> None:
    model = archdsl.compile(archdsl.parse(SEGMENTS, "s.arch"), device="CPU", seed=3)
    decoder = model.decoder(1)
    refused = (
        lambda: decoder.feed(np.array([[1]])),
        lambda: decoder.prefill([[1, 2]]),
        lambda: decoder.begin(kinds=np.array([[1, 1]])),
        lambda: next(model.generate([1, 2], 3)),
    )
    for call in refused:
        with pytest.raises(ArchError, match=r"`kinds` has one value per token") as raised:
            call()
        (told,) = raised.value.diagnostics
        assert told.span
        assert told.span.place == "s.arch:4:9"
    with pytest.raises(ArchError, match="no input `kind` is given with the tokens"):
        decoder.feed(np.array([[1]]), kinds=np.array([[1]]), kind=np.array([[1]]))


DEFAULTS = """
model Defaults(vocab = 50, context = 32, D = 32, heads = 4) {
  input tokens: int[T <= context] < vocab
  input kinds: int[T] < 2 = 1
  input gains: float[T, D] = 1.5
  input style: float[1, D] = 0.25
  manner = style -> linear(D)
  x = (tokens -> embed(vocab, D)) + (kinds -> kinds: embed(2, D))
  h = x * gains -> attention(heads, causal)
  y = h + (h -> across: attention(heads, over = manner))
  output logits: float[T, vocab] = y -> norm -> linear(vocab)
  loss next_token(logits, tokens)
}
"""


def test_decoding_with_inputs_that_have_a_default() -> None:
    model = archdsl.compile(archdsl.parse(DEFAULTS, "d.arch"), device="CPU", seed=3)
    tokens = random.integers(0, 50, (2, 20))
    right = model(tokens=tokens)["logits"].numpy()
    decoder = model.decoder(2)
    found = np.concatenate([decoder.feed(each) for each in np.split(tokens, [3, 4], 1)], 1)
    assert abs(found - right).max() <= TOLERANCE * abs(right).max()
    found = decoder.prefill([tokens[0, :12].tolist(), tokens[1, :3].tolist()])
    assert abs(found[0] - right[0, 11]).max() <= TOLERANCE * abs(right).max()
    assert abs(found[1] - right[1, 2]).max() <= TOLERANCE * abs(right).max()
    assert len(list(model.generate([1, 2], 3))) == 3

    kinds, style = random.integers(0, 2, (2, 20)), random.normal(size=(2, 1, 32))
    gains = random.normal(size=(2, 20, 32))
    given = {"kinds": kinds, "style": style, "gains": gains}
    right = model(tokens=tokens, **given)["logits"].numpy()
    decoder.begin(style=style)
    found = decoder.feed(tokens, kinds=kinds, gains=gains)
    assert abs(found - right).max() <= TOLERANCE * abs(right).max()
    with pytest.raises(ArchError, match="numbers must be 0 to 1"):
        decoder.feed(tokens[:, :2], kinds=kinds[:, :2] + 5)
