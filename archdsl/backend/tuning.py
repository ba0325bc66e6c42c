"""Tuning: searches faster schedules for tinygrad's kernels while a program is captured.

A candidate may crash a driver or never return, so another process searches
(`tuning_worker.py`), and is killed when the time is over. It compares each schedule with
tinygrad's default. The results are cached with tinygrad's compiled kernels, by kernel, device
and settings, and are reused without a search. All other kernels get the default schedule.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

from tinygrad import Device, UOp

from archdsl.backend.kernels import graph_runner
from archdsl.backend.target import with_package
from archdsl.backend.tinygrad_seam import (
    Ops,
    Opt,
    diskcache_get,
    diskcache_put,
    to_program,
    to_program_context,
    to_program_key,
)
from archdsl.progress import doing

# The transformations of a loop nest, in order; None for tinygrad's default.
Schedule: TypeAlias = tuple[Opt, ...] | None

PROCESS = "from archdsl.backend import tuning_worker; tuning_worker.work()"

_TABLE = "archdsl_tuning"  # in tinygrad's cache of compiled kernels
_ENDED = "the process that searched it ended"
_SHARE = 0.25  # of the time, that one kernel may take


class Tuner:
    """Searches schedules for the kernels of programs, for a total time in seconds.

    `process` is the Python code of the process that searches. One kernel takes at most a
    quarter of the time: a candidate that never ends must not use the time of all others.
    `known` counts the kernels whose best schedule is known, and `found` are the schedules that
    are faster than tinygrad's, by the name of the kernel.
    """

    def __init__(self, seconds: float, process: str = PROCESS):
        self._process = process
        self._limit = self._left = seconds
        self._over = False
        self.known = 0
        self.found: dict[str, tuple[Opt, ...]] = {}

    def tuned(self, linear: UOp, device: str) -> UOp:
        """The calls of a program with the best known schedules, from the cache or a new search.

        A kernel keeps its default schedule if its search fails or the time is over. A warning
        says for how many kernels, and why.
        """
        calls = {
            call: call.src[0]
            for call in linear.toposort()
            if call.op is Ops.CALL and searchable(call.src[0])
        }
        kernels = list(dict.fromkeys(calls.values()))
        cached = {each: _cached(each, device) for each in kernels}
        found = {each: schedule[0] for each, schedule in cached.items() if schedule}
        problems: Counter[str] = Counter()
        found |= self._searched([k for k in kernels if not cached[k]], device, problems)
        tuned = {each: _compiled(each, found.get(each), device, problems) for each in kernels}
        self.known += len(found)
        for kernel, schedule in found.items():
            if schedule and tuned[kernel] is not kernel:
                program = to_program(tuned[kernel], Device[device].renderer)
                self.found[program.src[0].arg.function_name] = schedule
        for reason, count in problems.items():
            these = "1 kernel is" if count == 1 else f"{count} kernels are"
            warnings.warn(f"tuning for {device}: {these} not tuned: {reason}", stacklevel=2)
        changed: UOp = linear.substitute(
            {call: call.replace(src=(tuned[k], *call.src[1:])) for call, k in calls.items()}
        )
        return changed

    def _searched(
        self, kernels: Sequence[UOp], device: str, problems: Counter[str]
    ) -> dict[UOp, Schedule]:
        """Searches kernels until the time is over; `problems` counts the failures by reason."""
        found: dict[UOp, Schedule] = {}
        waiting, start = list(kernels), time.monotonic()
        end = start + self._left
        with doing(f"tuning for {device}", "kernels", None, lambda: len(found)):
            while waiting and time.monotonic() < end:
                for kernel, schedule, reason in self.search(tuple(waiting), device, end):
                    waiting.remove(kernel)
                    found[kernel] = schedule
                    if reason:
                        problems[reason] += 1
                    else:
                        diskcache_put(_TABLE, _key(kernel, device), (schedule,))
        self._left = end - time.monotonic()
        if waiting and not self._over:
            self._over = True  # warn only once
            reason = f"the limit of {self._limit:g} s is reached; the next run continues"
            problems[reason] += len(waiting)
        return found

    def search(
        self, kernels: Sequence[UOp], device: str, end: float
    ) -> Iterator[tuple[UOp, Schedule, str | None]]:
        """Kernels with their schedules, or the reason for a failure.

        Stops at the time `end`, or after a kernel that ended the process or took too long.
        """
        settings = {each.key: each.value for each in to_program_context}
        most = self._limit * _SHARE
        with _running(self._process, device) as pipe:
            for kernel in kernels:
                try:
                    if not pipe.poll(end - time.monotonic()):
                        return
                    pipe.recv()  # "ready"
                    pipe.send((kernel, settings))
                    left = end - time.monotonic()
                    if not pipe.poll(min(left, most)):
                        if left > most:
                            yield (
                                kernel,
                                None,
                                f"its search took more than {most:g} s of {self._limit:g} s",
                            )
                        return
                    schedule, reason = pipe.recv()
                except (EOFError, OSError, RecursionError, pickle.PicklingError):
                    yield kernel, None, _ENDED
                    return
                yield kernel, schedule, reason


def searchable(kernel: UOp) -> bool:
    """Whether tinygrad schedules a kernel: not a C kernel, and not a copy between devices."""
    return kernel.op is Ops.SINK and kernel.arg.opts_to_apply is None


def scheduled(kernel: UOp, schedule: Schedule) -> UOp:
    """A kernel with another schedule."""
    return kernel.replace(arg=replace(kernel.arg, opts_to_apply=schedule))


def _compiled(kernel: UOp, schedule: Schedule, device: str, problems: Counter[str]) -> UOp:
    """Compiles a kernel with a schedule; returns the unchanged kernel if that fails."""
    if schedule is None:
        return kernel
    changed = scheduled(kernel, schedule)
    try:
        to_program(changed, Device[device].renderer)
    except Exception as error:  # any error: the default schedule still works
        problems[f"it does not compile ({type(error).__name__})"] += 1
        return kernel
    return changed


@contextmanager
def _running(code: str, device: str) -> Iterator[Connection[Any, Any]]:
    """Starts the process that searches, and gives the pipe to it; kills it after the block."""
    ours, theirs = Pipe()
    given = (str(theirs.fileno()), device, str(int(graph_runner.is_supported(device))))
    process = subprocess.Popen(
        [sys.executable, "-c", code, *given],
        env=with_package(dict(os.environ)),
        stdin=subprocess.PIPE,  # closes when this process ends, which ends the other one
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        start_new_session=True,  # Ctrl-C does not reach it
    )
    theirs.close()
    try:
        yield ours
    finally:
        process.kill()
        process.communicate()
        ours.close()


def _cached(kernel: UOp, device: str) -> tuple[Schedule] | None:
    """The cached result for a kernel."""
    found: tuple[Schedule] | None = diskcache_get(_TABLE, _key(kernel, device))
    return found


def _key(kernel: UOp, device: str) -> dict[str, str]:
    """The cache key of a kernel. A result is valid only for this device and these settings."""
    opened = Device[device]
    _, _, target, *settings = to_program_key(kernel, opened.renderer)
    model = getattr(opened, "device_name", "")
    return {
        "kernel": kernel.key.hex(),
        "device": f"{target} {model}".strip(),
        "settings": repr((*settings, graph_runner.is_supported(device))),
    }
