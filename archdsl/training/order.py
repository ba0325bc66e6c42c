"""The order of the examples: a random permutation per epoch, computed and not stored.

The position of a run is its step number: the examples of a step follow from it and the seed.
"""

from __future__ import annotations

from collections.abc import Sized

import numpy as np
from numpy.typing import NDArray

from archdsl.diagnostics import fail
from archdsl.training.settings import Settings

LARGEST = 2**62  # examples
POOL = 64  # batches whose examples are sorted by length
_ROUNDS = 6


class Order:
    """The numbers of the examples of each step, for `count` examples in batches of `batch`.

    Each epoch has each example once, in a new order. A batch at the end of an epoch is filled
    from the next one. The memory does not grow with `count`.

    >>> order = Order(count=5, batch=5, seed=0)
    >>> sorted(order.numbers(0).tolist()), sorted(order.numbers(1).tolist())
    ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4])

    Raises `ArchError` (`argument-value`) without examples, or for a batch or a seed that is
    not positive.
    """

    def __init__(self, count: int, batch: int, seed: int):
        for name, value, least in (("count", count, 1), ("batch", batch, 1), ("seed", seed, 0)):
            if not least <= value <= LARGEST:
                fail(
                    "argument-value",
                    f"the order of examples cannot have {name} = {value}",
                    expected=f"{least} to 2^62",
                )
        self.count, self.batch, self.seed = count, batch, seed

    def numbers(self, step: int) -> NDArray[np.int64]:
        """[batch]: the numbers of the examples of a step, each from 0 to `count` - 1."""
        first = step * self.batch
        numbers = np.empty(self.batch, np.int64)
        filled = 0
        while filled < self.batch:
            epoch, start = divmod(first + filled, self.count)
            some = min(self.batch - filled, self.count - start)
            places = np.arange(start, start + some, dtype=np.uint64)  # [some]
            numbers[filled : filled + some] = permuted(places, self.count, (self.seed, epoch))
            filled += some
        return numbers

    def epoch(self, step: int) -> float:
        """How often the examples have been used before a step: 1.5 after one and a half."""
        return step * self.batch / self.count


class ByLength:
    """Batches of examples of about equal length, which have little padding.

    The examples of each `POOL` steps of `order` are sorted by their `lengths` [count]. The
    batches of a pool come in a random order.
    """

    def __init__(self, order: Order, lengths: NDArray[np.int64]):
        self.order, self.lengths = order, lengths
        self._pool: tuple[int, NDArray[np.int64]] | None = None

    def numbers(self, step: int) -> NDArray[np.int64]:
        """[batch]: the numbers of the examples of a step, the shortest first."""
        pool, place = divmod(step, POOL)
        if self._pool is None or self._pool[0] != pool:
            self._pool = pool, self._batches(pool)
        found: NDArray[np.int64] = self._pool[1][place]
        return found

    def _batches(self, pool: int) -> NDArray[np.int64]:
        """[POOL, batch]: the batches of a pool."""
        first = pool * POOL
        found = np.concatenate([self.order.numbers(first + place) for place in range(POOL)])
        ranked = found[self.lengths[found].argsort(kind="stable")]
        places = permuted(np.arange(POOL, dtype=np.uint64), POOL, (self.order.seed, pool, 2))
        batches: NDArray[np.int64] = ranked.reshape(POOL, -1)[places]
        return batches


def lengths_of(dataset: object) -> NDArray[np.int64] | None:
    """[count]: numbers that rise with the positions that each example needs; None if all need
    the same."""
    return getattr(dataset, "lengths", None)


def order_of(dataset: Sized, settings: Settings) -> Order | ByLength:
    """The order of a run.

    Raises `ArchError` (`argument-value`) for `by_length` of examples that have one length.
    """
    order = Order(len(dataset), settings.batch, settings.seed)
    if not settings.by_length:
        return order
    lengths = lengths_of(dataset)
    if lengths is None:
        fail(
            "argument-value",
            "the examples have one length, so `by_length` changes nothing",
            help="leave out `by_length`",
        )
    return ByLength(order, lengths)


def permuted(
    places: NDArray[np.uint64], count: int, seed: tuple[int, ...]
) -> NDArray[np.int64]:
    """The images of `places` [n] under a random permutation of the numbers below `count`.

    A Feistel network permutes the numbers with an even number of bits (Luby and Rackoff 1988).
    It is applied again to results that are not below `count`: this walks along a cycle, which
    has the place itself, so it ends (Black and Rogaway 2002, section 3).
    """
    half = max(1, -(-(count - 1).bit_length() // 2))  # bits
    drawn = np.random.SeedSequence(list(seed)).generate_state(_ROUNDS, np.uint64)
    keys = drawn.astype(np.uint64)  # [rounds]
    found = _network(places, half, keys)
    while len(beyond := np.flatnonzero(found >= count)):
        found[beyond] = _network(found[beyond], half, keys)
    return found.astype(np.int64)


def _network(
    numbers: NDArray[np.uint64], half: int, keys: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    """A permutation of the numbers [n] with 2 `half` bits."""
    width, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = numbers >> width, numbers & mask  # [n]
    for key in keys:
        left, right = right, left ^ (_mixed(right ^ key) & mask)
    return (left << width) | right


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Numbers that look random: the finalizer of SplitMix64 (Steele et al. 2014, figure 17)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
