"""A cache of bounded size that evicts the least recently used entry."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """The most recently used values, by key; at most `most` of them.

    >>> squares: Recent[int] = Recent(2)
    >>> [squares.get(n, lambda n=n: n * n) for n in (2, 3, 2, 4)], list(squares)
    ([4, 9, 4, 16], [4, 16])
    """

    def __init__(self, most: int):
        self._most = most
        self._found: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of a key; `make` computes it if it is not cached."""
        if key in self._found:
            self._found.move_to_end(key)
            return self._found[key]
        made = make()
        while len(self._found) >= self._most:
            self._found.popitem(last=False)
        self._found[key] = made
        return made

    def clear(self) -> None:
        self._found.clear()

    def __iter__(self) -> Iterator[T]:
        return iter(self._found.values())

    def __len__(self) -> int:
        return len(self._found)
