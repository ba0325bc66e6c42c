"""Streaming generation: the tokens that follow one prompt or several.

`sampling` chooses tokens, `execution.decoder` computes logits step by step, and `text_stream`
turns tokens into text. A prefix that is still in the decoder's cache, from
this call or an earlier one, is not computed again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NoReturn, Protocol

import numpy as np

from archdsl.diagnostics import Note, fail
from archdsl.execution.arguments import whole_number
from archdsl.execution.decoder import FEW, Decoder, Logits
from archdsl.execution.executable import Executable
from archdsl.frozen import Frozen
from archdsl.generation.processors import (
    DecodingLoop,
    Forbid,
    Processor,
    Progress,
    Scores,
)
from archdsl.generation.sampling import Sampler, Sampling
from archdsl.graph.nodes import Graph, Input
from archdsl.passes.decoding_analysis import CHUNK

STOP_TOKEN, STOP_STRING, LENGTH = "stop token", "stop string", "length"

_FILLER = 0  # the token that is fed to a row that has ended
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class TokenEvent(Frozen):
    """One step of generation: for each row, its new token, log-probability and end reason.

    Log-probabilities are natural logarithms. `ended` is None, "stop token", "stop string" or
    "length". A row that ended in an earlier step has token None and log-probability None, and
    keeps its reason. A stop token is returned as the last token of its row.
    """

    tokens: tuple[int | None, ...]
    log_probs: tuple[float | None, ...]
    ended: tuple[str | None, ...]


class Session:
    """A decoder that remembers which tokens are in its cache (a prefix cache).

    Callers pass whole sequences. Only the tokens after the cached prefix are computed, so
    several generations can use one session in turn.
    """

    def __init__(self, executable: Executable, rows: int):
        self.decoder = Decoder(executable, rows)
        self._cached: list[list[int]] = [[]] * rows
        self._others: Mapping[str, Any] = _NOTHING

    def forget(self) -> None:
        """Drops the cached prefix: the weights have changed."""
        self._cached = [[]] * len(self._cached)

    def next_logits(self, rows: Sequence[list[int]], others: Mapping[str, Any]) -> Logits:
        """Returns the logits [rows, vocab] of the token after each sequence.

        `others` are the inputs that are not tokens, each [rows, …]. They are computed again
        only if `others` is not the same object as in the last call.
        """
        # The cache counts as empty until this call succeeds; it may be interrupted.
        cached, self._cached = self._cached, [[]] * len(rows)
        if others is not self._others:
            self._others, cached = {}, [[]] * len(rows)
            self.decoder.begin(**others)
            self._others = others
        if len(rows) == 1:
            length = self.decoder.truncate(_reusable_length(cached[0], rows[0]))
            cached = [rows[0][:length]]
        pairs = zip(rows, cached, strict=True)
        new = [row[len(prefix) :] for row, prefix in pairs if row[: len(prefix)] == prefix]
        same = len(new) == len(rows) and len(set(map(len, new))) == 1 and bool(new[0])
        if same and all(cached):
            logits = self.decoder.feed(np.array(new, np.int64), last=True)[:, -1]
        else:
            logits = self.decoder.prefill(rows)
        self._cached = [list(row) for row in rows]
        return logits


def _reusable_length(cached: list[int], row: list[int]) -> int:
    """Returns how many cached tokens of a row are reused.

    The last token is always computed, for its logits. Many new tokens are rounded up to
    whole chunks, which are faster than single tokens.
    """
    pairs = zip(cached, row[:-1], strict=False)
    longest = min(len(cached), len(row) - 1)
    common = next((i for i, (a, b) in enumerate(pairs) if a != b), longest)
    new = len(row) - common
    return common if new < FEW else max(len(row) - -(-new // CHUNK) * CHUNK, 0)


class Predictor(Protocol):
    """The part of `Model` that generation needs."""

    @property
    def graph(self) -> Graph: ...

    def session(self, rows: int) -> Session: ...


class Generation(DecodingLoop[TokenEvent]):
    """The result of `generate`: an iterator of `TokenEvent`. `end` stops a row from outside."""

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
        self._session = model.session(len(self.rows))
        self._model = model
        plan = self._session.decoder.plan
        self._tokens = next(i for i in model.graph.inputs if i.name == plan.tokens)
        _check_prompts(self._tokens, self.rows)
        self._sampler = Sampler(sampling, seed, len(self.rows), log_probs)
        # Padding is never the next token.
        pad = self._tokens.pad
        if pad is not None and pad in stop:
            _report_padding_that_ends(self._tokens, pad)
        self.processors = [*([] if pad is None else [Forbid(((pad,),))]), *processors]
        self._step = 0
        self._max_new = _max_new_tokens(self.rows, max_new_tokens, max_length)
        self._stop, self._slide = frozenset(stop), slide
        self.needed = {each.name for each in model.graph.required} - {plan.tokens}
        self._others = _copy_inputs(others) if others or self.needed else _NOTHING

    def end(self, row: int, reason: str) -> None:
        """Ends a row, unless it has ended."""
        self.ended[row] = self.ended[row] or reason

    def progress(self) -> Progress | None:
        if all(self.ended):
            return None
        decoder = self._session.decoder
        limit = decoder.limit
        longest = max(len(r) for r, e in zip(self.rows, self.ended, strict=True) if not e)
        if longest > limit and not self._slide:
            _report_full_context(self._model, limit, longest, decoder.plan.shortened)
        return Progress(self.rows, self._step, [most - self._step for most in self._max_new])

    def score(self, at: Progress) -> Logits:
        limit = self._session.decoder.limit
        visible = [_visible_tokens(row, limit) for row in self.rows]
        return self._session.next_logits(visible, self._others)

    def choose(self, scores: Scores, at: Progress) -> TokenEvent:
        before = tuple(self.ended)
        tokens, log_probs = self._sampler.pick(scores, self.rows)
        self._step += 1
        for row, token in enumerate(tokens.tolist()):
            self.rows[row].append(_FILLER if before[row] else token)
            if token in self._stop:
                self.end(row, STOP_TOKEN)
            elif at.left[row] == 1:
                self.end(row, LENGTH)
        return TokenEvent(
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
    """Generates the tokens that follow each prompt, one step at a time.

    Prompts may differ in length, and the tokens of a row do not depend on the other rows.

    - `max_new_tokens`: a row ends after so many new tokens.
    - `max_length`: a row ends at so many tokens, prompt included.
    - `stop`: a row ends after one of these tokens.
    - `slide`: at the end of the model's context, drop the older half of the row's context and
      compute the rest again. Without it, the end of the context is an `ArchError`.
    - `others`: the inputs that are not tokens, each [rows, …], such as an encoder's source.
    - `processors`: change the logits before a token is chosen.

    Raises `ArchError`: "generation" for a model that predicts no tokens and for numbers out of
    range, "not-causal" for a model that cannot be decoded step by step, "input" for prompts
    and inputs that do not fit the model.
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


def _max_new_tokens(
    rows: Sequence[Sequence[int]], max_new_tokens: int, max_length: int | None
) -> list[int]:
    """Returns the maximum number of new tokens of each row."""
    max_new_tokens = whole_number("max_new_tokens", max_new_tokens, 1)
    if max_length is None:
        return [max_new_tokens] * len(rows)
    longest = max(map(len, rows))
    if longest >= max_length:
        fail(
            "generation",
            "a prompt is as long as max_length, so no token can follow",
            expected=f"fewer than {max_length} tokens",
            found=f"{longest} tokens",
            help="set `max_new_tokens` (`--max-new-tokens`), which does not count the prompt",
        )
    return [min(max_new_tokens, max_length - len(row)) for row in rows]


def _copy_inputs(others: Mapping[str, Any]) -> Mapping[str, Any]:
    """Copies the inputs, so that the caller may change its mapping.

    A read-only mapping is not copied: a session recognises it and does not compute it again.
    """
    shared = isinstance(others, MappingProxyType) and others
    return others if shared else dict(others)


def _visible_tokens(row: list[int], limit: int) -> list[int]:
    """Returns the tokens that the next one is predicted from: the whole row, or its end.

    A row that is too long loses half a context at a time. The result depends only on the row.
    """
    half = max(limit // 2, 1)
    beyond = max(len(row) - limit, 0)
    return row[-(-beyond // half) * half :]


def _check_prompts(tokens: Input, rows: Sequence[Sequence[int]]) -> None:
    below = tokens.type.below
    for number, row in enumerate(rows):
        if not row:
            fail(
                "generation",
                f"prompt {number} has no tokens",
                expected="one token or more",
                help="start with the start token, if the model has one",
            )
        wrong = [token for token in row if token < 0 or (below and token >= below)]
        if wrong:
            fail(
                "input",
                f"prompt {number} has a token outside the model's vocabulary",
                tokens.span,
                expected=f"0 to {below - 1}" if below else "0 or more",
                found=str(wrong[0]),
                help="check that the tokenizer belongs to this model",
            )


def _report_padding_that_ends(tokens: Input, pad: int) -> NoReturn:
    fail(
        "generation",
        f"the end token {pad} is also the padding of `{tokens.name}`",
        tokens.span,
        expected="a number for padding that is no token of a text",
        found=f"`pad {pad}`: losses skip it, and it is never the next token, so no text ends",
        help="write `pad` with another number, or without padding train on rows of one length",
    )


def _report_full_context(
    model: Predictor, limit: int, tokens: int, shortened: str | None
) -> NoReturn:
    fail(
        "generation",
        f"the text is longer than the context of `{model.graph.name}`",
        expected=f"at most {limit} tokens",
        found=f"{tokens} tokens",
        notes=(Note(shortened, None),) if shortened else (),
        help="`slide` (`--slide`) drops the older half of the context and continues",
    )
