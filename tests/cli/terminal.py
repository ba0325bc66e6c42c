"""A terminal that a test types into and reads from."""

from __future__ import annotations

import fcntl
import os
import re
import select
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).parents[2]


class Terminal:
    """Runs `archdsl` in a new terminal, within the block."""

    def __init__(self, *command: str, **environment: str):
        self._ours, self._theirs = os.openpty()
        self.settings = termios.tcgetattr(self._theirs)
        self.text = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "archdsl", *command],
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            cwd=ROOT,
            env=os.environ | {"DEV": "CPU", "TERM": "xterm", "COLUMNS": "80"} | environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def wait_for(self, pattern: str, seconds: float = 90) -> str:
        """Returns the output up to the end of a pattern, and removes it."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.text)):
            assert select.select([self._ours], [], [], max(end - time.monotonic(), 0))[0], (
                f"no {pattern!r} in {self.text!r}"
            )
            self.text += os.read(self._ours, 4096).decode()
        seen, self.text = self.text[: found.end()], self.text[found.end() :]
        return seen

    def end(self, seconds: float = 20) -> int:
        """Waits for the end; returns the exit status. `text` then has all output."""
        end = time.monotonic() + seconds
        while self.process.poll() is None or select.select([self._ours], [], [], 0)[0]:
            if select.select([self._ours], [], [], 0.1)[0]:
                self.text += os.read(self._ours, 4096).decode()
            assert time.monotonic() < end, f"it goes on behind {self.text!r}"
        assert termios.tcgetattr(self._theirs) == self.settings
        return self.process.returncode
