"""What takes a while: the stages say what they are at, and know nothing of how it is shown.

A task says at any time how far it is, to whoever listens (`cli/waiting.py` does, on a
terminal). Where nobody does, nothing is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TypeAlias, TypeVar

from archdsl.frozen import Frozen

T = TypeVar("T")


class Task(Frozen):
    """What is under way: `done` tells how many of the `total` units are, None where that is
    not known beforehand."""

    what: str
    unit: str
    total: int | None
    done: Callable[[], int]


Listener: TypeAlias = Callable[[Task], AbstractContextManager[object]]

_listener: ContextVar[Listener] = ContextVar("listener", default=nullcontext)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Has every task of the block stand inside the listener's own block for it."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def doing(
    what: str, unit: str, total: int | None, done: Callable[[], int]
) -> AbstractContextManager[object]:
    """The block of a task; of one with a single step there is nothing to tell."""
    listener = nullcontext if total == 1 else _listener.get()
    return listener(Task(what, unit, total, done))


def each(items: Iterable[T], what: str, unit: str, total: int) -> Iterator[T]:
    """The items, each of which is done when the next one is asked for.

    >>> tasks = []
    >>> with listening(lambda task: nullcontext(tasks.append(task))):
    ...     for letter in each("ab", "spelling", "letters", 2):
    ...         print(letter, tasks[0].done())
    a 0
    b 1
    """
    number = 0
    with doing(what, unit, total, lambda: number):
        for number, item in enumerate(items):  # noqa: B007 (the task asks for it)
            yield item
