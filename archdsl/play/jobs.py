"""Processes that answer the page, with limits of time and memory.

A process ends at the time limit, and when nobody waits for its answer any more. The next
request starts another one.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import asdict
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from archdsl.diagnostics import Diagnostic
from archdsl.play.given import Given
from archdsl.play.protocol import DONE, line, refused

_CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.stdin.readline()); "
    "from archdsl.play.worker import work; work()"
)
_PATIENCE = 2.0  # seconds that a request waits for the one before, which may be ending


class Worker:
    """A process that answers one request at a time; it starts at the first one.

    A request may take `seconds`, and a model `memory` bytes. If the client leaves, the process
    may finish within `grace` seconds, or else it ends.
    """

    def __init__(self, given: Given, seconds: float, memory: int, grace: float = 0.0):
        self.seconds, self.grace = seconds, grace
        self._options = json.dumps({"given": asdict(given), "memory": memory})
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""  # what the process has written, and nobody has read
        self._closed = False

    def answers(
        self, task: str, data: object, client: socket.socket
    ) -> Generator[bytes, None, None]:
        """Yields the answers to a request, lines of JSON, until the client closes its
        connection, or the iterator is closed."""
        if not self._lock.acquire(timeout=self.grace + _PATIENCE):
            message = "another run is not finished"
            yield _refusal(Diagnostic("limit", message, help="stop it, or wait for its end"))
            return
        finished = False
        try:
            if self._closed:
                return
            process = self._running()
            request = {"task": task, "data": data, "seconds": self.seconds + self.grace}
            assert process.stdin
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            for answer in self._lines(process, [client], self.seconds):
                finished = answer == line(DONE)
                if finished:
                    return
                yield answer
        except BrokenPipeError:
            yield _refusal(_ended(self._end(grace=1.0)))
        finally:
            if not finished and not self._finishes():
                self._end()
            self._lock.release()

    def _finishes(self) -> bool:
        process = self._process
        return process is not None and line(DONE) in self._lines(process, [], self.grace)

    def _lines(
        self, process: subprocess.Popen[bytes], clients: list[socket.socket], seconds: float
    ) -> Iterator[bytes]:
        """The lines of the process until a client leaves or the time is over."""
        assert process.stdout
        end, output = time.monotonic() + seconds, process.stdout.fileno()
        while True:
            while b"\n" in self._rest:
                answer, _, self._rest = self._rest.partition(b"\n")
                yield answer + b"\n"
            ready = wait([output, *clients], max(0, end - time.monotonic()))
            if not ready:
                message = f"the answer took longer than {seconds:g} s"
                help = "set smaller sizes, or start `archdsl play` with a larger --seconds"
                yield _refusal(Diagnostic("limit", message, help=help))
                return
            if output not in ready:
                return  # a client sends nothing more, so it has closed
            found = os.read(output, 1 << 16)
            if not found:
                if not self._closed:
                    yield _refusal(_ended(self._end(grace=1.0)))
                return
            self._rest += found

    def close(self) -> None:
        """Ends the process, also during a request."""
        self._closed = True
        if process := self._process:
            _kill(process)
        if self._lock.acquire(timeout=_PATIENCE):  # the request has seen the end
            self._end()
            self._lock.release()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _CODE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for the server, which ends this process
            )
            assert self._process.stdin
            paths = json.dumps([str(Path(path).resolve()) for path in sys.path])
            self._process.stdin.write(f"{paths}\n{self._options}\n".encode())
        return self._process

    def _end(self, grace: float = 0.0) -> int | None:
        """Ends the process and those that it has started; returns its exit code.

        A process that is ending has so many seconds of `grace`.
        """
        process, self._process, self._rest = self._process, None, b""
        if process is None:
            return None
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace)
        _kill(process)
        assert process.stdin
        assert process.stdout
        code = process.wait()
        with suppress(OSError):
            process.stdin.close()
        process.stdout.close()
        return code


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kills a process, and those that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _refusal(diagnostic: Diagnostic) -> bytes:
    return line(refused(diagnostic))


def _ended(code: int | None) -> Diagnostic:
    """Why a process has ended: a signal, as of the system when memory is full, or an error."""
    reason: Any = code
    if code is not None and code < 0:
        reason = signal.Signals(-code).name
    return Diagnostic(
        "limit",
        "the process of the run has ended",
        found=f"its exit status {reason}",
        help="set smaller sizes; the terminal of `archdsl play` may say more",
    )
