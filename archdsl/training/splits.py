"""A part of the examples: those for training, or those for validation."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from archdsl.cache import key_of
from archdsl.training.order import lengths_of, permuted

VALID_PART = 10  # one of so many examples is for validation, if no file is


class Rows(Protocol):
    """Examples by number; see `data.Dataset`."""

    fingerprint: str

    def __len__(self) -> int: ...

    def batch(self, numbers: NDArray[np.int64]) -> dict[str, NDArray[Any]]: ...

    def describe(self) -> str: ...


class Part:
    """`count` of the examples of `whole`, from place `first` of a random order."""

    def __init__(self, whole: Rows, first: int, count: int, seed: int):
        self.whole, self.first, self.count, self.seed = whole, first, count, seed
        self.fingerprint = key_of("part", whole.fingerprint, first, count, seed)

    def __len__(self) -> int:
        return self.count

    def batch(self, numbers: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        return self.whole.batch(self._places(numbers))

    @property
    def lengths(self) -> NDArray[np.int64] | None:
        """[count]: see `order.lengths_of`."""
        found = lengths_of(self.whole)
        return None if found is None else found[self._places(np.arange(self.count))]

    def describe(self) -> str:
        return f"{self.count:,} of {self.whole.describe()}"

    def _places(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers in the whole of examples by number [B]."""
        places = (numbers + self.first).astype(np.uint64)
        # A third number: another order than that of an epoch.
        return permuted(places, len(self.whole), (self.seed, 0, 1))


def split(whole: Rows, seed: int) -> tuple[Rows, Rows | None, str]:
    """The examples for training and for validation, drawn with `seed`, and what to say."""
    valid = len(whole) // VALID_PART
    if not valid:
        return whole, None, f"no validation: there are fewer than {VALID_PART} examples"
    train = len(whole) - valid
    share = f"{100 // VALID_PART} % of the examples, drawn with the seed, are for validation"
    return Part(whole, 0, train, seed), Part(whole, train, valid, seed), share
