"""Tokens and text that a model goes on with, as they come, for several prompts at once.

How a token is chosen is in `sampling`, how logits are computed step by step in `decoding`, and
how tokens become text in `texts`. Of what a decoder was fed before, in this call or an earlier
one, nothing is fed again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn, Protocol

import numpy as np

from archdsl.diagnostics import fail, listing
from archdsl.execution.decoder import FEW, Decoder, Logits
from archdsl.execution.executable import Executable
from archdsl.generation.processors import DecodingLoop, Forbid, Processor, Progress, Scores
from archdsl.generation.sampling import Sampler, Sampling
from archdsl.graph.nodes import Graph, Input
from archdsl.passes.decoding_analysis import CHUNK
from archdsl.text.text_tokenizer import TextTokenizer

STOP_TOKEN, STOP_STRING, LENGTH = "stop token", "stop string", "length"

_FILLER = 0  # the token that a row is fed once it has ended
_PRIMING = 8  # tokens of the prompt that the first new one is decoded with
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Piece:
    """The next token of every row, its natural log-probability, and why the row has ended.

    A row that had ended before has no token and no log-probability; the reason, "stop token",
    "stop string" or "length", stays. A stop token is among the tokens, as the row's last.
    """

    tokens: tuple[int | None, ...]
    log_probs: tuple[float | None, ...]
    ended: tuple[str | None, ...]


class Reader:
    """A decoder of a model's, and the sequences that it was fed.

    Several generations can take turns on it: each says whole sequences, and what of them the
    decoder has not got is fed.
    """

    def __init__(self, executable: Executable, rows: int):
        self.decoder = Decoder(executable, rows)
        self._fed: list[list[int]] = [[]] * rows
        self._others: Mapping[str, Any] = _NOTHING

    def following(self, rows: Sequence[list[int]], others: Mapping[str, Any]) -> Logits:
        """The logits [rows, vocab] of the token after each of these sequences.

        `others` are the inputs that are not tokens, each [rows, …]; they are looked at anew
        only where the mapping is another one than before.
        """
        fed, self._fed = self._fed, [[]] * len(rows)  # should it be interrupted
        if others is not self._others:
            self._others, fed = {}, [[]] * len(rows)
            self.decoder.begin(**others)
            self._others = others
        if len(rows) == 1:
            known = self.decoder.truncate(_known(fed[0], rows[0]))
            fed = [rows[0][:known]]
        new = [row[len(f) :] for row, f in zip(rows, fed, strict=True) if row[: len(f)] == f]
        same = len(new) == len(rows) and len(set(map(len, new))) == 1 and bool(new[0])
        if same and all(fed):
            logits = self.decoder.feed(np.array(new, np.int64), last=True)[:, -1]
        else:
            logits = self.decoder.prefill(rows)
        self._fed = [list(row) for row in rows]
        return logits


def _known(fed: list[int], row: list[int]) -> int:
    """How many tokens of a row need not be fed again.

    The last one needs it, for its logits; and whole chunks are quicker than single tokens.
    """
    pairs = zip(fed, row[:-1], strict=False)
    known = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(fed), len(row) - 1))
    new = len(row) - known
    return known if new < FEW else max(len(row) - -(-new // CHUNK) * CHUNK, 0)


class Predictor(Protocol):
    """A model, as far as generation knows it."""

    @property
    def graph(self) -> Graph: ...

    def reader(self, rows: int) -> Reader: ...


class Generation(DecodingLoop[Piece]):
    """What `generate` returns: an iterator of pieces whose rows can be ended from outside."""

    def __init__(
        self,
        model: Predictor,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        sampling: Sampling,
        seed: int,
        stop: Sequence[int],
        slide: bool,
        others: Mapping[str, Any],
        processors: Sequence[Processor] = (),
        max_length: int | None = None,
        log_probs: bool = True,
    ):
        if not len(prompts):
            fail("generation", "there is no prompt", expected="a list of tokens for each row")
        self.rows = [[int(token) for token in prompt] for prompt in prompts]
        self.ended: list[str | None] = [None] * len(self.rows)
        self._reader = model.reader(len(self.rows))
        self._model = model
        plan = self._reader.decoder.plan
        self._tokens = next(i for i in model.graph.inputs if i.name == plan.tokens)
        _check(self._tokens, self.rows)
        self._sampler = Sampler(sampling, seed, len(self.rows), log_probs)
        # Padding is never the next token.
        pad = self._tokens.pad
        self.processors = [*([] if pad is None else [Forbid(((pad,),))]), *processors]
        self._made = 0
        self._most = _most(self.rows, max_new_tokens, max_length)
        self._stop, self._slide = frozenset(stop), slide
        self.needed = {each.name for each in model.graph.inputs} - {plan.tokens}
        self._others = _own(others) if others or self.needed else _NOTHING

    def end(self, row: int, reason: str) -> None:
        """Has a row end here, unless it has."""
        self.ended[row] = self.ended[row] or reason

    def progress(self) -> Progress | None:
        if all(self.ended):
            return None
        limit = self._reader.decoder.limit
        longest = max(len(r) for r, e in zip(self.rows, self.ended, strict=True) if not e)
        if longest > limit and not self._slide:
            _fail_at_context_end(self._model, limit, longest)
        return Progress(self.rows, self._made, [most - self._made for most in self._most])

    def score(self, at: Progress) -> Logits:
        limit = self._reader.decoder.limit
        visible = [_visible(row, limit) for row in self.rows]
        return self._reader.following(visible, self._others)

    def choose(self, scores: Scores, at: Progress) -> Piece:
        before = tuple(self.ended)
        tokens, log_probs = self._sampler.pick(scores, self.rows)
        self._made += 1
        for row, token in enumerate(tokens.tolist()):
            self.rows[row].append(_FILLER if before[row] else token)
            if token in self._stop:
                self.end(row, STOP_TOKEN)
            elif at.left[row] == 1:
                self.end(row, LENGTH)
        return Piece(
            tuple(None if e else t for t, e in zip(tokens.tolist(), before, strict=True)),
            tuple(None if e else p for p, e in zip(log_probs.tolist(), before, strict=True)),
            tuple(self.ended),
        )


def generate(
    model: Predictor,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    sampling: Sampling,
    seed: int,
    stop: Sequence[int] = (),
    slide: bool = False,
    others: Mapping[str, Any] = _NOTHING,
    processors: Sequence[Processor] = (),
    max_length: int | None = None,
) -> Generation:
    """The tokens that follow each prompt, of whatever length each is, step by step.

    A row ends behind a token of `stop`, after `max_new_tokens`, or at `max_length` tokens,
    prompt and all; what it says depends on no other row. At the end of the model's context
    `ArchError` "generation" is raised, or with `slide` the older half of the row's context is
    forgotten, and the rest fed anew. `others` are the inputs that are not tokens, each
    [rows, …], such as an encoder's source. The `processors` change the logits before a token
    is chosen.

    Raises `ArchError`: "generation" for a model that predicts no tokens and for numbers out of
    range, "not-causal" for one that cannot be computed step by step, "input" for prompts and
    inputs that are not the model's.
    """
    return Generation(
        model,
        prompts,
        max_new_tokens,
        sampling,
        seed,
        stop,
        slide,
        others,
        processors,
        max_length,
    )


def _most(
    rows: Sequence[Sequence[int]], max_new_tokens: int, max_length: int | None
) -> list[int]:
    """How many tokens each row can have after its prompt."""
    if max_new_tokens < 1:
        fail(
            "generation",
            "there are no tokens to make",
            expected="1 or more",
            found=str(max_new_tokens),
        )
    if max_length is None:
        return [max_new_tokens] * len(rows)
    longest = max(map(len, rows))
    if longest >= max_length:
        fail(
            "generation",
            "a prompt leaves no room for a token",
            expected=f"fewer than {max_length} tokens",
            found=f"{longest} tokens",
            help="`max_new_tokens` (`--max-new-tokens`) counts without the prompt",
        )
    return [min(max_new_tokens, max_length - len(row)) for row in rows]


def _own(others: Mapping[str, Any]) -> Mapping[str, Any]:
    """Inputs that no caller changes. Who gives a mapping that cannot be changed may give it to
    several generations, and a decoder that has begun with it does not begin anew."""
    shared = isinstance(others, MappingProxyType) and others
    return others if shared else dict(others)


def _visible(row: list[int], limit: int) -> list[int]:
    """What the next token is predicted from: all of a row, or what is left of it when, half a
    context at a time, enough has slid out. It depends on the row alone."""
    half = max(limit // 2, 1)
    beyond = max(len(row) - limit, 0)
    return row[-(-beyond // half) * half :]


def _check(tokens: Input, rows: Sequence[Sequence[int]]) -> None:
    below = tokens.type.below
    for number, row in enumerate(rows):
        if not row:
            fail(
                "generation",
                f"prompt {number} has no tokens",
                expected="one token or more",
                help="a start token makes a prompt, where the model has one",
            )
        wrong = [token for token in row if token < 0 or (below and token >= below)]
        if wrong:
            fail(
                "input",
                f"prompt {number} has a token that the model has not",
                tokens.span,
                expected=f"0 to {below - 1}" if below else "0 or more",
                found=str(wrong[0]),
                help="is the tokenizer the model's?",
            )


def _fail_at_context_end(model: Predictor, limit: int, tokens: int) -> NoReturn:
    fail(
        "generation",
        f"the context of `{model.graph.name}` ends after {limit} tokens",
        found=f"a text of {tokens}",
        help="`slide` (`--slide`) forgets the older half and goes on",
    )


# -- text --


class Said(NamedTuple):
    """A new token of a row, the text that is certain with it (perhaps none), and as in Piece.

    The text comes without stop strings, and without stop tokens.
    """

    row: int
    text: str
    token: int
    log_prob: float
    ended: str | None


def saying(
    model: Predictor,
    tokenizer: TextTokenizer,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    sampling: Sampling,
    seed: int,
    stop_strings: Sequence[str] = (),
    stop_tokens: Sequence[int] = (),
    slide: bool = False,
    processors: Sequence[Processor] = (),
    max_length: int | None = None,
) -> Iterator[Said]:
    """`generate` with the text of each token, ended by the tokenizer's end tokens, by any of
    `stop_tokens`, and by any of `stop_strings`, wherever the borders of tokens are in it."""
    if not all(stop_strings):
        fail("generation", "a stop string is empty", expected="a text that ends what is said")
    pieces = generate(
        model,
        prompts,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        seed=seed,
        stop=(*tokenizer.eos, *stop_tokens),
        slide=slide,
        processors=processors,
        max_length=max_length,
    )
    if pieces.needed:
        fail(
            "generation",
            f"`{model.graph.name}` goes on from {listing(sorted(pieces.needed), 'and')}, too",
            expected="a model that goes on from a text alone",
            help="`archdsl translate` gives it a text beside, `archdsl transcribe` sound",
        )
    return _said(pieces, tokenizer, stop_strings)


def _said(
    pieces: Generation, tokenizer: TextTokenizer, stop_strings: Sequence[str]
) -> Iterator[Said]:
    streams = [tokenizer.stream() for _ in pieces.rows]
    for stream, prompt in zip(streams, pieces.rows, strict=True):
        for before in prompt[-_PRIMING:]:
            stream.push(before)
    held = [""] * len(streams)
    for piece in pieces:
        for row, token in enumerate(piece.tokens):
            log_prob, ended = piece.log_probs[row], piece.ended[row]
            if token is None or log_prob is None:
                continue
            text = held[row]
            if ended != STOP_TOKEN:
                text += streams[row].push(token)
            if ended:
                text += streams[row].flush()
            places = [place for s in stop_strings if (place := text.find(s)) >= 0]
            if places:
                pieces.end(row, STOP_STRING)
                text, ended = text[: min(places)], STOP_STRING
            cut = len(text) - (0 if ended else _begun(text, stop_strings))
            held[row] = text[cut:]
            yield Said(row, text[:cut], token, log_prob, ended)


def prompted(tokenizer: TextTokenizer, text: str) -> list[int]:
    """A prompt's tokens; for an empty one the start token, where one is known."""
    ids = tokenizer.encode(text)
    return [tokenizer.bos] if not ids and tokenizer.bos is not None else ids


def _begun(text: str, stop_strings: Sequence[str]) -> int:
    """How many characters at the end of a text could be the beginning of a stop string."""
    lengths = range(min(len(text), max(map(len, stop_strings), default=1) - 1), 0, -1)
    return next((n for n in lengths if any(s.startswith(text[-n:]) for s in stop_strings)), 0)
