"""Measures the roofline of this machine's processor: multiply-adds and memory reads per second.

The loops are in `roofline.c`, and run on all threads.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from archdsl.backend.kernels import thread_pool
from archdsl.backend.kernels.source import compiled
from archdsl.backend.tinygrad_seam import NUM_CPU_THREADS

Sums: TypeAlias = NDArray[np.float32]

_TILE = 2**14  # cache lines of 64 bytes: 1 MiB


def multiply_add(operations: int) -> Callable[[], Sums]:
    """A function that runs `operations` float32 operations in registers, on all threads."""
    tiles = NUM_CPU_THREADS.value
    return _call(np.array([0.999, 1e-3], np.float32), operations // 2 // tiles, tiles, False)


def memory_read(numbers: NDArray[np.float32]) -> Callable[[], Sums]:
    """A function that reads an array of whole MiB once, and returns the sum of each MiB."""
    return _call(numbers, _TILE, numbers.nbytes // 64 // _TILE, True)


def _call(
    numbers: NDArray[np.float32], count: int, tiles: int, reads: bool
) -> Callable[[], Sums]:
    program, address = compiled("roofline"), thread_pool.address()
    sums = np.zeros(tiles, np.float32)
    pointers = (ctypes.c_uint64(each.ctypes.data) for each in (numbers, sums))
    given: list[Any] = [*pointers, *map(ctypes.c_uint64, (count, tiles, reads)), address]

    def once(read: Any = numbers) -> Sums:  # keeps the array alive, which C reads
        program.fxn(*given)
        return sums

    return once
