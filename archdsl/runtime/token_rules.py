"""Which tokens a text may go on with, beside what its model thinks of them.

Knows no model, only numpy: `Rules` change the log-probabilities of the next tokens that a
search is about to choose from. Where published folders state such rules is left to
`generation_config`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from archdsl.diagnostics import fail

LogProbs = NDArray[np.float64]


@dataclass(frozen=True)
class Rules:
    """What may be said next. What is left out forbids nothing.

    - `forbidden` are sequences of tokens, of one or more, that are never said.
    - `not_first` are tokens that are not said right behind the start token (and `first`).
    - `first` is the one token that is said behind the start token.
    - `last` are the tokens one of which is said where a text would else be cut off.
    - `min_length` is how many tokens, the start token counted, stand before one that ends.
    - `normalised` has the probabilities of the tokens that are left sum to one again. Else
      they stay the model's own, and a token that must be said is certain.
    """

    forbidden: tuple[tuple[int, ...], ...] = ()
    not_first: tuple[int, ...] = ()
    first: int | None = None
    last: tuple[int, ...] = ()
    min_length: int = 0
    normalised: bool = False

    @property
    def tokens(self) -> tuple[int, ...]:
        """All that are spoken of."""
        first = () if self.first is None else (self.first,)
        return (*chain(*self.forbidden), *self.not_first, *first, *self.last)

    def applied(
        self,
        log_probs: LogProbs,
        prefixes: NDArray[np.int64],
        ends: Sequence[int],
        longest: int,
    ) -> LogProbs:
        """The log-probabilities [N, V] of the tokens after prefixes [N, t], minus infinity
        where one may not be said; a text has at most `longest` tokens, and `ends` end it.

        Raises `ArchError` "generation" where that leaves nothing to say.

        >>> rules = Rules(forbidden=((2,), (0, 1)), normalised=True)
        >>> even = np.log([[0.25, 0.25, 0.25, 0.25]])
        >>> np.exp(rules.applied(even, np.array([[3, 0]]), (3,), 9)).round(2).tolist()
        [[0.5, 0.0, 0.0, 0.5]]
        """
        length = prefixes.shape[1]
        found = log_probs.copy()  # [N, V]
        for *before, token in self.forbidden:
            if len(before) < length:
                same = prefixes[:, length - len(before) :] == before  # [N, len(before)]
                found[same.all(axis=1), token] = -np.inf
        if length == (1 if self.first is None else 2):
            found[:, list(self.not_first)] = -np.inf
        if length < self.min_length:
            found[:, list(ends)] = -np.inf
        if length == 1 and self.first is not None:
            found = _certain(found, (self.first,))
        if length == longest - 1 and self.last:
            found = _certain(found, self.last)
        if not np.isfinite(found.max(axis=1)).all():
            fail("generation", f"after {length} tokens, all that could be said is forbidden")
        return log_softmax(found) if self.normalised else found


def log_softmax(logits: LogProbs) -> LogProbs:
    """The logarithms of probabilities [N, V] that sum to one in each row.

    >>> np.exp(log_softmax(np.array([[5.0, 5.0, -np.inf]]))).tolist()
    [[0.5, 0.5, 0.0]]
    """
    shifted: LogProbs = logits - logits.max(axis=1, keepdims=True)  # [N, V]
    sums: LogProbs = np.log(np.exp(shifted).sum(axis=1, keepdims=True))  # [N, 1]
    return shifted - sums


def _certain(log_probs: LogProbs, tokens: Sequence[int]) -> LogProbs:
    found = np.full_like(log_probs, -np.inf)
    found[:, list(tokens)] = 0
    return found
