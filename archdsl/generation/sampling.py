"""The next token, drawn from a model's logits: temperature, top-k, top-p, min-p, repetition.

Knows no model and no tensor library, only numpy. All is computed in float64, one row at a
time, so that what a row says does not depend on the rows beside it. Where logits come from,
and when a text is at its end, is left to the caller; the most probable sequences are those of
`search`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from archdsl.diagnostics import ArchError, Diagnostic, fail
from archdsl.execution.arguments import is_number

Scores = NDArray[np.float64]

# Below it, float32 logits divided by the temperature could leave float64.
_COLDEST = 1e-6


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen. What is left out changes nothing.

    - `temperature` divides the logits; at 0 the likeliest token is taken, of equals the first.
    - `top_k` keeps the k likeliest tokens, and those that tie with the last of them.
    - `top_p` keeps the fewest tokens whose probabilities reach p together (Holtzman et al.
      2019, "The Curious Case of Neural Text Degeneration", section 3.1).
    - `min_p` keeps the tokens at least min_p times as probable as the likeliest (Nguyen et
      al. 2024, "Turning Up the Heat", section 3).
    - `repetition_penalty` divides the logits above 0 of tokens seen before, and multiplies
      those below (Keskar et al. 2019, "CTRL", section 4.1).

    They apply in the order penalty, temperature, top-k, top-p, min-p, each to what the one
    before it left. Raises `ArchError` "generation" for numbers out of range.

    >>> Sampling(temperature=0.8, top_k=40).top_p is None
    True
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not field.default and not is_number(value):
                fail(
                    "generation",
                    f"{field.name} cannot be {value!r:.80}",
                    expected="a number",
                )
        penalty = self.repetition_penalty
        rules = (
            (
                "the temperature",
                self.temperature,
                f"0, which is greedy, or a number from {_COLDEST} up",
                self.temperature == 0 or _COLDEST <= self.temperature < math.inf,
            ),
            (
                "top-k",
                self.top_k,
                "a whole number, at least 1",
                self.top_k is None or (self.top_k >= 1 and float(self.top_k).is_integer()),
            ),
            (
                "top-p",
                self.top_p,
                "above 0, at most 1; 0.9 to 0.95 is usual",
                self.top_p is None or 0 < self.top_p <= 1,
            ),
            (
                "min-p",
                self.min_p,
                "0 to 1; 0.05 to 0.1 is usual",
                self.min_p is None or 0 <= self.min_p <= 1,
            ),
            (
                "the repetition penalty",
                penalty,
                "0.01 to 100; 1 is none, 1.1 to 1.3 is usual",
                0.01 <= penalty <= 100,
            ),
        )
        wrong = [
            Diagnostic("generation", f"{what} is out of range", None, expected, str(found))
            for what, found, expected, holds in rules
            if not holds
        ]
        if wrong:
            raise ArchError(wrong)


class Sampler:
    """Draws the tokens of `rows` texts, each from random numbers of its own.

    Row r draws from a generator made of (seed, r), one number a token: the same seed gives
    the same text, whatever rows are beside it. Log-probabilities take a pass over the
    vocabulary; without `log_probs` they are NaN. Raises `ArchError` "generation" for a seed
    below 0.

    >>> sampler = Sampler(Sampling(temperature=0), seed=0, rows=1)
    >>> tokens, log_probs = sampler.pick(np.log([[0.25, 0.5, 0.25]]), seen=[[]])
    >>> tokens.tolist(), np.exp(log_probs).round(6).tolist()
    ([1], [0.5])
    """

    def __init__(self, sampling: Sampling, seed: int, rows: int, log_probs: bool = True):
        if seed < 0:
            fail(
                "generation",
                "the seed is below 0",
                expected="a whole number, 0 or more",
                found=str(seed),
            )
        self._sampling, self._log_probs = sampling, log_probs
        words = [np.random.SeedSequence([seed, row]) for row in range(rows)]
        self._random = [np.random.Generator(np.random.Philox(each)) for each in words]

    def pick(
        self, logits: NDArray[np.floating], seen: Sequence[Sequence[int]]
    ) -> tuple[NDArray[np.int64], Scores]:
        """The next token of each row, int64 [B], and its natural log-probability, float64 [B].

        `logits` are [B, V]; `seen[r]` are the tokens of row r so far, prompt and all, which
        the repetition penalty is for. The log-probability is the model's own, before anything
        in `Sampling` changed it. A token whose logit is minus infinity is never drawn.

        Raises `ArchError` "generation" where the logits are not numbers, forbid every token,
        or are not one row for each text.
        """
        rows = len(self._random)
        if logits.ndim != 2 or len(logits) != rows or logits.shape[1] == 0 or len(seen) != rows:
            fail(
                "generation",
                "there must be one row of logits, and one of tokens seen, for each text",
                expected=f"[{rows}, vocabulary], and {rows} rows of tokens",
                found=f"{list(logits.shape)}, and {len(seen)} rows of tokens",
            )
        picked = [self._pick(*row) for row in zip(logits, seen, self._random, strict=True)]
        tokens, log_probs = zip(*picked, strict=True) if picked else ((), ())
        return np.array(tokens, np.int64), np.array(log_probs, np.float64)

    def _pick(
        self, logits: NDArray[np.floating], seen: Sequence[int], random: np.random.Generator
    ) -> tuple[int, float]:
        scores = logits.astype(np.float64)
        _check(scores)
        if self._sampling.temperature == 0:  # as below, but without what one token needs not
            token = int(_penalised(scores, seen, self._sampling.repetition_penalty).argmax())
        else:
            token = _draw(warp(scores, seen, self._sampling), random)
        return token, float(scores[token] - _log_total(scores)) if self._log_probs else math.nan


def warp(scores: Scores, seen: Sequence[int], sampling: Sampling) -> Scores:
    """The scores that a token is drawn from, [V]: minus infinity for what is left out.

    Tokens of `seen` that are outside the vocabulary V are passed over: no penalty can make
    them less likely. At temperature 0 only the likeliest token is left.

    >>> warp(np.array([4.0, 3.0, 1.0]), [0], Sampling(2.0, top_k=2, repetition_penalty=2))
    array([ 1. ,  1.5, -inf])
    """
    scores = _penalised(scores, seen, sampling.repetition_penalty)
    if sampling.temperature == 0:
        return _keep(scores, np.arange(len(scores)) == scores.argmax())
    scores = scores / sampling.temperature
    if sampling.top_k is not None:
        least = np.sort(scores)[-sampling.top_k :][0]
        scores = _keep(scores, scores >= least)
    if sampling.top_p is not None:
        scores = _keep(scores, _nucleus(scores, sampling.top_p))
    if sampling.min_p is not None:
        probabilities = _probabilities(scores)
        scores = _keep(scores, probabilities >= sampling.min_p * probabilities.max())
    return scores


def _penalised(scores: Scores, seen: Sequence[int], penalty: float) -> Scores:
    if penalty == 1:
        return scores
    again = np.unique(np.fromiter(seen, np.int64))
    again = again[(again >= 0) & (again < len(scores))]
    scores = scores.copy()
    known = scores[again]
    scores[again] = np.where(known < 0, known * penalty, known / penalty)
    return scores


def _nucleus(scores: Scores, top_p: float) -> NDArray[np.bool_]:
    """Which tokens are among the fewest that reach top_p, the likeliest always.

    Of tokens that tie at the border, the first are in.
    """
    order = np.argsort(-scores, kind="stable")[::-1]  # the least likely first
    reached = np.cumsum(_probabilities(scores)[order])
    inside = np.empty(len(scores), np.bool_)
    inside[order] = reached > 1 - top_p
    inside[order[-1]] = True
    return inside


def _draw(scores: Scores, random: np.random.Generator) -> int:
    """A token drawn with the probabilities of the scores."""
    reached = np.cumsum(_probabilities(scores))
    reached /= reached[-1]  # so that it ends in 1, which every random number is below
    # The first that exceeds the number: never one of probability 0, which adds nothing.
    return int(np.searchsorted(reached, random.random(), side="right"))


def _probabilities(scores: Scores) -> Scores:
    weights: Scores = np.exp(scores - scores.max())
    weights /= weights.sum()
    return weights


def _log_total(scores: Scores) -> float:
    largest = scores.max()
    return float(largest + np.log(np.exp(scores - largest).sum()))


def _keep(scores: Scores, kept: NDArray[np.bool_]) -> Scores:
    return np.where(kept, scores, -np.inf)


def _check(scores: Scores) -> None:
    largest = float(scores.max())
    if not math.isfinite(largest):
        fail(
            "generation",
            "the logits of the next token are not finite",
            expected="finite logits; minus infinity only for tokens that are forbidden",
            found=f"a largest logit of {largest}",
            help="check that the weights are this model's, or compute in float32",
        )
