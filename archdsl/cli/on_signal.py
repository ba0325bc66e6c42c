"""Answers a signal at once: Python handles it only when the call of the main thread returns."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_DELAY = 0.1  # seconds


@contextmanager
def on_signal(tell: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Within the block, a thread calls `tell` with each signal that Python handles, unless the
    block has ended a tenth of a second later."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    ended = threading.Event()

    def watch() -> None:
        while number := reader.recv(1):
            if not ended.wait(_DELAY):
                tell(signal.Signals(number[0]))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(before)
        writer.close()  # `recv` gives nothing
        watcher.join()
        reader.close()
