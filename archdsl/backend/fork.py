"""Forked processes: they run what their parent has captured, but cannot compile.

The threads that compile and schedule do not survive a fork; waiting for them would never
return.
"""

from __future__ import annotations

import os

from archdsl.diagnostics import fail

_opened_by: set[int] = set()  # the process that has opened a device


def note_open_device() -> None:
    """Records that this process opens a device. Raises `ArchError` in a forked child."""
    refuse_forked_process()
    _opened_by.add(os.getpid())


def refuse_forked_process() -> None:
    """Raises `ArchError` (`device`) if a parent of this process has opened a device."""
    if _opened_by and os.getpid() not in _opened_by:
        fail(
            "device",
            "this process was forked after its parent opened a device, and cannot compile",
            help='start processes with `multiprocessing.get_context("spawn")`, or fork before '
            "the first model is compiled",
        )
