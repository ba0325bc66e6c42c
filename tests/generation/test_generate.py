"""Generation: reproducible, independent of other rows, and equal to the full forward pass."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import archdsl
from archdsl.diagnostics import ArchError
from archdsl.execution.decoder import Decoder
from archdsl.formats import LazyTensor
from archdsl.generation.generate import Generation, TokenEvent, generate
from archdsl.generation.processors import Forbid, ForceLast
from archdsl.generation.sampling import Sampling
from archdsl.generation.text_stream import _text_chunks
from archdsl.model import Model
from archdsl.tasks.score import Score, score, windows
from archdsl.text.special_tokens import PublishedTokenizer
from archdsl.text.tokenizer import TextTokenizer

GREEDY = Sampling(temperature=0)
NONE: dict[str, Any] = {}
SMALL: dict[str, Any] = {"vocab": 50, "context": 24, "D": 24, "depth": 1}
SPECS: dict[str, dict[str, Any]] = {
    "gpt2.arch": {**SMALL, "heads": 3, "inner": 20},
    "llama.arch:tiny": {"vocab": 50, "context": 24},
    "mistral.arch:Mistral": {**SMALL, "heads": 6, "kv_heads": 3, "inner": 20, "window": 5},
}


def made(spec: str = "gpt2.arch") -> Model:
    model = archdsl.compile(spec, device="CPU", seed=3, **SPECS[spec])
    # With the initial weights all tokens are almost equally likely.
    for name, weight in model.parameters.items():
        if "embed" in name or "head" in name:
            weight.assign(weight * 20).realize()
    return model


@pytest.fixture(scope="module")
def model() -> Model:
    return made()


def row_tokens(events: Generation, row: int = 0) -> list[int]:
    return [p.tokens[row] for p in events if p.tokens[row] is not None]  # type: ignore[misc]


def full(model: Model, tokens: list[int]) -> NDArray[Any]:
    """The logits after these tokens, by one forward pass."""
    filled = [*tokens, *[0] * (24 - len(tokens))]  # one shape; later tokens have no effect
    logits = model(tokens=[filled])["logits"].numpy()[0, len(tokens) - 1]
    return np.asarray(logits, np.float64)


@pytest.mark.few(1)
@pytest.mark.parametrize("spec", SPECS)
def test_greedy_is_the_most_likely_token_of_the_full_forward(spec: str) -> None:
    model, prompt = made(spec), [7, 3, 11, 2, 30, 8, 21, 5, 9]
    row = list(prompt)
    for piece in model.generate(prompt, max_new_tokens=8, temperature=0):
        logits = full(model, row)
        (token,), (log_prob,) = piece.tokens, piece.log_probs
        assert token == logits.argmax()
        right = logits[token] - logits.max() - math.log(np.exp(logits - logits.max()).sum())
        assert log_prob == pytest.approx(right, abs=1e-4)
        row.append(token)
    assert piece.ended == ("length",)
    assert len(row) == len(prompt) + 8


def test_the_seed_determines_the_text(model: Model) -> None:
    first, again, other = (
        row_tokens(model.generate([1, 2, 3], 12, temperature=2.0, top_k=20, seed=seed))
        for seed in (5, 5, 6)
    )
    assert first == again != other


def test_a_row_does_not_depend_on_other_rows(model: Model) -> None:
    prompts = [[4, 9, 2, 7, 7, 1, 30, 12, 3], [8], [20, 21]]
    together = list(model.generate(prompts, 9, temperature=0, stop=[0]))
    for row, prompt in enumerate(prompts):
        alone = row_tokens(model.generate(prompt, 9, temperature=0, stop=[0]))
        assert [p.tokens[row] for p in together if p.tokens[row] is not None] == alone


def test_rows_end_independently(model: Model) -> None:
    prompts = [[4, 9, 2], [8, 1]]
    plain = list(model.generate(prompts, 6, temperature=0))
    stop = plain[1].tokens[0]
    assert stop is not None
    end = next(i for i, p in enumerate(plain) if p.tokens[0] == stop)
    other = next((i for i, p in enumerate(plain) if p.tokens[1] == stop), 5)
    events = list(model.generate(prompts, 6, temperature=0, stop=[stop]))
    assert len(events) == max(end, other) + 1
    assert (events[end].tokens[0], events[end].ended[0]) == (stop, "stop token")
    for piece in events[end + 1 :]:
        assert (piece.tokens[0], piece.log_probs[0], piece.ended[0]) == (
            None,
            None,
            "stop token",
        )
    found = [p.tokens[1] for p in events if p.tokens[1] is not None]
    assert found == [p.tokens[1] for p in plain[: other + 1]]


def test_ended_rows_do_not_use_the_context(model: Model) -> None:
    # The long row ends at once; the short one continues far beyond its length.
    long, short = list(range(1, 23)), [8]
    stop = row_tokens(model.generate(long, 1, temperature=0))[0]
    events = model.generate([long, short], 20, temperature=0)
    events.end(0, "stop token")
    found = row_tokens(events, 1)
    assert stop is not None
    assert found == row_tokens(model.generate(short, 20, temperature=0))
    assert len(found) == 20


def test_a_full_context_is_an_error(model: Model) -> None:
    events = model.generate(list(range(20)), 64, temperature=0)
    found: list[TokenEvent] = []
    with pytest.raises(ArchError, match="longer than the context") as error:
        found.extend(events)
    assert error.value.diagnostics[0].code == "generation"
    assert "--slide" in str(error.value)
    with pytest.raises(ArchError, match="longer than the context"):
        next(model.generate([1] * 25, 1))


def test_processors_and_a_length_with_the_prompt(model: Model) -> None:
    prompts = [[4, 9, 2, 7], [8, 1]]
    asked: dict[str, Any] = {"max_new_tokens": 6, "sampling": GREEDY, "seed": 0}
    usual = {row_tokens(model.generate(prompt, 1, temperature=0))[0] for prompt in prompts}
    never, last = Forbid(tuple((token,) for token in usual)), ForceLast((5,))
    events = generate(model, prompts, **asked, processors=[never, last], max_length=7)
    found = list(events)
    assert [[p.tokens[row] for p in found if p.tokens[row] is not None] for row in (0, 1)] == [
        events.rows[0][4:7],
        events.rows[1][2:7],
    ]
    assert events.ended == ["length", "length"]
    assert (events.rows[0][6], events.rows[1][6]) == (5, 5)
    assert not usual & {*events.rows[0][4:7], *events.rows[1][2:7]} - {5}
    with pytest.raises(ArchError, match="a prompt is as long as max_length"):
        generate(model, prompts, **asked, max_length=4)
    with pytest.raises(ArchError, match="a token of the logits processors is out of range"):
        next(generate(model, prompts, **asked, processors=[ForceLast((50,))]))


def test_sliding_drops_the_older_half(model: Model) -> None:
    prompt = list(range(1, 21))
    events = model.generate(prompt, 30, temperature=0, slide=True)
    row, visible = list(prompt), list(prompt)
    for piece in events:
        if len(visible) == 25:
            visible = visible[12:]
        (token,) = piece.tokens
        assert token == full(model, visible).argmax()
        row.append(token)
        visible.append(token)
    assert len(row) == 50
    # The same next to a row that does not slide.
    both = generate(
        model, [[3], prompt], max_new_tokens=12, sampling=GREEDY, seed=0, slide=True
    )
    assert row_tokens(both, 1) == row[20:32]


def test_cached_tokens_are_not_computed_again(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed: list[int] = []
    step = Decoder._step

    def counted(decoder: Decoder, columns: Any, count: int, last: bool) -> Any:
        fed.append(count)
        return step(decoder, columns, count, last)

    monkeypatch.setattr(Decoder, "_step", counted)
    session = made().session(1)
    prompt = [5, 9, 4, 17, 3, 30, 2, 2, 8, 41]
    cases = [(prompt, 32), ([*prompt, 6], 1), ([*prompt[:6], 1, 2], 2), (prompt[:4], 1)]
    for row, count in cases:
        fed.clear()
        found = session.next_logits([row], NONE)[0]
        assert sum(fed) == count
        np.testing.assert_allclose(found, full(model, row), atol=1e-4)


def test_generations_share_a_session() -> None:
    model = made()
    alone = [row_tokens(model.generate(p, 6, temperature=0)) for p in ([3, 4], [9, 1, 2])]
    one, two = (model.generate(p, 6, temperature=0) for p in ([3, 4], [9, 1, 2]))
    turns = list(zip(one, two, strict=True))
    assert [a.tokens[0] for a, _ in turns] == alone[0]
    assert [b.tokens[0] for _, b in turns] == alone[1]


def test_new_weights_clear_the_cache() -> None:
    model, other = made(), made("gpt2.arch")
    row_tokens(model.generate([1, 2, 3], 4, temperature=0))
    for weight in other.parameters.values():
        weight.assign(weight * 1.5).realize()
    arrays = {name: weight.numpy() for name, weight in other.parameters.items()}
    model.fill({n: LazyTensor("float32", a.shape, lambda a=a: a) for n, a in arrays.items()})
    for ours in (model, other):
        assert row_tokens(ours.generate([1, 2, 3], 4, temperature=0)) == row_tokens(
            other.generate([1, 2, 3], 4, temperature=0)
        )


def test_an_encoder_decoder_gets_a_source() -> None:
    sizes = {**SMALL, "heads": 3}
    model = archdsl.compile("transformer.arch", device="CPU", seed=3, **sizes)
    sources = np.array([[5, 6, 7, 8], [30, 31, 32, 0]])
    events = generate(
        model,
        [[1], [1]],
        max_new_tokens=4,
        sampling=GREEDY,
        seed=0,
        others={"source": sources},
    )
    rows = np.array([[1], [1]])
    for n, piece in enumerate(events):
        target = np.pad(rows, ((0, 0), (0, 3 - n)))
        logits = model(target=target, source=sources)["logits"].numpy()[:, n]
        logits[:, 0] = -np.inf  # padding
        assert list(piece.tokens) == logits.argmax(1).tolist()
        rows = np.concatenate([rows, np.array([piece.tokens]).T], axis=1)
    with pytest.raises(ArchError, match="the input `source` is missing"):
        next(model.generate([1], 4))


@pytest.mark.reference("tokenizers")
def test_text_generation_needs_a_model_of_tokens_only() -> None:
    model = archdsl.compile("transformer.arch", device="CPU", **SMALL, heads=3)
    with pytest.raises(ArchError, match="needs more inputs than tokens"):
        model.stream_text(letters(), "a")


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([[]], {}, "prompt 0 has no tokens"),
        ([], {}, "prompt 0 has no tokens"),
        ([[1], [50]], {}, "prompt 1 has a token outside the model's vocabulary"),
        ([1, -1], {}, "prompt 0 has a token outside the model's vocabulary"),
        ([1], {"max_new_tokens": 0}, "max_new_tokens cannot be 0"),
        ([1], {"max_new_tokens": 2.5}, "max_new_tokens cannot be 2.5"),
        ([1], {"temperature": -1}, "the temperature is out of range"),
        ([1], {"temperature": "a"}, "temperature cannot be 'a'"),
        ([1], {"top_k": float("inf")}, "top-k is out of range"),
        ([1], {"seed": -1}, "seed cannot be -1"),
        ([1], {"seed": None}, "seed cannot be None"),
        ([1.7], {}, "not a list of token ids"),
        ([True], {}, "not a list of token ids"),
        ([float("nan")], {}, "not a list of token ids"),
        (np.array([3.5, 4.2]), {}, "not a list of token ids"),
        (np.int64(3), {}, "not a list of token ids"),
        ("abc", {}, "not a list of token ids"),
        (None, {}, "not a list of token ids"),
        ([1, [2]], {}, "not a list of token ids"),
        ([1], {"stop": 3}, "stop is not a list of token ids"),
        ([1], {"stop": [[1], [2]]}, "stop is not a list of token ids"),
    ],
)
def test_invalid_arguments(
    model: Model, prompts: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArchError, match=message):
        model.generate(prompts, **options)


# -- text --


def tokenizer_of(tokens: dict[str, int], special: list[str]) -> TextTokenizer:
    """A tokenizer with the given text for each token."""
    import tokenizers

    library = tokenizers.Tokenizer(tokenizers.models.WordLevel(tokens, unk_token="?"))
    library.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    library.decoder = tokenizers.decoders.Fuse()
    library.add_special_tokens(special)
    eos = tuple(tokens[name] for name in special)
    return TextTokenizer(PublishedTokenizer(library, None, eos, None), "made here")


def letters() -> TextTokenizer:
    names = ["?", *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVW", ""]
    return tokenizer_of({name: i for i, name in enumerate(names)}, [""])


@pytest.mark.reference("tokenizers")
def test_the_text_is_that_of_the_tokens(model: Model) -> None:
    tokenizer = letters()
    ids = tokenizer.encode("hello")
    plain = tokenizer.decode(row_tokens(model.generate(ids, 9, temperature=0)))
    found = list(model.stream_text(tokenizer, ["hello", "bc"], 9, temperature=0))
    assert "".join(each.text for each in found if each.row == 0) == plain
    assert {each.row for each in found} == {0, 1}
    alone = model.stream_text(tokenizer, "hello", 9, temperature=0)
    assert "".join(each.text for each in alone) == plain


@pytest.mark.reference("tokenizers")
@pytest.mark.parametrize("temperature", [0, 1.5])
def test_rows_without_a_token_are_not_chosen(model: Model, temperature: float) -> None:
    few = tokenizer_of({"a": 0, "b": 1, "c": 7}, [])
    options: dict[str, Any] = {"max_new_tokens": 15, "temperature": temperature}
    found = [each.token for each in model.stream_text(few, "ab", **options)]
    assert set(found) <= {0, 1, 7}
    assert len(found) == 15
    # An end token may be one that the tokenizer does not have.
    found = [e.token for e in model.stream_text(few, "ab", stop_tokens=range(8, 50), **options)]
    assert set(found) <= {0, 1, *range(7, 50)}


def test_an_end_token_that_is_padding_is_an_error() -> None:
    """It would never be learned, because losses skip it, and never be chosen."""
    model = archdsl.compile("transformer.arch", device="CPU", **{**SMALL, "heads": 3})
    options: dict[str, Any] = {"max_new_tokens": 4, "sampling": GREEDY, "seed": 0}
    options["others"] = {"source": np.array([[5, 6]])}
    with pytest.raises(ArchError, match="the end token 0 is also the padding of `target`"):
        generate(model, [[1]], stop=[0, 2], **options)
    assert generate(model, [[1]], stop=[2], **options)


@pytest.mark.reference("tokenizers")
def test_a_stop_string_ends_the_text_before_it(model: Model) -> None:
    tokenizer = letters()
    options: Any = {"max_new_tokens": 12, "temperature": 3.0, "seed": 4}
    plain = "".join(each.text for each in model.stream_text(tokenizer, "ab", **options))
    assert len(set(plain[:8])) > 4
    stop = plain[4:7]  # three tokens
    unmet = plain[1:3] + "~"  # starts to match, but does not
    assert plain.index(stop) == 4
    found = list(model.stream_text(tokenizer, "ab", stop=[unmet, stop], **options))
    assert "".join(each.text for each in found) == plain[:4]
    assert len(found) == 7
    assert [each.ended for each in found] == [None] * 6 + ["stop string"]
    with pytest.raises(ArchError, match="a stop string is empty"):
        model.stream_text(tokenizer, "a", stop=[""], **options)
    token = tokenizer.number(plain[4])
    found = list(model.stream_text(tokenizer, "ab", stop_tokens=[token], **options))
    assert "".join(each.text for each in found) == plain[: plain.index(plain[4])]
    assert (found[-1].token, found[-1].ended) == (token, "stop token")


class Fixed:
    """A stand-in for `Generation` with given tokens."""

    def __init__(self, prompt: list[int], tokens: list[int], stop: int):
        self.rows = [prompt]
        ends: list[Any] = [None] * (len(tokens) - 1)
        ends.append("stop token" if tokens[-1] == stop else "length")
        self.events = [
            TokenEvent((t,), (-1.0,), (e,)) for t, e in zip(tokens, ends, strict=True)
        ]
        self.stopped = False

    def __iter__(self) -> Any:
        for piece in self.events:
            if self.stopped:
                return
            yield piece

    def end(self, row: int, reason: str) -> None:
        self.stopped = True


@pytest.mark.reference("tokenizers")
def test_characters_are_not_split() -> None:
    import tokenizers

    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    ids = {letter: i for i, letter in enumerate(alphabet)}
    library = tokenizers.Tokenizer(tokenizers.models.BPE(ids, []))
    library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = tokenizers.decoders.ByteLevel()
    tokenizer = TextTokenizer(PublishedTokenizer(library, None, (), None), "bytes")

    def chunks(text: str, *stops: str, drop: int = 0) -> list[str]:
        tokens = tokenizer.encode(text)
        events: Any = Fixed(tokenizer.encode("x"), tokens[: len(tokens) - drop], -1)
        return [each.text for each in _text_chunks(events, tokenizer, stops)]

    assert chunks("né€") == ["n", "", "é", "", "", "€"]
    assert chunks("a€", drop=1) == ["a", "", "\N{REPLACEMENT CHARACTER}"]
    assert chunks("ab END", "END ") == ["a", "b", " ", "", "", "END"]
    assert chunks("abEEND!", "END") == ["a", "b", "", "E", "", ""]
    assert chunks("abcd", "bc", "bcd", "b") == ["a", ""]


# -- scores --


def test_windows_predict_each_token_once() -> None:
    for tokens in range(2, 30):
        for window in range(2, 9):
            for stride in range(1, window + 1):
                found = windows(tokens, window, stride)
                predicted = [t for _, first, end in found for t in range(first, end)]
                assert len(predicted) == len(set(predicted))
                assert all(0 <= end - start <= window for start, _, end in found)
                missing = set(range(tokens)) - set(predicted)
                borders = {0} if stride < window else set(range(0, tokens, stride))
                assert missing == borders


@pytest.mark.few(1)
@pytest.mark.parametrize("count", [24, 41])
def test_perplexity_is_that_of_the_loss(model: Model, count: int) -> None:
    tokens = np.random.default_rng(2).integers(0, 50, count).tolist()
    *_, found = score(model, tokens, window=8)
    parts = [tokens[i : i + 8] for i in range(0, count, 8)]
    losses = [
        (float(model.loss(tokens=[part]).numpy()), len(part) - 1)
        for part in parts
        if len(part) > 1
    ]
    predicted = sum(n for _, n in losses)
    mean = sum(loss * n for loss, n in losses) / predicted
    assert (found.tokens, found.predicted, found.windows) == (count, predicted, len(losses))
    assert found.perplexity == pytest.approx(math.exp(mean), rel=1e-5)


def test_overlapping_windows_see_more(model: Model) -> None:
    tokens = np.random.default_rng(3).integers(0, 50, 20).tolist()
    *_, found = score(model, tokens, window=8, stride=4)
    right = 0.0
    for place in range(1, 20):
        start = 0 if place < 8 else (place - 4) // 4 * 4
        logits = full(model, tokens[start:place])
        right += math.log(np.exp(logits - logits.max()).sum()) + logits.max()
        right -= logits[tokens[place]]
    assert found == Score(20, 19, pytest.approx(right, rel=1e-5), 4)


@pytest.mark.parametrize(
    ("tokens", "options", "message"),
    [
        ([1], {}, "too short for a score"),
        ([1, 2], {"window": 25}, "the window is out of range"),
        ([1, 2], {"window": 8, "stride": 9}, "the stride is out of range"),
    ],
)
def test_invalid_arguments_of_score(
    model: Model, tokens: list[int], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArchError, match=message):
        score(model, tokens, **options)
