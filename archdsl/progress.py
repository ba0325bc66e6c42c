"""Progress of long steps, independent of how it is shown.

A listener, such as `cli/progress_line.py` on a terminal, can ask a task for its progress at any
time. Without a listener nothing is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TypeAlias, TypeVar

from archdsl.frozen import Frozen

T = TypeVar("T")


class Task(Frozen):
    """A running step: `done()` of `total` units are finished; `total` is None if unknown.

    `status()` says more about it, such as the loss of a training run.
    """

    what: str
    unit: str
    total: int | None
    done: Callable[[], int]
    status: Callable[[], str] | None = None


Listener: TypeAlias = Callable[[Task], AbstractContextManager[object]]

_listener: ContextVar[Listener] = ContextVar("listener", default=nullcontext)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Within the block, runs every task inside `listener(task)`."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def doing(
    what: str,
    unit: str,
    total: int | None,
    done: Callable[[], int],
    status: Callable[[], str] | None = None,
) -> AbstractContextManager[object]:
    """Returns a context manager for a task. A task of a single unit is not reported."""
    listener = nullcontext if total == 1 else _listener.get()
    return listener(Task(what, unit, total, done, status))


def each(items: Iterable[T], what: str, unit: str, total: int) -> Iterator[T]:
    """Yields the items; an item counts as done when the next one is requested.

    >>> tasks = []
    >>> with listening(lambda task: nullcontext(tasks.append(task))):
    ...     for letter in each("ab", "spelling", "letters", 2):
    ...         print(letter, tasks[0].done())
    a 0
    b 1
    """
    number = 0
    with doing(what, unit, total, lambda: number):
        for number, item in enumerate(items):  # noqa: B007 (used by the task)
            yield item
