"""The thread pool of the C kernels.

tinygrad runs each program of its CPU device on one thread, one part after another. Worker
threads of this pool wait for tiles of the C kernels; `thread_pool.h` hands the tiles out. The
pool has as many threads as tinygrad's NUM_CPU_THREADS, the calling thread included.
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

_LINE = 8  # words of 8 bytes in a cache line
_LINES = 5  # cache lines of `struct thread_pool` before its queues
_STACK = 2 << 20  # bytes of stack per worker; a kernel uses less than half of that
_FIXED = 0x10  # mmap's MAP_FIXED, which Python does not define


@functools.cache
def tensor() -> Tensor:
    """The `struct thread_pool` as a tensor that kernels take as an argument; starts the workers
    on the first call."""
    # Written from Python, not by a tinygrad program: a captured program would write it again.
    buffer = Buffer("CPU", _words(), dtypes.uint64, preallocate=True)
    pool = Tensor(UOp.from_buffer(buffer))
    words = cpu_words(buffer)
    words[:] = array.array("Q", [0] * _words())
    workers = NUM_CPU_THREADS.value - 1
    if workers < 1:
        return pool
    words[1], words[2], words[3] = _function("sem_post"), _function("sem_wait"), _semaphore()
    program = compiled("worker")
    where = ctypes.c_uint64(buffer_address(buffer))
    before = threading.stack_size(_STACK)
    for _ in range(workers):
        threading.Thread(target=_work, args=(program, where), daemon=True).start()
    threading.stack_size(before)
    words[0] = workers
    os.register_at_fork(after_in_child=_reset_after_fork)
    return pool


def _reset_after_fork() -> None:
    """Gives a forked process a pool without workers, at the address of its parent's pool.

    The child has only one thread, and shares the memory of the parent's pool until then.
    """
    library = ctypes.CDLL(None)
    library.mmap.argtypes = [
        ctypes.c_void_p,
        ctypes.c_size_t,
        *[ctypes.c_int] * 3,
        ctypes.c_long,
    ]
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _FIXED
    library.mmap(
        address().value, 8 * _words(), mmap.PROT_READ | mmap.PROT_WRITE, private, -1, 0
    )


def address() -> ctypes.c_uint64:
    """The address of the `struct thread_pool`."""
    return ctypes.c_uint64(buffer_address(memory(tensor())))


def _work(program: Any, where: ctypes.c_uint64) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # for the main thread
    program.fxn(where)  # never returns; `program` stays referenced until the process ends


@functools.cache
def _words() -> int:
    """The number of words of `struct thread_pool`, with one cache line per thread."""
    return _LINE * (_LINES + NUM_CPU_THREADS.value)


def _function(name: str) -> int:
    return ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value or 0


def _semaphore() -> int:
    """A new semaphore with value 0.

    It is created with a name, because macOS has no unnamed semaphores, and unlinked at once.
    """
    opened = ctypes.CDLL(None, use_errno=True).sem_open
    opened.restype = ctypes.c_void_p
    name = f"/archdsl-{os.getpid()}".encode()
    found: int | None = opened(name, os.O_CREAT | os.O_EXCL, 0o600, 0)
    if found in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), "sem_open")
    ctypes.CDLL(None).sem_unlink(name)
    return found or 0
