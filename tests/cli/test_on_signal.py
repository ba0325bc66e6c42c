"""A signal is answered while the main thread computes."""

from __future__ import annotations

import os
import signal
import threading

from archdsl.cli.on_signal import on_signal


def test_a_signal_is_told_at_once_unless_the_block_ends() -> None:
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    told, answered = list[signal.Signals](), threading.Event()
    try:
        with on_signal(lambda which: (told.append(which), answered.set())):
            os.kill(os.getpid(), signal.SIGTERM)
            assert answered.wait(60)
        with on_signal(told.append):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert told == [signal.SIGTERM]
    assert signal.set_wakeup_fd(-1) == -1
