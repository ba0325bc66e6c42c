"""Tuning: tinygrad's search for faster kernels, while a program is captured.

A candidate may crash the driver or hang, so a separate process (`tuning_worker.py`) searches,
and is killed at the time limit. Its results are compared with tinygrad's default kernel and
stored with tinygrad's compiled kernels, by kernel, device and settings; a stored result needs
no search. The other kernels use the default.
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

# The optimizations of a loop nest, in order; None for tinygrad's default.
Schedule: TypeAlias = tuple[Opt, ...] | None

PROCESS = "from archdsl.backend import tuning_worker; tuning_worker.work()"

_TABLE = "archdsl_tuning"
_ENDED = "the process that searched it ended"


class Tuner:
    """Searches the kernels of programs, for at most `seconds` in total.

    `process` is the Python code of the search process.
    """

    def __init__(self, seconds: float, process: str = PROCESS):
        self._process = process
        self._limit = self._left = seconds
        self._over = False

    def tuned(self, linear: UOp, device: str) -> UOp:
        """The calls of a program, their kernels scheduled as was found now or before.

        A kernel that cannot be searched, or for which the time did not suffice, is left as it
        is, and a warning says of how many that is so, and why.
        """
        calls = {
            call: call.src[0]
            for call in linear.toposort()
            if call.op is Ops.CALL and searchable(call.src[0])
        }
        kernels = list(dict.fromkeys(calls.values()))
        kept = {each: _kept(each, device) for each in kernels}
        found = {each: schedule[0] for each, schedule in kept.items() if schedule}
        problems: Counter[str] = Counter()
        found |= self._searched([k for k in kernels if not kept[k]], device, problems)
        made = {each: _made(each, found.get(each), device, problems) for each in kernels}
        for reason, count in problems.items():
            these = "a kernel is" if count == 1 else f"{count} kernels are"
            warnings.warn(f"tuning for {device}: {these} as without it: {reason}", stacklevel=2)
        changed: UOp = linear.substitute(
            {call: call.replace(src=(made[k], *call.src[1:])) for call, k in calls.items()}
        )
        return changed

    def _searched(
        self, kernels: Sequence[UOp], device: str, problems: Counter[str]
    ) -> dict[UOp, Schedule]:
        """What is found of kernels while there is time; `problems` counts what went wrong."""
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
            self._over = True  # report it only once
            reason = f"the {self._limit:g} seconds are over; the next run continues the search"
            problems[reason] += len(waiting)
        return found

    def search(
        self, kernels: Sequence[UOp], device: str, end: float
    ) -> Iterator[tuple[UOp, Schedule, str | None]]:
        """Kernels with their schedules, or why they have none: until the end, or until a kernel
        that ended the process."""
        settings = {each.key: each.value for each in to_program_context}
        with _running(self._process, device) as pipe:
            for kernel in kernels:
                try:
                    if not pipe.poll(end - time.monotonic()):
                        return
                    pipe.recv()  # it is ready
                    pipe.send((kernel, settings))
                    if not pipe.poll(end - time.monotonic()):
                        return
                    schedule, reason = pipe.recv()
                except (EOFError, OSError, RecursionError, pickle.PicklingError):
                    yield kernel, None, _ENDED
                    return
                yield kernel, schedule, reason


def searchable(kernel: UOp) -> bool:
    """Whether tinygrad schedules a kernel: neither one of ours, nor a copy between devices."""
    return kernel.op is Ops.SINK and kernel.arg.opts_to_apply is None


def scheduled(kernel: UOp, schedule: Schedule) -> UOp:
    """A kernel that is lowered by a schedule."""
    return kernel.replace(arg=replace(kernel.arg, opts_to_apply=schedule))


def _made(kernel: UOp, schedule: Schedule, device: str, problems: Counter[str]) -> UOp:
    """Applies a schedule to a kernel and compiles it; returns the old kernel on failure."""
    if schedule is None:
        return kernel
    changed = scheduled(kernel, schedule)
    try:
        to_program(changed, Device[device].renderer)
    except Exception as error:  # the kernel works without it
        problems[f"it does not compile ({type(error).__name__})"] += 1
        return kernel
    return changed


@contextmanager
def _running(code: str, device: str) -> Iterator[Connection[Any, Any]]:
    """Starts the search process and yields the pipe to it; kills it at the end of the block."""
    ours, theirs = Pipe()
    given = (str(theirs.fileno()), device, str(int(graph_runner.is_supported(device))))
    process = subprocess.Popen(
        [sys.executable, "-c", code, *given],
        env=with_package(dict(os.environ)),
        stdin=subprocess.PIPE,  # closed when this process ends, which ends the worker
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        start_new_session=True,  # Ctrl-C goes to this process only
    )
    theirs.close()
    try:
        yield ours
    finally:
        process.kill()
        process.communicate()
        ours.close()


def _kept(kernel: UOp, device: str) -> tuple[Schedule] | None:
    """Returns the stored result of a kernel."""
    kept: tuple[Schedule] | None = diskcache_get(_TABLE, _key(kernel, device))
    return kept


def _key(kernel: UOp, device: str) -> dict[str, str]:
    """Returns the key of a result: kernel, device and settings."""
    opened = Device[device]
    _, _, target, *settings = to_program_key(kernel, opened.renderer)
    model = getattr(opened, "device_name", "")
    return {
        "kernel": kernel.key.hex(),
        "device": f"{target} {model}".strip(),
        "settings": repr((*settings, graph_runner.is_supported(device))),
    }
