"""Programs timed beside each other: each in a process of its own, taking turns.

Taking turns, what else a machine does falls on all of them, and the times of one round can be
compared pair by pair. In a process of its own, the peak of memory is a candidate's own. What
is raced is left to `candidates` and to whoever else has something to time; what the times
mean is told by `results`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

# Computes once what is timed. The answer is an array by which candidates are compared.
Call: TypeAlias = Callable[[], NDArray[Any] | None]

THREADS = os.cpu_count() or 1  # of every candidate that is told a number
WARM = 3  # calls before the first round: tinygrad captures a program at the second one
_FAREWELL = 10  # s that an ended process has to put away what it used
_REST = 0.3  # s between turns, for threads that wait busily to fall asleep


@dataclass(frozen=True)
class Candidate:
    """`make(**options)`, a function of a module, prepares a process and returns its call.

    `packages` are what it needs and may lack.
    """

    name: str
    make: Callable[..., Call]
    options: Mapping[str, Any] = field(default_factory=dict)
    packages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Timing:
    """What became of a candidate: seconds of each round, or why it did not run.

    `first` are the seconds from its preparation to its first answer.
    """

    name: str
    seconds: tuple[float, ...] = ()
    first: float = 0.0
    peak_bytes: int = 0
    answer: NDArray[Any] | None = None
    absent: str | None = None
    failed: str | None = None


def run_rounds(
    candidates: Sequence[Candidate],
    rounds: int,
    told: Callable[[str], None] = lambda what: None,
) -> list[Timing]:
    """The candidates' times, in their order; `told` hears what is being done."""
    lanes: list[_Process | Timing] = []
    ready: list[_Process] = []
    try:
        for each in candidates:
            told(f"preparing {each.name}")
            missing = [package for package in each.packages if find_spec(package) is None]
            if missing:
                absent = f"{' and '.join(missing)} not installed"
                lanes.append(Timing(each.name, absent=absent))
            else:
                ready.append(_Process(each))
                lanes.append(ready[-1])
                ready[-1].prepare()
        for number in range(rounds):
            told(f"round {number + 1} of {rounds}")
            first = number % max(len(ready), 1)
            for runner in (*ready[first:], *ready[:first]):
                time.sleep(_REST)
                runner.turn()
        return [lane.end() if isinstance(lane, _Process) else lane for lane in lanes]
    finally:
        for runner in ready:
            runner.close()


class _Process:
    """A candidate's process, and once it is prepared and warm the times of its turns."""

    def __init__(self, candidate: Candidate):
        self.name = candidate.name
        self.seconds: list[float] = []
        self.failed: str | None = None
        self.ended = False
        # A process that begins anew has nothing of ours in its memory.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, candidate))
        with _unheard():
            self.process.start()
        theirs.close()

    def prepare(self) -> None:
        prepared: tuple[float, NDArray[Any] | None] = self._asked(None) or (0.0, None)
        self.first, self.answer = prepared

    def turn(self) -> None:
        if not self.failed and (seconds := self._asked("turn")):
            self.seconds.append(seconds)

    def end(self) -> Timing:
        peak = 0 if self.failed else self._asked("end") or 0
        self.ended = True
        if self.failed:
            return Timing(self.name, failed=self.failed)
        return Timing(self.name, tuple(self.seconds), self.first, peak, self.answer)

    def close(self) -> None:
        """Ends the process: by its own will where it has said its peak."""
        if self.ended:
            self.process.join(_FAREWELL)
        self.process.kill()
        self.process.join()

    def _asked(self, question: str | None) -> Any:
        """What the process says, or None once it has failed."""
        try:
            if question is not None:
                self._pipe.send(question)
            kind, said = self._pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            kind, said = "failed", f"its process ended with status {self.process.exitcode}"
        if kind == "failed":
            self.failed = said
            return None
        return said


@contextmanager
def _unheard() -> Iterator[None]:
    """What is started in the block hears no Ctrl-C from its first moment on, when Python would
    answer with a traceback: whoever started the race ends it."""
    resource_tracker.ensure_running()  # or it would be started with it, and unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(pipe: Connection, candidate: Candidate) -> None:
    """The process of a candidate: prepared, warm, and then a call whenever it is asked."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a library may unblock it
    with suppress(BrokenPipeError):  # whoever asked has gone
        try:
            start = time.perf_counter()
            call = candidate.make(**candidate.options)
            answer = call()
            first = time.perf_counter() - start
            for _ in range(WARM - 1):
                call()
            pipe.send(("ready", (first, answer)))
            while pipe.recv() == "turn":
                start = time.perf_counter()
                call()
                pipe.send(("took", time.perf_counter() - start))
            pipe.send(("peak", peak_bytes()))
        except Exception as error:  # whatever ends a candidate is said beside its name
            lines = str(error).strip().splitlines() or [""]
            pipe.send(("failed", f"{type(error).__name__}: {lines[0]}"))


def peak_bytes() -> int:
    """The most memory that this process has had at once, or any that it started."""
    import resource  # which only Unix has

    unit = 1 if sys.platform == "darwin" else 1024
    own, others = (
        resource.getrusage(who).ru_maxrss * unit
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    if sys.platform == "linux":
        # Unlike getrusage's, this one does not begin with what the parent process had.
        with open("/proc/self/status") as status:
            (line,) = (line for line in status if line.startswith("VmHWM:"))
        own = int(line.split()[1]) * 1024
    return max(own, others)


def relative_difference(answer: NDArray[Any], right: NDArray[Any]) -> float:
    """max |answer - right| / max |right|.

    >>> relative_difference(np.array([0.0, 4.0]), np.array([1.0, -4.0]))
    2.0
    """
    if answer.shape != right.shape:
        raise ValueError(f"{answer.shape} is not {right.shape}")
    difference = np.abs(answer.astype(np.float64) - right.astype(np.float64))
    return float(difference.max() / max(np.abs(right).max(), 1e-30))
