"""Sampling of the next token: temperature, top-k, top-p, min-p and repetition penalty.

Knows no model, only numpy. Each row is computed alone, in float64, so that its tokens do not
depend on the other rows of the batch. `beam_search` finds the most probable sequences instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from archdsl.diagnostics import ArchError, Diagnostic, fail
from archdsl.execution.arguments import is_number
from archdsl.frozen import Frozen

Scores = NDArray[np.float64]

# Smaller temperatures could overflow float64 for float32 logits.
_MIN_TEMPERATURE = 1e-6


class Sampling(Frozen):
    """The sampling options; the defaults change nothing.

    - `temperature` divides the logits. At 0 the most likely token is taken; of equal ones, the
      first.
    - `top_k` keeps the k most likely tokens, and those equal to the last of them; 0 keeps all.
    - `top_p` keeps the fewest tokens with a total probability of at least p (Holtzman et al.
      2019, "The Curious Case of Neural Text Degeneration", section 3.1).
    - `min_p` keeps the tokens at least min_p times as probable as the most likely one (Nguyen
      et al. 2024, "Turning Up the Heat", section 3).
    - `repetition_penalty` divides positive logits of earlier tokens, and multiplies negative
      ones (Keskar et al. 2019, "CTRL", section 4.1).

    They apply in the order penalty, temperature, top-k, top-p, min-p, each to the tokens that
    are left. Raises `ArchError` "generation" for numbers out of range.

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
                f"0 (greedy), or at least {_MIN_TEMPERATURE}",
                self.temperature == 0 or _MIN_TEMPERATURE <= self.temperature < math.inf,
            ),
            (
                "top-k",
                self.top_k,
                "a whole number, at least 1; 0 keeps all",
                self.top_k is None or (self.top_k >= 0 and float(self.top_k).is_integer()),
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
                "0.01 to 100; 1 has no effect, 1.1 to 1.3 is usual",
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
    """Samples the tokens of `rows` texts, each with its own random numbers.

    Row r uses a generator seeded with (seed, r), and one number per token, so the same seed
    gives the same text regardless of other rows. Without `log_probs`, which take a pass over
    the vocabulary, log-probabilities are NaN. Raises `ArchError` "generation" for a negative
    seed.

    >>> sampler = Sampler(Sampling(temperature=0), seed=0, rows=1)
    >>> tokens, log_probs = sampler.pick(np.log([[0.25, 0.5, 0.25]]), seen=[[]])
    >>> tokens.tolist(), np.exp(log_probs).round(6).tolist()
    ([1], [0.5])
    """

    def __init__(self, sampling: Sampling, seed: int, rows: int, log_probs: bool = True):
        if seed < 0:
            fail(
                "generation",
                "the seed is negative",
                expected="a whole number, 0 or more",
                found=str(seed),
            )
        self._sampling, self._log_probs = sampling, log_probs
        # Greedy choice needs no random numbers, and `numpy.random` takes 10 ms to import.
        greedy = sampling.temperature == 0
        self._random = [None if greedy else _generator(seed, row) for row in range(rows)]

    def pick(
        self, logits: NDArray[np.floating], seen: Sequence[Sequence[int]]
    ) -> tuple[NDArray[np.int64], Scores]:
        """Returns the next token of each row, int64 [B], and its log-probability, float64 [B].

        `logits` are [B, V]. `seen[r]` are the tokens of row r so far, prompt included, for the
        repetition penalty. The natural log-probability is the model's own, before `Sampling`
        changes it. A token with logit minus infinity is never chosen.

        Raises `ArchError` "generation" if logits are NaN or infinite, if all tokens of a row
        are forbidden, or if there is not one row of logits per text.
        """
        rows = len(self._random)
        if logits.ndim != 2 or len(logits) != rows or logits.shape[1] == 0 or len(seen) != rows:
            fail(
                "generation",
                "the logits and the earlier tokens must have one row for each text",
                expected=f"logits [{rows}, vocabulary], and {rows} rows of tokens",
                found=f"logits {list(logits.shape)}, and {len(seen)} rows of tokens",
            )
        chosen = [self._pick(*row) for row in zip(logits, seen, self._random, strict=True)]
        tokens, log_probs = zip(*chosen, strict=True) if chosen else ((), ())
        return np.array(tokens, np.int64), np.array(log_probs, np.float64)

    def _pick(
        self,
        logits: NDArray[np.floating],
        seen: Sequence[int],
        random: np.random.Generator | None,
    ) -> tuple[int, float]:
        scores = logits.astype(np.float64)
        _check_finite(scores)
        if random is None:  # temperature 0: the same token as below, computed faster
            token = int(_penalise(scores, seen, self._sampling.repetition_penalty).argmax())
        else:
            token = _sample(filter_scores(scores, seen, self._sampling), random)
        return token, float(
            scores[token] - _log_sum_exp(scores)
        ) if self._log_probs else math.nan


def filter_scores(scores: Scores, seen: Sequence[int], sampling: Sampling) -> Scores:
    """Returns the scores that a token is sampled from, [V]: minus infinity if excluded.

    Tokens of `seen` outside the vocabulary V are ignored. At temperature 0 only the most
    likely token is left.

    >>> sampling = Sampling(2.0, top_k=2, repetition_penalty=2)
    >>> filter_scores(np.array([4.0, 3.0, 1.0]), [0], sampling)
    array([ 1. ,  1.5, -inf])
    """
    scores = _penalise(scores, seen, sampling.repetition_penalty)
    if sampling.temperature == 0:
        return _exclude_others(scores, np.arange(len(scores)) == scores.argmax())
    scores = scores / sampling.temperature
    if sampling.top_k:
        least = np.sort(scores)[-sampling.top_k :][0]
        scores = _exclude_others(scores, scores >= least)
    if sampling.top_p is not None:
        scores = _exclude_others(scores, _nucleus(scores, sampling.top_p))
    if sampling.min_p is not None:
        probabilities = _probabilities(scores)
        scores = _exclude_others(scores, probabilities >= sampling.min_p * probabilities.max())
    return scores


def _penalise(scores: Scores, seen: Sequence[int], penalty: float) -> Scores:
    if penalty == 1:
        return scores
    tokens = np.unique(np.fromiter(seen, np.int64))
    tokens = tokens[(tokens >= 0) & (tokens < len(scores))]
    scores = scores.copy()
    earlier = scores[tokens]
    scores[tokens] = np.where(earlier < 0, earlier * penalty, earlier / penalty)
    return scores


def _nucleus(scores: Scores, top_p: float) -> NDArray[np.bool_]:
    """Returns the mask of the fewest tokens that reach top_p; it has the most likely one.

    Of equal tokens at the limit, the first are included.
    """
    order = np.argsort(-scores, kind="stable")[::-1]  # the least likely first
    cumulative = np.cumsum(_probabilities(scores)[order])
    inside = np.empty(len(scores), np.bool_)
    inside[order] = cumulative > 1 - top_p
    inside[order[-1]] = True
    return inside


def _generator(seed: int, row: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, row])))


def _sample(scores: Scores, random: np.random.Generator) -> int:
    """Samples a token with the probabilities of the scores."""
    cumulative = np.cumsum(_probabilities(scores))
    cumulative /= cumulative[-1]  # ends in exactly 1; random numbers are below 1
    # The first token above the number; never one of probability 0, which adds nothing.
    return int(np.searchsorted(cumulative, random.random(), side="right"))


def _probabilities(scores: Scores) -> Scores:
    weights: Scores = np.exp(scores - scores.max())
    weights /= weights.sum()
    return weights


def _log_sum_exp(scores: Scores) -> float:
    largest = scores.max()
    return float(largest + np.log(np.exp(scores - largest).sum()))


def _exclude_others(scores: Scores, mask: NDArray[np.bool_]) -> Scores:
    return np.where(mask, scores, -np.inf)


def _check_finite(scores: Scores) -> None:
    largest = float(scores.max())
    if not math.isfinite(largest):
        fail(
            "generation",
            "the logits of the next token are not finite",
            expected="finite logits; minus infinity only for tokens that are forbidden",
            found=f"a largest logit of {largest}",
            help="check that the weights belong to this model, or use dtype float32",
        )
