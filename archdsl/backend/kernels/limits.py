"""What this machine's processor can do at most on all threads, by `limits.c`."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from archdsl.backend.kernels import team
from archdsl.backend.kernels.source import compiled
from archdsl.backend.tinygrad_seam import NUM_CPU_THREADS

Sums: TypeAlias = NDArray[np.float32]

_CHUNK = 2**14  # lines of 64 bytes, a MB


def multiplying(operations: int) -> Callable[[], Sums]:
    """A call that multiplies and adds float32 numbers in registers, so many times in all."""
    chunks = NUM_CPU_THREADS.value
    return _call(np.array([0.999, 1e-3], np.float32), operations // 2 // chunks, chunks, False)


def reading(numbers: NDArray[np.float32]) -> Callable[[], Sums]:
    """A call that reads whole MB of numbers once, and adds up each."""
    return _call(numbers, _CHUNK, numbers.nbytes // 64 // _CHUNK, True)


def _call(
    numbers: NDArray[np.float32], count: int, chunks: int, reads: bool
) -> Callable[[], Sums]:
    program, address = compiled("limits"), team.address()
    sums = np.zeros(chunks, np.float32)
    pointers = (ctypes.c_uint64(each.ctypes.data) for each in (numbers, sums))
    given: list[Any] = [*pointers, *map(ctypes.c_uint64, (count, chunks, reads)), address]

    def once(read: Any = numbers) -> Sums:  # which C reads, and so must be kept
        program.fxn(*given)
        return sums

    return once
