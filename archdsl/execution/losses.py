"""The losses of batches: their totals and counts, in one tensor and as numbers."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from tinygrad import Tensor, dtypes

from archdsl.backend.losses import Mean
from archdsl.frozen import Frozen

GROUP = 6  # numbers that a kernel adds up


class Losses(Frozen):
    """The losses of some batches: of each term its total and its count, [terms] each."""

    totals: NDArray[np.float64]
    counts: NDArray[np.float64]
    weights: NDArray[np.float64]

    def __add__(self, other: Losses) -> Losses:
        return Losses(self.totals + other.totals, self.counts + other.counts, self.weights)

    def total(self, add: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Losses:
        """The losses of all processes; `add` gives the sum of numbers over them."""
        return Losses(add(self.totals), add(self.counts), self.weights)

    @property
    def terms(self) -> NDArray[np.float64]:
        """The value of each term, without its weight; NaN for a mean of nothing."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.totals / self.counts)

    @property
    def value(self) -> float:
        """The loss: the weighted sum of the terms. A mean of nothing adds nothing, as in the
        gradient; if nothing counts in any term, the loss is NaN."""
        counted = self.counts > 0
        terms = np.where(counted, self.terms, 0.0)
        return float(terms @ self.weights) if counted.any() else math.nan


def report(means: Sequence[Mean]) -> Tensor:
    """The totals and the counts: [2 terms], float32."""
    numbers = [each.total for each in means] + [each.counted for each in means]
    tensors = [n if isinstance(n, Tensor) else Tensor(float(n)) for n in numbers]
    return Tensor.stack(*(each.cast(dtypes.float32) for each in tensors)).contiguous()


def at_least_1(mean: Mean) -> Tensor | int:
    """The count of a mean, so that a mean of nothing is 0."""
    counted = mean.counted
    return counted.maximum(1) if isinstance(counted, Tensor) else max(counted, 1)


def sum_of(tensors: Iterable[Tensor]) -> Tensor:
    return functools.reduce(operator.add, tensors)


def sum_in_groups(tensors: Sequence[Tensor]) -> Tensor:
    """The sum of many numbers: no kernel reads more than a few buffers, as devices demand."""
    while len(tensors) > 1:
        parts = [tensors[i : i + GROUP] for i in range(0, len(tensors), GROUP)]
        tensors = [sum_of(part).contiguous() for part in parts]
    return tensors[0]
