"""The decoding loop, and the logits processors that it runs before each choice.

Knows no model, only numpy. `generate` chooses tokens by sampling, `beam_search` by beams. Both
use the same loop: score the next tokens, run the processors, choose, until all rows end.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from archdsl.diagnostics import fail
from archdsl.frozen import Frozen

Scores: TypeAlias = NDArray[Any]  # logits or log-probabilities [N, V], of any float dtype

T = TypeVar("T")


class Progress(Frozen):
    """The state of all rows before a step.

    - `rows`: the tokens of each row so far, prompt included.
    - `new`: how many tokens at the end of each row were generated.
    - `left`: how many more tokens each row can have, the next one included.
    """

    rows: Sequence[Sequence[int]] | NDArray[np.int64]
    new: int
    left: Sequence[int]

    def lengths(self) -> NDArray[np.int64]:
        """Returns the number of tokens of each row, [N]."""
        return np.array([len(row) for row in self.rows], np.int64)


class Processor(Protocol):
    """A rule for the next token, which changes scores [N, V] in place.

    Minus infinity forbids a token. `tokens` are those that the rule refers to.
    """

    @property
    def tokens(self) -> tuple[int, ...]: ...

    def __call__(self, scores: Scores, at: Progress) -> None: ...


class DecodingLoop(ABC, Iterator[T], Generic[T]):
    """An iterator whose steps each return a `T`."""

    processors: Sequence[Processor] = ()

    @abstractmethod
    def progress(self) -> Progress | None:
        """Returns the rows that continue, or None at the end."""

    @abstractmethod
    def score(self, at: Progress) -> Scores:
        """Returns the scores of the next token of each row, [N, V]."""

    @abstractmethod
    def choose(self, scores: Scores, at: Progress) -> T:
        """Chooses the next tokens by their scores."""

    def __next__(self) -> T:
        at = self.progress()
        if at is None:
            raise StopIteration
        return self.choose(apply_processors(self.score(at), self.processors, at), at)


def apply_processors(scores: Scores, processors: Sequence[Processor], at: Progress) -> Scores:
    """Returns the scores after all processors, in order.

    Raises `ArchError` "generation" if they forbid all tokens of a row, or refer to tokens
    outside the vocabulary.

    >>> even = np.log([[0.25, 0.25, 0.25, 0.25]])
    >>> rules = [Forbid(((2,), (0, 1))), Renormalise()]
    >>> np.exp(apply_processors(even, rules, Progress([[3, 0]], 1, [7]))).round(2).tolist()
    [[0.5, 0.0, 0.0, 0.5]]
    """
    if not processors:
        return scores
    if at.new == 0:
        _check_vocabulary(processors, scores.shape[1])
    found = scores.copy()  # [N, V]
    for processor in processors:
        processor(found, at)
    stuck = np.isfinite(scores.max(axis=1)) & ~np.isfinite(found.max(axis=1))  # [N]
    if stuck.any():
        length = at.lengths()[stuck][0]
        fail(
            "generation",
            f"the logits processors forbid every token after {length} tokens",
            help="check the token rules of generation_config.json",
        )
    return found


class Forbid(Frozen):
    """Forbids token sequences, each of one token or more."""

    sequences: tuple[tuple[int, ...], ...]

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(chain(*self.sequences))

    def __call__(self, scores: Scores, at: Progress) -> None:
        scores[:, [token for *before, token in self.sequences if not before]] = -np.inf
        for *before, token in self.sequences:
            if before:
                scores[[_ends_with(row, before) for row in at.rows], token] = -np.inf


class ForbidRows(Frozen):
    """Forbids tokens, also those that a model has no scores for."""

    ids: tuple[int, ...]
    tokens: tuple[int, ...] = ()

    def __call__(self, scores: Scores, at: Progress) -> None:
        ids = np.array(self.ids, np.int64)
        scores[:, ids[ids < scores.shape[1]]] = -np.inf


class NoRepeat(Frozen):
    """Forbids a sequence of `size` tokens that the row already contains."""

    size: int
    tokens: tuple[int, ...] = ()

    def __call__(self, scores: Scores, at: Progress) -> None:
        for number, row in enumerate(at.rows):
            if len(row) >= self.size:
                known = np.asarray(row, np.int64)  # [T]
                runs = sliding_window_view(known, self.size)  # [T - size + 1, size]
                begun = runs[:, :-1] == known[len(known) - self.size + 1 :]
                scores[number, runs[begun.all(axis=1), -1]] = -np.inf


class ForbidFirst(Frozen):
    """Forbids tokens as the first new token, or with `after_forced` as the token after the one
    that `ForceFirst` sets."""

    tokens: tuple[int, ...]
    after_forced: bool = False

    def __call__(self, scores: Scores, at: Progress) -> None:
        forced = self.after_forced & (at.lengths() - at.new == 1)  # [N]
        _set(scores, at.new == forced, self.tokens, -np.inf)


class MinLength(Frozen):
    """Forbids end tokens until the row has `length` tokens, and `new` of them are new."""

    tokens: tuple[int, ...]
    length: int = 0
    new: int = 0

    def __call__(self, scores: Scores, at: Progress) -> None:
        short = (at.lengths() < self.length) | (at.new < self.new)  # [N]
        _set(scores, short, self.tokens, -np.inf)


class ForceFirst(Frozen):
    """Sets the token after a lone start token."""

    token: int

    @property
    def tokens(self) -> tuple[int, ...]:
        return (self.token,)

    def __call__(self, scores: Scores, at: Progress) -> None:
        _force(scores, at.lengths() == 1, self.tokens)


class ForceLast(Frozen):
    """Allows only these tokens as the last token before the maximum length."""

    tokens: tuple[int, ...]

    def __call__(self, scores: Scores, at: Progress) -> None:
        _force(scores, np.array(at.left) == 1, self.tokens)


class Renormalise(Frozen):
    """Normalises the probabilities of the allowed tokens to a sum of one.

    Without it they stay the model's own, and a forced token has probability one.
    """

    tokens: tuple[int, ...] = ()

    def __call__(self, scores: Scores, at: Progress) -> None:
        allowed = np.isfinite(scores.max(axis=1))  # [N]
        scores[allowed] = log_softmax(scores[allowed])


def log_softmax(logits: Scores) -> Scores:
    """Returns log-probabilities [N, V]; the probabilities of each row sum to one.

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
    """Sets the scores of these tokens in the rows of the mask `where`."""
    scores[np.ix_(np.flatnonzero(where), np.array(tokens, np.intp))] = value


def _check_vocabulary(processors: Sequence[Processor], vocabulary: int) -> None:
    for token in chain(*(each.tokens for each in processors)):
        if not 0 <= token < vocabulary:
            fail(
                "generation",
                "a token of the logits processors is out of range",
                expected=f"0 to {vocabulary - 1}, the model's vocabulary",
                found=str(token),
            )
