"""The threads that kernels share their work among.

tinygrad runs each program of its CPU device on one thread, part after part. Here helpers wait
for chunks of work beside it: `team.h` says how they are handed out. There are as many threads
as tinygrad's NUM_CPU_THREADS.
"""

from __future__ import annotations

import array
import ctypes
import functools
import mmap
import os
import signal
import threading
from typing import Any

from tinygrad import Tensor, UOp, dtypes

from archdsl.backend.kernels.source import compiled
from archdsl.backend.tinygrad_seam import (
    NUM_CPU_THREADS,
    Buffer,
    cpu_words,
    memory,
)
from archdsl.backend.tinygrad_seam import address as buffer_address

_LINE = 8  # words of 8 bytes, as the processor's caches have them
_LINES = 5  # of `struct team`, before those of the threads
_STACK = 2 << 20  # bytes for each helper; a kernel takes less than half of that
_FIXED = 0x10  # mmap's MAP_FIXED, which Python does not name


@functools.cache
def tensor() -> Tensor:
    """The team as kernels take it, its helpers started."""
    # No program of tinygrad's makes it, or one that is being captured would do so every time.
    buffer = Buffer("CPU", _words(), dtypes.uint64, preallocate=True)
    shared = Tensor(UOp.from_buffer(buffer))
    words = cpu_words(buffer)
    words[:] = array.array("Q", [0] * _words())
    helpers = NUM_CPU_THREADS.value - 1
    if helpers < 1:
        return shared
    words[1], words[2], words[3] = _function("sem_post"), _function("sem_wait"), _semaphore()
    program = compiled("helper")
    where = ctypes.c_uint64(buffer_address(buffer))
    before = threading.stack_size(_STACK)
    for _ in range(helpers):
        threading.Thread(target=_help, args=(program, where), daemon=True).start()
    threading.stack_size(before)
    words[0] = helpers
    os.register_at_fork(after_in_child=_alone)
    return shared


def _alone() -> None:
    """Gives a forked process, which has one thread, a team of its own in the place of the one
    whose memory it shares with its parent."""
    library = ctypes.CDLL(None)
    library.mmap.argtypes = [
        ctypes.c_void_p,
        ctypes.c_size_t,
        *[ctypes.c_int] * 3,
        ctypes.c_long,
    ]
    mine = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _FIXED
    library.mmap(address().value, 8 * _words(), mmap.PROT_READ | mmap.PROT_WRITE, mine, -1, 0)


def address() -> ctypes.c_uint64:
    """Where the team stands in memory."""
    return ctypes.c_uint64(buffer_address(memory(tensor())))


def _help(program: Any, where: ctypes.c_uint64) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # the main thread's affair
    program.fxn(where)  # never returns; until then `program` is needed


@functools.cache
def _words() -> int:
    """How many words `struct team` has: lines, and one for each thread."""
    return _LINE * (_LINES + NUM_CPU_THREADS.value)


def _function(name: str) -> int:
    return ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value or 0


def _semaphore() -> int:
    """A new semaphore, at 0. It has a name for a moment only: macOS has no others."""
    opened = ctypes.CDLL(None, use_errno=True).sem_open
    opened.restype = ctypes.c_void_p
    name = f"/archdsl-{os.getpid()}".encode()
    found: int | None = opened(name, os.O_CREAT | os.O_EXCL, 0o600, 0)
    if found in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), "sem_open")
    ctypes.CDLL(None).sem_unlink(name)
    return found or 0
