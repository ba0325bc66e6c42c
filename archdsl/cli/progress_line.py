"""The progress of the innermost running task, on the last line of the terminal.

It is drawn on stderr after a task has run for half a second. A task with a known total has a
bar, which is erased at the end. A task without a total, such as compiling, leaves a line with
its count and its time. All other output goes through `print_text`, which erases the progress
line first. While a line of other output is incomplete, no progress is drawn.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from archdsl.diagnostics import escape
from archdsl.progress import Task, listening

_DELAY = 0.5  # seconds until a task is shown
_INTERVAL = 0.1  # seconds between two updates
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {unit} [{elapsed}<{remaining}]"
_STATUS = "{desc}: {percentage:3.0f}%|{bar:10}| {n_fmt}/{total_fmt}{postfix}"
_COUNTER = "{desc}: {n_fmt} {unit}, {elapsed_s:.1f} s"


@contextmanager
def show_progress() -> Iterator[None]:
    """Shows the progress of tasks within the block, if stderr is a terminal."""
    global _line
    if not sys.stderr.isatty():
        yield
        return
    _line = _Line()
    _line.start()
    try:
        with listening(_line.task):
            yield
    finally:
        _line.stop()
        _line = None


def print_text(text: str, end: str = "\n", file: TextIO | None = None) -> None:
    """Prints and flushes; to stdout by default."""
    file = file or sys.stdout
    text = escape(text) if file is sys.stderr else text
    with _line.text(text + end, file) if _line else contextlib.nullcontext():
        print(text, end=end, file=file, flush=True)


def print_json(value: object, indent: int | None = None) -> None:
    """Prints a value as JSON, by default on one line; a number that is not finite is null."""
    from archdsl.formats.strict_json import finite  # imports numpy

    print_text(json.dumps(finite(value), indent=indent, allow_nan=False))


class _Line(threading.Thread):
    """The thread that draws the progress line."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._tasks: list[tuple[Task, float]] = []  # each with its start time
        self._lock = threading.RLock()
        self._stopped = threading.Event()
        self._drawn = False
        self._line_empty = True  # no other output on the last line

    @contextmanager
    def task(self, task: Task) -> Iterator[None]:
        """Shows a task within the block."""
        entry = (task, time.monotonic())
        self._tasks.append(entry)
        try:
            yield
            with self._lock:
                if task.total is None and self._draw(*entry):
                    sys.stderr.write("\n")
                    self._drawn = False
        finally:
            with self._lock:
                self._tasks.remove(entry)
                self._erase()

    @contextmanager
    def text(self, text: str, file: TextIO) -> Iterator[None]:
        """Erases the progress line; the block then prints a text."""
        with self._lock:
            self._erase()
            yield
            if text and file.isatty():
                self._line_empty = text.endswith("\n")

    def run(self) -> None:
        with contextlib.suppress(OSError):  # the terminal was closed
            while not self._stopped.wait(_INTERVAL):
                with self._lock:
                    if self._tasks:
                        self._draw(*self._tasks[-1])

    def stop(self) -> None:
        self._stopped.set()
        with self._lock:
            self._erase()

    def _draw(self, task: Task, start: float) -> bool:
        """Draws a task unless it is recent or the line has text; returns whether it did."""
        elapsed = time.monotonic() - start
        if elapsed < _DELAY or not self._line_empty or self._stopped.is_set():
            return False
        from tqdm import tqdm  # slow to import; most runs draw nothing

        bar = _STATUS if task.status else _COUNTER if task.total is None else _BAR
        meter = tqdm.format_meter(
            task.done(),
            task.total or 0,
            elapsed,
            prefix=task.what,
            unit=task.unit,
            bar_format=bar,
            postfix=task.status() if task.status else None,
            ncols=shutil.get_terminal_size().columns - 1,
        )
        sys.stderr.write(f"\r{meter}\033[K")
        sys.stderr.flush()
        self._drawn = True
        return True

    def _erase(self) -> None:
        if self._drawn:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
            self._drawn = False


_line: _Line | None = None
