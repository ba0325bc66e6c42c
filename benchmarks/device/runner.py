"""Runs units in child processes, each with a time limit, and reports every one as it ends.

The units of one `process` share a child one after the other, so that a model is loaded and
compiled once. A child that crashes, or does not answer in time, is replaced.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

Line: TypeAlias = dict[str, Any]

_EXIT_SECONDS = 5


@dataclass(frozen=True)
class Unit:
    """One measurement: `function` of `module` with these options returns its line.

    `seconds` is its time limit. `environment` is that of its process.
    """

    part: str
    name: str
    module: str
    function: str
    options: Mapping[str, Any] = field(default_factory=dict)
    process: str = ""
    seconds: float = 60
    environment: Mapping[str, str] = field(default_factory=dict)


def run_units(
    units: Iterable[Unit], report: Callable[[Line], None], deadline: float, jobs: int = 1
) -> None:
    """Runs units until the deadline, of `time.monotonic`; `jobs` processes at a time.

    `report` is called with a line for every unit, from one thread at a time.
    """
    processes: dict[str, list[Unit]] = {}
    for unit in units:
        processes.setdefault(unit.process or unit.name, []).append(unit)
    lock = threading.Lock()

    def tell(line: Line) -> None:
        with lock:
            report(line)

    with ThreadPoolExecutor(jobs) as pool:
        for done in [
            pool.submit(_run_process, each, tell, deadline) for each in processes.values()
        ]:
            done.result()


def _run_process(
    units: Sequence[Unit], report: Callable[[Line], None], deadline: float
) -> None:
    child: _Child | None = None
    try:
        for number, unit in enumerate(units):
            start = time.monotonic()
            left = deadline - start
            if left < 1:
                names = [each.name for each in units[number:]]
                error = f"{len(names)} not run: the time of this part was over"
                report({**_about(unit), "error": error, "not_run": names})
                return
            child = child or _Child(unit.environment)
            found, alive = child.ask(unit, min(unit.seconds, left))
            if not alive:
                child.close()
                child = None
            seconds = round(time.monotonic() - start, 2)
            report({**_about(unit), **found, "seconds": seconds})
    finally:
        if child:
            child.close()


def _about(unit: Unit) -> Line:
    return {"part": unit.part, "name": unit.name}


class _Child:
    """A process that runs units, and the pipe to it."""

    def __init__(self, environment: Mapping[str, str]):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, dict(environment)))
        self._process.start()
        theirs.close()

    def ask(self, unit: Unit, seconds: float) -> tuple[Line, bool]:
        """The line of a unit, and whether the process can run another one."""
        try:
            self._pipe.send((unit.module, unit.function, dict(unit.options)))
            if not self._pipe.poll(seconds):
                return {"error": f"no answer in {seconds:.0f} s"}, False
            found: Line = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(_EXIT_SECONDS)
            return {"error": f"its process ended with status {self._process.exitcode}"}, False
        return found, True

    def close(self) -> None:
        """Ends the process and those that it has started."""
        self._pipe.close()  # an idle process ends by itself
        self._process.join(0.5)
        if self._process.is_alive() and self._process.pid:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):  # it has no group of its own yet
                self._process.kill()
        self._process.join(_EXIT_SECONDS)


def _work(pipe: Connection, environment: Mapping[str, str]) -> None:
    """Runs in the child."""
    os.setsid()  # a group of its own, which `close` ends
    os.environ.update(environment)
    while True:
        try:
            module, function, options = pipe.recv()
        except EOFError:  # the parent is done
            os._exit(0)  # a driver may hang while a process exits
        pipe.send(_answer(module, function, options))


def _answer(module: str, function: str, options: Mapping[str, Any]) -> Line:
    try:
        found: Line = getattr(import_module(module), function)(**options)
    except Exception as error:  # of any library; reported
        lines = str(error).strip().splitlines() or [""]
        return {"error": f"{type(error).__name__}: {lines[0]}"[:500]}
    return found
