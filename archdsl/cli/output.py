"""The standard output of a command: errors of writing, and characters that terminals obey."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from archdsl.diagnostics import escape


class OutputError(Exception):
    """The output cannot be written; the cause is an `OSError`."""


@contextmanager
def checked_output() -> Iterator[None]:
    """Within the block, `sys.stdout` raises `OutputError`, and shows a terminal plain text."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # else a character that it lacks is an error
            stream.reconfigure(errors="backslashreplace")
    before, sys.stdout = sys.stdout, _Output(sys.stdout)
    try:
        yield
        sys.stdout.flush()
    finally:
        sys.stdout = before


class _Output:
    """A stream in front of another one."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._terminal = stream.isatty()

    def write(self, text: str) -> int:
        with _writing():
            return self._stream.write(escape(text) if self._terminal else text)

    def writelines(self, lines: Iterable[str]) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        with _writing():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # the reader has ended
        raise
    except OSError as error:
        raise OutputError(error.strerror) from error
