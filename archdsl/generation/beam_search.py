"""The most probable sequences that a next-token model can say: greedy and beam search.

Knows no model and no tensor library: a `Scorer` is asked for the next token's logits, and
numpy does the rest. Padding, batching, caches and the memory of an encoder are the
scorer's; what the tokens mean is the tokenizer's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from archdsl.diagnostics import ArchError, Diagnostic, fail
from archdsl.generation.processors import DecodingLoop, Processor, Progress, log_softmax

Scorer: TypeAlias = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]
"""Prefixes, int64 [N, t], all of one length, and the source that each is of, int64 [N], in
ascending order -> logits of the token after each, [N, V].

A token whose logit is minus infinity is never taken.
"""

LogProbs: TypeAlias = NDArray[np.float64]

EarlyStopping: TypeAlias = bool | Literal["never"]


@dataclass(frozen=True)
class Penalty:
    """What a score is divided by: ((offset + |Y|) / (offset + 1)) ** alpha.

    |Y| counts the tokens after the start token, an end token among them. Alpha 0 changes
    nothing; the larger it is, the better long sequences stand. With offset 0 it is a power of
    the length, with 5 that of Wu et al. 2016, "Google's Neural Machine Translation System",
    equation 14.

    >>> Penalty(2.0).of(3), Penalty(1.0, offset=5).of(4)
    (9.0, 1.5)
    """

    alpha: float = 0.0
    offset: float = 0.0

    def of(self, length: int) -> float:
        return float(((self.offset + length) / (self.offset + 1)) ** self.alpha)


@dataclass(frozen=True)
class Search:
    """Which sequences are looked for, and when enough have been found.

    They begin with the token `start`, end with one of `ends`, and have at most `max_length`
    tokens, both ends counted. At every step the best `beams` of all expansions of the live
    prefixes are looked at: those that end are put aside, the others live on. Once `beams`
    have ended, worse ones fall out; one beam is greedy, and its first end is the end.

    `early_stopping` says when the search stops, as in transformers:
    - True: when `beams` sequences have ended.
    - False: when also the best live sequence, with the length penalty of its current length,
      scores no higher than the worst ended one.
    - "never": when also no live sequence can score higher, even if it grows to `max_length`
      and its log-probability does not fall.

    With `refill`, the places of those that end go at once to the next best ones that live,
    so that `beams` live at every step; without it they are empty for a step. With `cut_off`,
    those that live at `max_length` stand beside those that have ended; without it they are
    found only where none has. The `best` of what is found are given (default: `beams`).

    transformers' `generate` uses `refill` and `cut_off`. `processors` change the
    log-probabilities of the next tokens before tokens are chosen.

    Raises `ArchError` "generation" for numbers out of range.
    """

    start: int
    ends: tuple[int, ...]
    max_length: int
    beams: int = 1
    penalty: Penalty = Penalty()
    early_stopping: EarlyStopping = True
    refill: bool = False
    cut_off: bool = False
    best: int | None = None
    processors: tuple[Processor, ...] = ()

    def __post_init__(self) -> None:
        wrong = []
        if self.beams < 1:
            expected = "at least 1; 1 is greedy search"
            wrong.append(_out_of_range("the number of beams", expected, self.beams))
        elif self.best is not None and not 1 <= self.best <= self.beams:
            expected = f"1 to {self.beams}, the beams"
            wrong.append(_out_of_range("the number of results", expected, self.best))
        if self.max_length < 2:
            expected = "at least 2: the start token and one more"
            wrong.append(_out_of_range("the maximum length", expected, self.max_length))
        if not -10 <= self.penalty.alpha <= 10:
            expected = "-10 to 10; 0 is none, 0.6 to 1 is usual"
            wrong.append(_out_of_range("the length penalty", expected, self.penalty.alpha))
        if not 0 <= self.penalty.offset <= 1000:
            expected = "0 to 1000; 0 and 5 are usual"
            wrong.append(
                _out_of_range("the length penalty's offset", expected, self.penalty.offset)
            )
        if self.early_stopping not in (True, False, "never"):
            expected = 'True, False or "never"'
            wrong.append(_out_of_range("early_stopping", expected, self.early_stopping))
        if wrong:
            raise ArchError(wrong)


@dataclass(frozen=True)
class Hypothesis:
    """A sequence and how probable it is.

    `tokens` begins with the start token, and ends with an end token where `finished`;
    `score` is the sum of the natural log-probabilities of all tokens after the first.
    """

    tokens: tuple[int, ...]
    score: float
    finished: bool

    def penalised(self, penalty: Penalty) -> float:
        """The score that hypotheses are ordered by.

        >>> Hypothesis((1, 7, 7, 2), -6.0, finished=True).penalised(Penalty(1.0))
        -2.0
        """
        return self.score / penalty.of(len(self.tokens) - 1)


def beam_search(
    scorer: Scorer, search: Search, sources: int = 1
) -> tuple[tuple[Hypothesis, ...], ...]:
    """The best sequences found for each source, best first by `Hypothesis.penalised`.

    At every step the live prefixes of all sources are scored in one call; what is found for
    one depends on no other. Equal scores are ordered by the rank of the prefix, then by the
    token's number.

    Raises `ArchError` "generation" where the request makes no sense for the vocabulary or
    the logits are not numbers.

    >>> chain = np.log([[0.1, 0.5, 0.4], [0.1, 0.0001, 0.8999], [0.3, 0.3, 0.4]])
    >>> search = Search(start=0, ends=(2,), max_length=4, beams=2)
    >>> for found in beam_search(lambda prefixes, _: chain[prefixes[:, -1]], search)[0]:
    ...     print(found.tokens, round(float(np.exp(found.score)), 2))
    (0, 1, 2) 0.45
    (0, 2) 0.4
    """
    loop = _Beams(scorer, search, sources)
    for _ in loop:
        pass
    return tuple(beam.found(search) for beam in loop.beams)


class _Beams(DecodingLoop[None]):
    """The beams of all sources, which are scored together."""

    def __init__(self, scorer: Scorer, search: Search, sources: int):
        self.processors = search.processors
        self.beams = [_Beam((Hypothesis((search.start,), 0.0, finished=False),))] * sources
        self._scorer, self._search = scorer, search
        self._length = 1
        self._of = self._prefixes = np.empty(0, np.int64)

    def progress(self) -> Progress | None:
        beams = enumerate(self.beams)
        rows = [(i, h) for i, beam in beams if not beam.over(self._search) for h in beam.live]
        left = self._search.max_length - self._length
        if not rows or not left:
            return None
        self._of = np.array([i for i, _ in rows], np.int64)  # [N]
        self._prefixes = np.array([h.tokens for _, h in rows], np.int64)  # [N, length]
        return Progress(self._prefixes, self._length - 1, [left] * len(rows))

    def score(self, at: Progress) -> LogProbs:
        logits = self._scorer(self._prefixes, self._of)
        log_probs = _log_probabilities(logits, self._prefixes)  # [N, V]
        if at.made == 0:
            _check_vocabulary(log_probs.shape[1], self._search)
        return log_probs

    def choose(self, scores: LogProbs, at: Progress) -> None:
        for i in np.unique(self._of):
            self.beams[i] = self.beams[i].grown(scores[self._of == i], self._search)
        self._length += 1


@dataclass(frozen=True)
class _Beam:
    """What has been found for one source: the live prefixes by score, and those that have
    ended, by their penalised scores."""

    live: tuple[Hypothesis, ...]
    ended: tuple[Hypothesis, ...] = ()

    def grown(self, log_probs: LogProbs, search: Search) -> _Beam:
        """What it is a token later; `log_probs` [live, V] are those of the next tokens."""
        # Each live one can end in so many ways, and as many again are left to live on.
        expanded = _expand(self.live, log_probs, search.ends, search.beams)
        first = expanded[: search.beams]
        cut = search.cut_off and len(expanded[0].tokens) == search.max_length
        ended = [h for h in first if h.finished or cut]
        live = [h for h in (expanded if search.refill else first) if not h.finished]
        return _Beam(tuple(live[: search.beams]), _ranked([*self.ended, *ended], search))

    def over(self, search: Search) -> bool:
        if not self.live:
            return True
        if len(self.ended) < search.beams:
            return False
        if search.beams == 1 or search.early_stopping is True:
            return True
        length = len(self.live[0].tokens) - 1
        # Growing lowers a score; the penalty of a greater length can only make up for it.
        if search.early_stopping == "never" and search.penalty.alpha > 0:
            length = search.max_length - 1
        hope = self.live[0].score / search.penalty.of(length)
        return hope <= self.ended[-1].penalised(search.penalty)

    def found(self, search: Search) -> tuple[Hypothesis, ...]:
        return (self.ended or _ranked(self.live, search))[: search.best]


def _ranked(found: Sequence[Hypothesis], search: Search) -> tuple[Hypothesis, ...]:
    """The best `beams`, best first."""
    return tuple(sorted(found, key=lambda h: -h.penalised(search.penalty))[: search.beams])


def _expand(
    live: Sequence[Hypothesis], log_probs: LogProbs, ends: Sequence[int], beams: int
) -> list[Hypothesis]:
    """The best of all one-token expansions, best first: enough that `beams` of them live."""
    scores = (np.array([h.score for h in live])[:, None] + log_probs).reshape(-1)  # [N * V]
    expanded = []
    for index in _best_indices(scores, beams * (1 + len(ends))):
        parent, token = divmod(int(index), log_probs.shape[1])
        tokens = (*live[parent].tokens, token)
        expanded.append(Hypothesis(tokens, float(scores[index]), finished=token in ends))
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


def _log_probabilities(given: NDArray[np.float32], prefixes: NDArray[np.int64]) -> LogProbs:
    """The log-softmax of the scorer's logits, [N, V], in float64."""
    logits = np.asarray(given, dtype=np.float64)
    count, length = prefixes.shape
    if logits.ndim != 2 or logits.shape[0] != count or logits.shape[1] == 0:
        fail(
            "generation",
            "the scorer must give one row of logits for each prefix",
            expected=f"[{count}, vocabulary]",
            found=str(list(logits.shape)),
        )
    largest = logits.max(axis=1)  # [N]
    if not np.isfinite(largest).all():
        fail(
            "generation",
            f"after {length} tokens, the logits of the next one are not finite",
            expected="finite logits; minus infinity only for tokens that are forbidden",
            found=f"a largest logit of {largest[~np.isfinite(largest)][0]}",
            help="check that the weights are this model's, or compute in float32",
        )
    return log_softmax(logits)


def _check_vocabulary(vocabulary: int, search: Search) -> None:
    for token in search.ends:
        if not 0 <= token < vocabulary:
            expected = f"0 to {vocabulary - 1}, the model's vocabulary"
            raise ArchError(_out_of_range("the number of the end token", expected, token))
    # The last step has the most expansions; the exponent is bounded to spare huge powers.
    steps = min(search.max_length - 2, search.beams.bit_length())
    widest = vocabulary * max(vocabulary - 1, 1) ** steps
    if search.beams > widest:
        expected = f"at most {widest}, with {vocabulary} tokens and length {search.max_length}"
        raise ArchError(_out_of_range("the number of beams", expected, search.beams))


def _out_of_range(what: str, expected: str, found: float | str) -> Diagnostic:
    return Diagnostic("generation", f"{what} is out of range", None, expected, str(found))
