"""Stops a run at the end of a step: on Ctrl-C, and when the system ends the process.

`mpirun` passes SIGUSR2 on; after Ctrl-C or SIGTERM it kills its processes within half a second.
SIGUSR1 would not arrive: LLVM, which compiles kernels, takes it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR2")  # Windows lacks the last two
_ENDING = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]


class Stop:
    """`signal` is the number of the signal that asks the run to stop, None if there is none."""

    signal: int | None = None


@contextmanager
def stopping() -> Iterator[Stop]:
    """Within the block, the first SIGINT, SIGTERM, SIGHUP or SIGUSR2 only sets `Stop.signal`.

    A second one does what it did before the block: so nobody waits for a long step. Python
    handles signals in its main thread; in another thread nothing changes.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    handlers = {each: signal.getsignal(each) for each in _ENDING}
    # One that is ignored stays ignored, such as SIGHUP under nohup; None is not Python's.
    handlers = {
        each: handler
        for each, handler in handlers.items()
        if handler not in (signal.SIG_IGN, None)
    }

    def restore() -> None:
        for each, handler in handlers.items():
            signal.signal(each, handler)

    def ask(number: int, frame: FrameType | None) -> None:
        stop.signal = number
        restore()

    for each in handlers:
        signal.signal(each, ask)
    try:
        yield stop
    finally:
        restore()
