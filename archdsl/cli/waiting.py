"""What is under way, on the last line of a terminal: how far its innermost task is.

It is drawn on stderr once a task has taken a moment. A bar goes when its task is done; what
has no end that is known, such as compiling, leaves a line of what there was and how long it
took. Other text goes to the terminal through `put`, which clears that line first; nothing is
drawn into a line of text that has only begun.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from archdsl.progress import Task, listening

_MOMENT = 0.5  # seconds until a task is shown
_PACE = 0.1  # seconds from one drawing to the next
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {unit} [{elapsed}<{remaining}]"
_ENDLESS = "{desc}: {n_fmt} {unit}, {elapsed_s:.1f} s"


@contextmanager
def showing() -> Iterator[None]:
    """Shows the tasks of the block where stderr is a terminal."""
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


def put(text: str, end: str = "\n", file: TextIO | None = None) -> None:
    """Prints at once, to stdout where no file is given."""
    file = file or sys.stdout
    with _line.text(text + end, file) if _line else contextlib.nullcontext():
        print(text, end=end, file=file, flush=True)


class _Line(threading.Thread):
    """The terminal's last line, and the thread that draws it."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._tasks: list[tuple[Task, float]] = []  # and when each began
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._drawn = False
        self._free = True  # no text has begun on it

    @contextmanager
    def task(self, task: Task) -> Iterator[None]:
        """Shows a task while the block lasts."""
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
                self._clear()

    @contextmanager
    def text(self, text: str, file: TextIO) -> Iterator[None]:
        """The block in which a text is printed."""
        with self._lock:
            self._clear()
            yield
            if text and file.isatty():
                self._free = text.endswith("\n")

    def run(self) -> None:
        with contextlib.suppress(OSError):  # a terminal that has gone
            while not self._over.wait(_PACE):
                with self._lock:
                    if self._tasks:
                        self._draw(*self._tasks[-1])

    def stop(self) -> None:
        self._over.set()
        with self._lock:
            self._clear()

    def _draw(self, task: Task, began: float) -> bool:
        """Draws a task, unless it has only begun or there is text on the line."""
        elapsed = time.monotonic() - began
        if elapsed < _MOMENT or not self._free or self._over.is_set():
            return False
        from tqdm import tqdm

        meter = tqdm.format_meter(
            task.done(),
            task.total or 0,  # as good as none
            elapsed,
            prefix=task.what,
            unit=task.unit,
            bar_format=_ENDLESS if task.total is None else _BAR,
            ncols=shutil.get_terminal_size().columns - 1,
        )
        sys.stderr.write(f"\r{meter}\033[K")
        sys.stderr.flush()
        self._drawn = True
        return True

    def _clear(self) -> None:
        if self._drawn:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
            self._drawn = False


_line: _Line | None = None
