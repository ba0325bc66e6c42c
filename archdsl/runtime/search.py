"""The most probable sequences that a next-token model can say: greedy and beam search.

Knows no model and no tensor library: a `Scorer` is asked for the next token's logits, and
numpy does the rest. Padding, batching, caches and the memory of an encoder are the
scorer's; what the tokens mean is the tokenizer's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from archdsl.diagnostics import ArchError, Diagnostic

Scorer = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""Prefixes, int64 [N, t], all of one length -> logits of the token after each, [N, V].

A token whose logit is minus infinity is never taken.
"""


@dataclass(frozen=True)
class Hypothesis:
    """A sequence and how probable it is.

    `tokens` begins with the start token, and ends with the end token where `finished`;
    `score` is the sum of the natural log-probabilities of all tokens after the first.
    """

    tokens: tuple[int, ...]
    score: float
    finished: bool

    def penalised(self, alpha: float) -> float:
        """The score divided by the length penalty ((5 + |Y|) / 6) ** alpha.

        |Y| counts the tokens after the start token, the end token among them. Alpha 0
        changes nothing; the larger it is, the better long sequences stand.
        Source: Wu et al. 2016, "Google's Neural Machine Translation System", equation 14.

        >>> Hypothesis((1, 7, 7, 2), -6.0, finished=True).penalised(1.0)
        -4.5
        """
        return self.score / _length_penalty(len(self.tokens) - 1, alpha)


def greedy(scorer: Scorer, bos: int, eos: int, max_length: int) -> Hypothesis:
    """The sequence of the likeliest next tokens: beam search with one beam.

    `max_length` counts both ends. Raises `ArchError` as `beam_search` does.
    """
    return beam_search(scorer, bos, eos, 1, max_length)[0]


def beam_search(
    scorer: Scorer,
    bos: int,
    eos: int,
    beams: int,
    max_length: int,
    length_penalty: float = 0.0,
    best: int | None = None,
    early_stop: bool = True,
) -> tuple[Hypothesis, ...]:
    """The best finished sequences found, best first.

    At every step all live prefixes are scored in one call and the best `beams` of all their
    expansions are kept; those that end with `eos` are put aside and the others live on, so
    that the next step again has `beams` places to fill. Equal scores are ordered by the
    rank of the prefix, then by the token's number.

    The search ends when `beams` sequences have finished. With `early_stop=False` it goes on
    until no live prefix can overtake the worst of those, even by growing to `max_length`
    at no cost. Where a sequence has finished, only finished ones are returned, at most
    `best` of them (default: `beams`); where none has by `max_length` tokens, both ends
    counted, the live ones are, marked unfinished. They are ordered by
    `Hypothesis.penalised(length_penalty)`; `score` itself is never penalised.

    Raises `ArchError` "generation" where the request makes no sense or the logits are not
    numbers.

    >>> chain = np.log([[0.1, 0.5, 0.4], [0.1, 0.0001, 0.8999], [0.3, 0.3, 0.4]])
    >>> for found in beam_search(lambda prefixes: chain[prefixes[:, -1]], 0, 2, 2, 4):
    ...     print(found.tokens, round(float(np.exp(found.score)), 2))
    (0, 1, 2) 0.45
    (0, 2) 0.4
    """
    best = beams if best is None else best
    _check_request(beams, max_length, length_penalty, best)

    def rank(hypothesis: Hypothesis) -> float:
        return -hypothesis.penalised(length_penalty)

    live = [Hypothesis((bos,), 0.0, finished=False)]
    finished: list[Hypothesis] = []
    largest_penalty = _length_penalty(max_length - 1, length_penalty)
    for length in range(1, max_length):
        log_probs = _log_probabilities(scorer, live)  # [N, V]
        if length == 1:
            _check_vocabulary(log_probs.shape[1], eos, beams, max_length)
        expanded = _expand(live, log_probs, eos, beams)
        live = [h for h in expanded if not h.finished]
        finished = sorted(finished + [h for h in expanded if h.finished], key=rank)[:beams]
        if not live:
            break
        # The first live prefix has the highest score; growing can only lower it.
        hope = live[0].score / largest_penalty
        if len(finished) == beams and (early_stop or hope <= -rank(finished[-1])):
            break
    return tuple(sorted(finished or live, key=rank)[:best])


def _expand(
    live: Sequence[Hypothesis], log_probs: NDArray[np.float64], eos: int, beams: int
) -> list[Hypothesis]:
    """The best `beams` of all one-token expansions, best first."""
    scores = (np.array([h.score for h in live])[:, None] + log_probs).reshape(-1)  # [N * V]
    expanded = []
    for index in _best_indices(scores, beams):
        parent, token = divmod(int(index), log_probs.shape[1])
        tokens = (*live[parent].tokens, token)
        expanded.append(Hypothesis(tokens, float(scores[index]), finished=token == eos))
    return expanded


def _best_indices(scores: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """The indices of the `count` largest, largest first, of equals the lower index first.

    >>> _best_indices(np.array([1.0, 3.0, 1.0, -np.inf, 3.0]), 3).tolist()
    [1, 4, 0]
    """
    count = min(count, int(np.count_nonzero(scores > -np.inf)))
    least = np.partition(scores, -count)[-count]
    # All that tie with the last place, since a partition leaves it to chance which come first.
    candidates = np.flatnonzero(scores >= least)
    order = np.argsort(-scores[candidates], kind="stable")
    return candidates[order[:count]]


def _log_probabilities(scorer: Scorer, live: Sequence[Hypothesis]) -> NDArray[np.float64]:
    """The log-softmax of the scorer's logits, [N, V], in float64."""
    prefixes = np.array([h.tokens for h in live], dtype=np.int64)  # [N, t]
    logits = np.asarray(scorer(prefixes), dtype=np.float64)
    count, length = prefixes.shape
    if logits.ndim != 2 or logits.shape[0] != count or logits.shape[1] == 0:
        raise ArchError(
            Diagnostic(
                "generation",
                "the scorer must give one row of logits for each prefix",
                expected=f"[{count}, vocabulary]",
                found=str(list(logits.shape)),
            )
        )
    largest: NDArray[np.float64] = logits.max(axis=1, keepdims=True)
    if not np.isfinite(largest).all():
        wrong = float(largest[~np.isfinite(largest)][0])
        raise ArchError(
            Diagnostic(
                "generation",
                f"after {length} tokens, the logits of the next one are not finite",
                expected="finite logits; minus infinity only for tokens that are forbidden",
                found=f"a largest logit of {wrong}",
                help="check that the weights are this model's, or compute in float32",
            )
        )
    shifted = logits - largest
    normaliser: NDArray[np.float64] = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted - normaliser


def _length_penalty(length: int, alpha: float) -> float:
    return float(((5 + length) / 6) ** alpha)


def _check_request(beams: int, max_length: int, length_penalty: float, best: int) -> None:
    wrong = []
    if beams < 1:
        wrong.append(_refusal("the number of beams", "at least 1; 1 is greedy search", beams))
    elif not 1 <= best <= beams:
        wrong.append(_refusal("the number of results", f"1 to {beams}, the beams", best))
    if max_length < 2:
        expected = "at least 2: the start token and one more"
        wrong.append(_refusal("the maximum length", expected, max_length))
    if not 0 <= length_penalty <= 10:
        expected = "0 (none) to 10; 0.6 to 1 is usual"
        wrong.append(_refusal("the length penalty", expected, length_penalty))
    if wrong:
        raise ArchError(wrong)


def _check_vocabulary(vocabulary: int, eos: int, beams: int, max_length: int) -> None:
    if not 0 <= eos < vocabulary:
        expected = f"0 to {vocabulary - 1}, the model's vocabulary"
        raise ArchError(_refusal("the number of the end token", expected, eos))
    # The last step has the most expansions; the exponent is bounded to spare huge powers.
    steps = min(max_length - 2, beams.bit_length())
    widest = vocabulary * max(vocabulary - 1, 1) ** steps
    if beams > widest:
        expected = f"at most {widest}, with {vocabulary} tokens and length {max_length}"
        raise ArchError(_refusal("the number of beams", expected, beams))


def _refusal(what: str, expected: str, found: float) -> Diagnostic:
    return Diagnostic("generation", f"{what} is out of range", None, expected, str(found))
