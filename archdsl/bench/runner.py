"""The benchmark runner: candidates in separate processes, which take turns.

Because candidates take turns, other load on the machine affects all of them, and the times of
one round can be compared in pairs. A separate process per candidate gives each its own peak
memory. `candidates` has those of a spec; `results` evaluates the times.
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

# The measured function. The array it returns is compared between candidates.
Call: TypeAlias = Callable[[], NDArray[Any] | None]

THREADS = os.cpu_count() or 1  # for every candidate with a setting for it
WARMUP_CALLS = 3  # before the first round; tinygrad captures a program at the second call
_EXIT_SECONDS = 10  # for a finished process to free its resources
_PAUSE = 0.3  # seconds between turns, until busy-waiting threads sleep


@dataclass(frozen=True)
class Candidate:
    """An implementation to measure.

    `make(**options)` prepares it in a new process and returns the measured function; `make`
    must be a function of a module. `packages` are optional packages that it needs.
    """

    name: str
    make: Callable[..., Call]
    options: Mapping[str, Any] = field(default_factory=dict)
    packages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Timing:
    """The measured times of a candidate, or why it did not run.

    `seconds` has the time of each round. `first` is the time in seconds from the start of the
    preparation to the first answer. `absent` names missing packages, `failed` the error.
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
    report: Callable[[str], None] = lambda step: None,
) -> list[Timing]:
    """Measures the candidates in turns. `report` is called with the name of each step."""
    entries: list[_Process | Timing] = []
    processes: list[_Process] = []
    try:
        for each in candidates:
            report(f"preparing {each.name}")
            missing = [package for package in each.packages if find_spec(package) is None]
            if missing:
                absent = f"{' and '.join(missing)} not installed"
                entries.append(Timing(each.name, absent=absent))
            else:
                processes.append(_Process(each))
                entries.append(processes[-1])
                processes[-1].prepare()
        for number in range(rounds):
            report(f"round {number + 1} of {rounds}")
            first = number % max(len(processes), 1)
            for process in (*processes[first:], *processes[:first]):
                time.sleep(_PAUSE)
                process.turn()
        return [each.end() if isinstance(each, _Process) else each for each in entries]
    finally:
        for process in processes:
            process.close()


class _Process:
    """The process of a candidate, and the times of its turns."""

    def __init__(self, candidate: Candidate):
        self.name = candidate.name
        self.seconds: list[float] = []
        self.failed: str | None = None
        self.ended = False
        # A spawned process shares no memory with this one.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, candidate))
        with _block_interrupts():
            self.process.start()
        theirs.close()

    def prepare(self) -> None:
        prepared: tuple[float, NDArray[Any] | None] = self._request(None) or (0.0, None)
        self.first, self.answer = prepared

    def turn(self) -> None:
        if not self.failed and (seconds := self._request("turn")):
            self.seconds.append(seconds)

    def end(self) -> Timing:
        peak = 0 if self.failed else self._request("end") or 0
        self.ended = True
        if self.failed:
            return Timing(self.name, failed=self.failed)
        return Timing(self.name, tuple(self.seconds), self.first, peak, self.answer)

    def close(self) -> None:
        """Ends the process; one that has finished may exit by itself."""
        if self.ended:
            self.process.join(_EXIT_SECONDS)
        self.process.kill()
        self.process.join()

    def _request(self, message: str | None) -> Any:
        """Sends a message and returns the reply, or None if the process has failed."""
        try:
            if message is not None:
                self._pipe.send(message)
            kind, reply = self._pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            kind, reply = "failed", f"its process ended with status {self.process.exitcode}"
        if kind == "failed":
            self.failed = reply
            return None
        return reply


@contextmanager
def _block_interrupts() -> Iterator[None]:
    """Processes started in the block ignore Ctrl-C from their first instruction.

    Otherwise Python prints a traceback while it starts. The parent ends them.
    """
    resource_tracker.ensure_running()  # starting it later would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(pipe: Connection, candidate: Candidate) -> None:
    """Runs in the process of a candidate: prepares it, warms up, and measures on request."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # in case a library unblocks it
    with suppress(BrokenPipeError):  # the parent has ended
        try:
            start = time.perf_counter()
            call = candidate.make(**candidate.options)
            answer = call()
            first = time.perf_counter() - start
            for _ in range(WARMUP_CALLS - 1):
                call()
            pipe.send(("ready", (first, answer)))
            while pipe.recv() == "turn":
                start = time.perf_counter()
                call()
                pipe.send(("took", time.perf_counter() - start))
            pipe.send(("peak", peak_bytes()))
        except Exception as error:  # of any library; printed in the table
            lines = str(error).strip().splitlines() or [""]
            pipe.send(("failed", f"{type(error).__name__}: {lines[0]}"))


def peak_bytes() -> int:
    """Returns the peak memory of this process, or of its largest child, in bytes."""
    import resource  # only on Unix

    unit = 1 if sys.platform == "darwin" else 1024
    own, others = (
        resource.getrusage(who).ru_maxrss * unit
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    if sys.platform == "linux":
        # Unlike getrusage, this does not start at the parent's memory.
        with open("/proc/self/status") as status:
            (line,) = (line for line in status if line.startswith("VmHWM:"))
        own = int(line.split()[1]) * 1024
    return max(own, others)


def relative_difference(answer: NDArray[Any], right: NDArray[Any]) -> float:
    """Returns max |answer - right| / max |right|.

    >>> relative_difference(np.array([0.0, 4.0]), np.array([1.0, -4.0]))
    2.0
    """
    if answer.shape != right.shape:
        raise ValueError(f"the shapes {answer.shape} and {right.shape} differ")
    difference = np.abs(answer.astype(np.float64) - right.astype(np.float64))
    return float(difference.max() / max(np.abs(right).max(), 1e-30))
