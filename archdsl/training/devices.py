"""Training on several devices of one process: a thread for each, like the processes of MPI."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archdsl.diagnostics import fail
from archdsl.execution.executable import Executable
from archdsl.training.data import Data
from archdsl.training.loop import Result, fit, join
from archdsl.training.processes import Processes, Several, processes
from archdsl.training.settings import Settings


class _Threads:
    """The threads of a run, and the values that they exchange."""

    def __init__(self, count: int):
        self.count, self.meeting = count, threading.Barrier(count)
        self.values: list[Any] = [None] * count
        self.errors: list[BaseException] = []

    def exchange(self, rank: int, value: Any) -> list[Any]:
        """What each thread gives; all of them wait for the last one."""
        self.values[rank] = value
        self.meeting.wait()
        found = list(self.values)
        self.meeting.wait()
        return found


class Member:
    """What `Several` uses of MPI, under MPI's names, for one of several threads."""

    IN_PLACE, Exception = None, threading.BrokenBarrierError

    def __init__(self, threads: _Threads, rank: int):
        self._threads, self._rank = threads, rank
        self.COMM_WORLD = self

    def Get_rank(self) -> int:
        return self._rank

    def Get_size(self) -> int:
        return self._threads.count

    def Allreduce(self, where: None, numbers: NDArray[Any]) -> None:
        found = self._threads.exchange(self._rank, numbers.copy())
        numbers[...] = np.sum(found, 0)

    def Iallreduce(self, where: None, numbers: NDArray[Any]) -> Member:
        self.Allreduce(where, numbers)
        return self

    def Test(self) -> None:
        """Nothing: `Iallreduce` has waited."""

    Wait = Test

    def bcast(self, value: Any, root: int) -> Any:
        return self._threads.exchange(self._rank, value)[root]

    def Bcast(self, data: NDArray[Any], root: int) -> None:
        data[...] = self._threads.exchange(self._rank, data.copy())[root]

    def Finalize(self) -> None:
        """Nothing: `following` waits for the threads."""


def fit_on(
    executables: Sequence[Executable],
    folder: Any,
    data: Data,
    settings: Settings,
    *,
    frozen: frozenset[str],
    **options: Any,
) -> Result:
    """`loop.fit` of equal models on several devices; the first has the weights.

    Each device computes its share of every batch. Raises `ArchError` (`argument-value`) if this
    process is one of several, and as `fit` does.
    """
    first, *others = executables
    if not others:
        return fit(first, folder, data, settings, frozen=frozen, **options)
    if processes().count > 1:
        fail(
            "argument-value",
            "a run has several processes or several devices, not both",
            help="start one process for each device, and give it one device",
        )
    threads = _Threads(len(executables))
    lead, *rest = (Several(Member(threads, rank)) for rank in range(threads.count))
    lead.check_batch(settings.batch)

    def run(executable: Executable, those: Processes) -> None:
        try:
            join(executable, data, settings, frozen, those)
        except BaseException as error:
            threads.errors.append(error)
            threads.meeting.abort()

    started = [
        threading.Thread(target=run, args=pair, daemon=True)
        for pair in zip(others, rest, strict=True)
    ]
    with _together(threads, started):
        return fit(first, folder, data, settings, frozen=frozen, those=lead, **options)


@contextmanager
def _together(threads: _Threads, started: list[threading.Thread]) -> Iterator[None]:
    """Starts threads, and waits for them. If one of them fails, all do, with its error."""
    for each in started:
        each.start()
    try:
        yield
    except BaseException as error:
        threads.meeting.abort()
        for each in started:
            each.join()
        if isinstance(error.__cause__, threading.BrokenBarrierError) and threads.errors:
            raise threads.errors[0] from None
        raise
    for each in started:
        each.join()
