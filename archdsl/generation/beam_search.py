"""Beam search and greedy search: the most probable sequences of a next-token model.

Knows no model, only numpy. A `Scorer` returns the logits of the next token; it handles padding,
batches and caches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from archdsl.diagnostics import ArchError, Diagnostic, fail
from archdsl.frozen import Frozen
from archdsl.generation.processors import DecodingLoop, Processor, Progress, log_softmax

Scorer: TypeAlias = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]
"""(prefixes, sources) -> logits of the next tokens, [N, V].

`prefixes` are int64 [N, t], all of one length; `sources` are the source indices of the
prefixes, int64 [N], ascending. A token with logit minus infinity is never chosen.
"""

LogProbs: TypeAlias = NDArray[np.float64]

EarlyStopping: TypeAlias = bool | Literal["never"]


class Penalty(Frozen):
    """The length penalty, which divides a score: ((offset + |Y|) / (offset + 1)) ** alpha.

    |Y| is the number of tokens after the start token, the end token included. Alpha 0 has no
    effect; larger values prefer longer sequences. Offset 0 gives the length ** alpha of
    transformers, offset 5 the penalty of Wu et al. 2016, "Google's Neural Machine Translation
    System", equation 14.

    >>> Penalty(2.0).of(3), Penalty(1.0, offset=5).of(4)
    (9.0, 1.5)
    """

    alpha: float = 0.0
    offset: float = 0.0

    def of(self, length: int) -> float:
        return float(((self.offset + length) / (self.offset + 1)) ** self.alpha)


class Search(Frozen):
    """The options of a beam search.

    Sequences begin with the token `start`, end with one of `ends`, and have at most
    `max_length` tokens, start and end included. Each step expands all live prefixes by one
    token and keeps the best `beams` expansions: those with an end token have ended, the others
    stay live. Only the best `beams` ended sequences are kept. One beam is greedy search, which
    stops at the first end token.

    `early_stopping` says when the search stops, as in transformers:
    - True: when `beams` sequences have ended.
    - False: when also the best live sequence, with the length penalty of its current length,
      scores no higher than the worst ended one.
    - "never": when also no live sequence can score higher, even if it grows to `max_length`
      and its log-probability does not fall.

    - `refill`: replace expansions that end by the next best ones at once, so that each step
      has `beams` live prefixes.
    - `cut_off`: at `max_length`, live sequences compete with the ended ones. Without it they
      are results only if no sequence has ended.
    - `best`: the number of results. Default: `beams`.
    - `processors`: change the log-probabilities of the next tokens before tokens are chosen.

    transformers' `generate` uses `refill` and `cut_off`. Raises `ArchError` "generation" for
    numbers out of range.
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
            expected = f"1 to {self.beams}, the number of beams"
            wrong.append(_out_of_range("the number of results", expected, self.best))
        if self.max_length < 2:
            expected = "at least 2, start and end token included"
            wrong.append(_out_of_range("the maximum length", expected, self.max_length))
        if not -10 <= self.penalty.alpha <= 10:
            expected = "-10 to 10; 0 has no effect, 0.6 to 1 is usual"
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


class Hypothesis(Frozen):
    """A sequence and its score.

    `tokens` begins with the start token, and ends with an end token if `finished`. `score` is
    the sum of the natural log-probabilities of all tokens after the first.
    """

    tokens: tuple[int, ...]
    score: float
    finished: bool

    def penalised(self, penalty: Penalty) -> float:
        """Returns the score divided by the length penalty, which orders hypotheses.

        >>> Hypothesis((1, 7, 7, 2), -6.0, finished=True).penalised(Penalty(1.0))
        -2.0
        """
        return self.score / penalty.of(len(self.tokens) - 1)


def beam_search(
    scorer: Scorer, search: Search, sources: int = 1
) -> tuple[tuple[Hypothesis, ...], ...]:
    """Returns the best sequences of each source, best first by `Hypothesis.penalised`.

    Each step scores the live prefixes of all sources in one call. The results of a source do
    not depend on the others. Equal scores are ordered by the rank of the prefix, then by token.

    Raises `ArchError` "generation" for options that do not fit the vocabulary, and for logits
    that are NaN or infinite.

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
    return tuple(beam.results(search) for beam in loop.beams)


class _Beams(DecodingLoop[None]):
    """The decoding loop over the beams of all sources."""

    def __init__(self, scorer: Scorer, search: Search, sources: int):
        self.processors = search.processors
        self.beams = [_Beam((Hypothesis((search.start,), 0.0, finished=False),))] * sources
        self._scorer, self._search = scorer, search
        self._length = 1
        self._of = self._prefixes = np.empty(0, np.int64)

    def progress(self) -> Progress | None:
        beams = enumerate(self.beams)
        rows = [
            (i, h) for i, beam in beams if not beam.is_over(self._search) for h in beam.live
        ]
        left = self._search.max_length - self._length
        if not rows or not left:
            return None
        self._of = np.array([i for i, _ in rows], np.int64)  # [N]
        self._prefixes = np.array([h.tokens for _, h in rows], np.int64)  # [N, length]
        return Progress(self._prefixes, self._length - 1, [left] * len(rows))

    def score(self, at: Progress) -> LogProbs:
        logits = self._scorer(self._prefixes, self._of)
        log_probs = _log_probabilities(logits, self._prefixes)  # [N, V]
        if at.new == 0:
            _check_vocabulary(log_probs.shape[1], self._search)
        return log_probs

    def choose(self, scores: LogProbs, at: Progress) -> None:
        for i in np.unique(self._of):
            self.beams[i] = self.beams[i].advance(scores[self._of == i], self._search)
        self._length += 1


class _Beam(Frozen):
    """The state of one source: its live prefixes by score, and its ended sequences by penalised
    score."""

    live: tuple[Hypothesis, ...]
    ended: tuple[Hypothesis, ...] = ()

    def advance(self, log_probs: LogProbs, search: Search) -> _Beam:
        """Returns the state after one more token; `log_probs` are [live, V]."""
        # Enough expansions that `beams` stay live, whichever of them end.
        expanded = _expand(self.live, log_probs, search.ends, search.beams)
        first = expanded[: search.beams]
        cut = search.cut_off and len(expanded[0].tokens) == search.max_length
        ended = [h for h in first if h.finished or cut]
        live = [h for h in (expanded if search.refill else first) if not h.finished]
        return _Beam(tuple(live[: search.beams]), _rank([*self.ended, *ended], search))

    def is_over(self, search: Search) -> bool:
        if not self.live:
            return True
        if len(self.ended) < search.beams:
            return False
        if search.beams == 1 or search.early_stopping is True:
            return True
        length = len(self.live[0].tokens) - 1
        # More tokens lower a score; only the penalty of a greater length can raise it.
        if search.early_stopping == "never" and search.penalty.alpha > 0:
            length = search.max_length - 1
        reachable = self.live[0].score / search.penalty.of(length)
        return reachable <= self.ended[-1].penalised(search.penalty)

    def results(self, search: Search) -> tuple[Hypothesis, ...]:
        return (self.ended or _rank(self.live, search))[: search.best]


def _rank(found: Sequence[Hypothesis], search: Search) -> tuple[Hypothesis, ...]:
    """Returns the best `beams`, best first."""
    return tuple(sorted(found, key=lambda h: -h.penalised(search.penalty))[: search.beams])


def _expand(
    live: Sequence[Hypothesis], log_probs: LogProbs, ends: Sequence[int], beams: int
) -> list[Hypothesis]:
    """Returns the best one-token expansions, best first: enough that `beams` stay live."""
    scores = (np.array([h.score for h in live])[:, None] + log_probs).reshape(-1)  # [N * V]
    expanded = []
    for index in _best_indices(scores, beams * (1 + len(ends))):
        parent, token = divmod(int(index), log_probs.shape[1])
        tokens = (*live[parent].tokens, token)
        expanded.append(Hypothesis(tokens, float(scores[index]), finished=token in ends))
    return expanded


def _best_indices(scores: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Returns the indices of the `count` largest values, largest first, lower index first.

    >>> _best_indices(np.array([1.0, 3.0, 1.0, -np.inf, 3.0]), 3).tolist()
    [1, 4, 0]
    """
    count = min(count, int(np.count_nonzero(scores > -np.inf)))
    least = np.partition(scores, -count)[-count]
    # All values equal to the last one, because a partition orders equal values arbitrarily.
    candidates = np.flatnonzero(scores >= least)
    order = np.argsort(-scores[candidates], kind="stable")
    return candidates[order[:count]]


def _log_probabilities(given: NDArray[np.float32], prefixes: NDArray[np.int64]) -> LogProbs:
    """Returns the log-softmax of the scorer's logits, [N, V], in float64."""
    logits = np.asarray(given, dtype=np.float64)
    count, length = prefixes.shape
    if logits.ndim != 2 or logits.shape[0] != count or logits.shape[1] == 0:
        fail(
            "generation",
            "the scorer must return one row of logits for each prefix",
            expected=f"[{count}, vocabulary]",
            found=str(list(logits.shape)),
        )
    largest = logits.max(axis=1)  # [N]
    if not np.isfinite(largest).all():
        fail(
            "generation",
            f"the logits of the next token are not finite after {length} tokens",
            expected="finite logits; minus infinity only for tokens that are forbidden",
            found=f"a largest logit of {largest[~np.isfinite(largest)][0]}",
            help="check that the weights belong to this model, or use dtype float32",
        )
    return log_softmax(logits)


def _check_vocabulary(vocabulary: int, search: Search) -> None:
    for token in search.ends:
        if not 0 <= token < vocabulary:
            expected = f"0 to {vocabulary - 1}, the model's vocabulary"
            raise ArchError(_out_of_range("the end token", expected, token))
    # The last step has the most expansions. The exponent is bounded, to avoid huge powers.
    steps = min(search.max_length - 2, search.beams.bit_length())
    widest = vocabulary * max(vocabulary - 1, 1) ** steps
    if search.beams > widest:
        expected = f"at most {widest}, with {vocabulary} tokens and length {search.max_length}"
        raise ArchError(_out_of_range("the number of beams", expected, search.beams))


def _out_of_range(what: str, expected: str, found: float | str) -> Diagnostic:
    return Diagnostic("generation", f"{what} is out of range", None, expected, str(found))
