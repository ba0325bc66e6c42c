"""The process that answers for `jobs.Worker`: analyses a text, or runs a model.

Its input has a line of JSON with what the command line names, then one for each request. It
writes answers, one line each; the last line of a request is `DONE`. A text of the page is
compiled, and never executed as Python.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, BinaryIO

from archdsl.diagnostics import ArchError, Diagnostic
from archdsl.play.given import Given
from archdsl.play.inspect import Inspector, read_request
from archdsl.play.protocol import DONE, line, read_run_request, refused
from archdsl.progress import Task, listening

_OWN = 3 << 30  # bytes that Python, its libraries and compilers may take


def work() -> None:
    """The main loop."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints goes to the terminal
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    options = json.loads(sys.stdin.readline())
    given, memory = Given(**options["given"]), options["memory"]
    _limit_memory(memory + _OWN)
    tasks = Tasks(given, memory)
    try:
        for text in sys.stdin:
            request = json.loads(text)
            # If the server does not end the process, the system does.
            signal.setitimer(signal.ITIMER_REAL, request["seconds"] + 1)
            for answer in _refusing(tasks, request["task"], request["data"], answers):
                _write(answers, answer)
            signal.setitimer(signal.ITIMER_REAL, 0)
            _write(answers, DONE)
    except BrokenPipeError:
        os._exit(1)  # the server has ended


class Tasks:
    """The tasks of the page by name."""

    def __init__(self, given: Given, memory: int):
        self._given, self._memory = given, memory
        self._inspector = Inspector(Path(given.folder) if given.folder else None)
        self._runs: Any = None

    def answers(self, task: str, data: object) -> Iterator[dict[str, Any]]:
        if task == "inspect":
            return self._inspector.answers(read_request(data))
        if self._runs is None:
            from archdsl.play.runs import Runs

            self._runs = Runs(self._given, self._memory)
        answers: Iterator[dict[str, Any]] = getattr(self._runs, task)(read_run_request(data))
        return answers


def _refusing(
    tasks: Tasks, task: str, data: object, answers: BinaryIO
) -> Iterator[dict[str, Any]]:
    """The answers, and the messages of a mistake."""

    def tell(running: Task) -> AbstractContextManager[object]:
        _write(answers, {"progress": running.what})
        return nullcontext()

    try:
        with listening(tell):
            yield from tasks.answers(task, data)
    except ArchError as error:
        yield refused(*error.diagnostics)
    except MemoryError:
        message = "the run needs more memory than it may take"
        help = "set smaller sizes, or start `archdsl play` with a larger --memory"
        yield refused(Diagnostic("limit", message, help=help))


def _write(answers: BinaryIO, answer: dict[str, Any]) -> None:
    answers.write(line(answer))
    answers.flush()


def _limit_memory(most: int) -> None:
    """Limits the memory that the process can write to."""
    with suppress(ImportError, OSError, ValueError):  # not on Windows, nor on macOS
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
