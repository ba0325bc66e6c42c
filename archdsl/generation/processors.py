"""The decoding loop, and the logits processors that it runs between scores and choice.

Knows no model, only numpy. `generation` chooses tokens by sampling, `search` by beams; both
are loops of one kind: score the next tokens, run the processors, choose, until it is over.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from archdsl.diagnostics import fail

Scores: TypeAlias = NDArray[Any]  # logits or log-probabilities [N, V], of any float dtype

T = TypeVar("T")


@dataclass(frozen=True)
class Progress:
    """The rows that are looked at in a step.

    `rows` are the tokens of each so far, prompt and all; of each the last `made` were chosen
    by the loop, and `left` more can be, the next one included.
    """

    rows: Sequence[Sequence[int]] | NDArray[np.int64]
    made: int
    left: Sequence[int]

    def lengths(self) -> NDArray[np.int64]:
        """How many tokens each row has, [N]."""
        return np.array([len(row) for row in self.rows], np.int64)


class Processor(Protocol):
    """A rule about the next token: it changes scores [N, V] in place.

    Minus infinity forbids a token. `tokens` are those that the rule names.
    """

    @property
    def tokens(self) -> tuple[int, ...]: ...

    def __call__(self, scores: Scores, at: Progress) -> None: ...


class DecodingLoop(ABC, Iterator[T], Generic[T]):
    """One step after the other, each of which gives a `T`."""

    processors: Sequence[Processor] = ()

    @abstractmethod
    def progress(self) -> Progress | None:
        """The rows that go on; None when it is over."""

    @abstractmethod
    def score(self, at: Progress) -> Scores:
        """The scores of the token after each row, [N, V]."""

    @abstractmethod
    def choose(self, scores: Scores, at: Progress) -> T:
        """Takes tokens by their scores."""

    def __next__(self) -> T:
        at = self.progress()
        if at is None:
            raise StopIteration
        return self.choose(processed(self.score(at), self.processors, at), at)


def processed(scores: Scores, processors: Sequence[Processor], at: Progress) -> Scores:
    """The scores after all processors, in their order.

    Raises `ArchError` "generation" where they leave nothing to choose, and for tokens that
    are not in the vocabulary.

    >>> even = np.log([[0.25, 0.25, 0.25, 0.25]])
    >>> rules = [Forbid(((2,), (0, 1))), Renormalise()]
    >>> np.exp(processed(even, rules, Progress([[3, 0]], 1, [7]))).round(2).tolist()
    [[0.5, 0.0, 0.0, 0.5]]
    """
    if not processors:
        return scores
    if at.made == 0:
        _check_vocabulary(processors, scores.shape[1])
    found = scores.copy()  # [N, V]
    for processor in processors:
        processor(found, at)
    stuck = np.isfinite(scores.max(axis=1)) & ~np.isfinite(found.max(axis=1))  # [N]
    if stuck.any():
        length = at.lengths()[stuck][0]
        fail("generation", f"after {length} tokens, all that could be said is forbidden")
    return found


@dataclass(frozen=True)
class Forbid:
    """Sequences of tokens, of one or more, that never occur."""

    sequences: tuple[tuple[int, ...], ...]

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(chain(*self.sequences))

    def __call__(self, scores: Scores, at: Progress) -> None:
        scores[:, [token for *before, token in self.sequences if not before]] = -np.inf
        for *before, token in self.sequences:
            if before:
                scores[[_ends_with(row, before) for row in at.rows], token] = -np.inf


@dataclass(frozen=True)
class NoRepeat:
    """No `size` tokens follow one another twice in a row."""

    size: int
    tokens: tuple[int, ...] = ()

    def __call__(self, scores: Scores, at: Progress) -> None:
        for number, row in enumerate(at.rows):
            if len(row) >= self.size:
                known = np.asarray(row, np.int64)  # [T]
                runs = sliding_window_view(known, self.size)  # [T - size + 1, size]
                begun = runs[:, :-1] == known[len(known) - self.size + 1 :]
                scores[number, runs[begun.all(axis=1), -1]] = -np.inf


@dataclass(frozen=True)
class ForbidFirst:
    """Tokens that are not chosen first, or with `after_forced` not right after the token that
    `ForceFirst` puts first."""

    tokens: tuple[int, ...]
    after_forced: bool = False

    def __call__(self, scores: Scores, at: Progress) -> None:
        forced = self.after_forced & (at.lengths() - at.made == 1)  # [N]
        _set(scores, at.made == forced, self.tokens, -np.inf)


@dataclass(frozen=True)
class MinLength:
    """Tokens that end a row are not chosen before it has `length` tokens, prompt and all, and
    `new` of them are not the prompt's."""

    tokens: tuple[int, ...]
    length: int = 0
    new: int = 0

    def __call__(self, scores: Scores, at: Progress) -> None:
        short = (at.lengths() < self.length) | (at.made < self.new)  # [N]
        _set(scores, short, self.tokens, -np.inf)


@dataclass(frozen=True)
class ForceFirst:
    """The one token that follows a start token which has nothing after it."""

    token: int

    @property
    def tokens(self) -> tuple[int, ...]:
        return (self.token,)

    def __call__(self, scores: Scores, at: Progress) -> None:
        _force(scores, at.lengths() == 1, self.tokens)


@dataclass(frozen=True)
class ForceLast:
    """Tokens one of which is chosen where a row would otherwise be cut off."""

    tokens: tuple[int, ...]

    def __call__(self, scores: Scores, at: Progress) -> None:
        _force(scores, np.array(at.left) == 1, self.tokens)


@dataclass(frozen=True)
class Renormalise:
    """The probabilities of the tokens that are left sum to one again. Without it they stay the
    model's own, and a token that is forced is certain."""

    tokens: tuple[int, ...] = ()

    def __call__(self, scores: Scores, at: Progress) -> None:
        some = np.isfinite(scores.max(axis=1))  # [N]
        scores[some] = log_softmax(scores[some])


def log_softmax(logits: Scores) -> Scores:
    """The logarithms of probabilities [N, V] that sum to one in each row.

    >>> np.exp(log_softmax(np.array([[5.0, 5.0, -np.inf]]))).tolist()
    [[0.5, 0.5, 0.0]]
    """
    shifted: Scores = logits - logits.max(axis=1, keepdims=True)  # [N, V]
    sums: Scores = np.log(np.exp(shifted).sum(axis=1, keepdims=True))  # [N, 1]
    return shifted - sums


def _ends_with(row: Sequence[int] | NDArray[np.int64], before: list[int]) -> bool:
    return list(row[-len(before) :]) == before


def _force(scores: Scores, where: NDArray[np.bool_], tokens: Sequence[int]) -> None:
    scores[where] = -np.inf
    _set(scores, where, tokens, 0)


def _set(scores: Scores, where: NDArray[np.bool_], tokens: Sequence[int], value: float) -> None:
    """The scores of these tokens in some of the rows."""
    scores[np.ix_(np.flatnonzero(where), np.array(tokens, np.intp))] = value


def _check_vocabulary(processors: Sequence[Processor], vocabulary: int) -> None:
    for token in chain(*(each.tokens for each in processors)):
        if not 0 <= token < vocabulary:
            fail(
                "generation",
                "the number of a token of the rules is out of range",
                expected=f"0 to {vocabulary - 1}, the model's vocabulary",
                found=str(token),
            )
