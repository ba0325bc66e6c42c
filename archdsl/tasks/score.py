"""The perplexity of a text, computed window by window."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from archdsl.diagnostics import ArchError, Diagnostic
from archdsl.model import Model
from archdsl.passes.split_decoding import split_decoding
from archdsl.progress import each

_WINDOW = 1024  # default in tokens, unless the model's bound is less
_BLOCK = 64  # positions per block, to limit memory


@dataclass(frozen=True)
class Score:
    """The score of a text of `tokens` after some windows.

    `nats` is the sum of the negative natural log-probabilities of the `predicted` tokens.
    """

    tokens: int
    predicted: int
    nats: float
    windows: int

    @property
    def perplexity(self) -> float:
        """The exponential of the mean nats per token; infinity if float64 overflows.

        >>> round(Score(tokens=3, predicted=2, nats=2 * math.log(5), windows=1).perplexity, 9)
        5.0
        """
        mean = self.nats / self.predicted
        return math.exp(mean) if mean < math.log(1e308) else math.inf


def windows(tokens: int, window: int, stride: int) -> list[tuple[int, int, int]]:
    """Returns the windows as (start, first predicted token, end).

    A window does not predict its first token, or tokens that an earlier window predicted.

    >>> windows(10, window=4, stride=4)
    [(0, 1, 4), (4, 5, 8), (8, 9, 10)]
    >>> windows(9, window=4, stride=2)
    [(0, 1, 4), (2, 4, 6), (4, 6, 8), (6, 8, 9)]
    """
    found: list[tuple[int, int, int]] = []
    done = 0
    for start in range(0, tokens, stride):
        first, end = max(done, start + 1), min(start + window, tokens)
        if first < end:
            found.append((start, first, end))
        done = end
        if end == tokens:
            break
    return found


def score(
    model: Model, tokens: Sequence[int], window: int | None = None, stride: int | None = None
) -> Iterator[Score]:
    """Yields the score after each window; the last one is the score of the whole text.

    - `window`: tokens per window. Default: the model's bound, at most 1024.
    - `stride`: tokens between the starts of two windows. Default: `window`.

    Each token is predicted once, in the first window that contains it. Raises `ArchError`
    "generation" for a model that predicts no tokens, for sizes out of range and for a text of
    fewer than two tokens.
    """
    plan = split_decoding(model.graph)
    bound = model.graph.bounds[plan.axis]
    window = min(bound, _WINDOW) if window is None else window
    stride = window if stride is None else stride
    _check(model, plan.tokens, bound, window, stride, len(tokens))
    return _scores(model, plan.tokens, plan.logits, np.asarray(tokens), window, stride)


def _scores(
    model: Model, name: str, output: str, tokens: NDArray[np.int64], window: int, stride: int
) -> Iterator[Score]:
    predicted, nats = 0, 0.0
    places = windows(len(tokens), window, stride)
    scored = each(places, "scoring", "windows", len(places))
    for number, (start, first, end) in enumerate(scored, 1):
        logits = model(**{name: tokens[None, start:end]})[output].numpy()[0]  # [n, vocab]
        nats += _nats(logits[first - 1 - start : -1], tokens[first:end])
        predicted += end - first
        yield Score(len(tokens), predicted, nats, number)


def _nats(logits: NDArray[np.float32], tokens: NDArray[np.int64]) -> float:
    """Returns the sum of the negative log-probabilities of tokens [n] by logits [n, vocab]."""
    total = 0.0
    for start in range(0, len(tokens), _BLOCK):
        block = logits[start : start + _BLOCK].astype(np.float64)  # [b, vocab]
        right = block[np.arange(len(block)), tokens[start : start + _BLOCK]]  # [b]
        largest = block.max(axis=1)  # [b]
        sums = np.exp(block - largest[:, None]).sum(axis=1)  # [b]
        total += float((largest + np.log(sums) - right).sum())
    return total


def _check(model: Model, name: str, bound: int, window: int, stride: int, tokens: int) -> None:
    others = [each.name for each in model.graph.required if each.name != name]
    rules = (
        (
            not others,
            f"`{model.graph.name}` needs more inputs than `{name}`",
            "no other input",
            None,
        ),
        (2 <= window <= bound, "the window is out of range", f"2 to {bound} tokens", window),
        (1 <= stride <= window, "the stride is out of range", f"1 to {window} tokens", stride),
        (tokens >= 2, "the text is too short for a score", "two tokens or more", tokens),
    )
    wrong = [
        Diagnostic("generation", message, None, expected, None if found is None else str(found))
        for holds, message, expected, found in rules
        if not holds
    ]
    if wrong:
        raise ArchError(wrong)
