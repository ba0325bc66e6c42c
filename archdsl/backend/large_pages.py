"""Memory of the CPU for the weights of a model, prepared by a thread of its own.

The first write to each page of new memory takes several times as long as the copy of its bytes:
the system finds and clears the page. On Linux, a second thread asks for that in advance, while
weights are read. Pages are of 2 MB where the system has them.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archdsl.backend.tinygrad_seam import Buffer, BufferSpec, DType

_BLOCK = 4 << 20  # bytes of a block beyond the expected ones
_ALIGNMENT = 64  # bytes; a vector register
_STEP = 16 << 20  # bytes that are prepared at once
_POPULATE_WRITE = 23  # MADV_POPULATE_WRITE of Linux 5.14; older versions refuse it


class LargePages:
    """Hands out memory for tensors. A block is freed when all its tensors are deleted."""

    def __init__(self, expected: Iterable[int]) -> None:
        """`expected`: the bytes of the tensors that will be placed; more are possible."""
        self._use(sum(size + _ALIGNMENT for size in expected))
        if sys.platform == "linux" and len(self._block) > _STEP:
            threading.Thread(target=_prepare, args=(self._block,), daemon=True).start()

    def buffer(self, size: int, dtype: DType) -> Any:
        """A buffer of `size` elements on the CPU; its memory is not set."""
        needed = size * dtype.itemsize
        if self._aligned() + needed > self._block.ctypes.data + len(self._block):
            self._use(max(_BLOCK, needed))
        start = self._aligned()
        self._next = start + needed
        buffer: Any = Buffer("CPU", size, dtype, None, BufferSpec(external_ptr=start))
        buffer.memory_block = self._block  # it lives as long as the buffer
        return buffer.allocate()

    def _use(self, size: int) -> None:
        self._block: NDArray[np.uint8] = np.empty(size + _ALIGNMENT, np.uint8)
        self._next = self._block.ctypes.data  # the first free address

    def _aligned(self) -> int:
        return self._next + -self._next % _ALIGNMENT


def _prepare(block: NDArray[np.uint8]) -> None:
    """Asks the system for the pages of a block, which does not change their contents."""
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    start = block.ctypes.data + -block.ctypes.data % mmap.PAGESIZE
    end = (block.ctypes.data + len(block)) // mmap.PAGESIZE * mmap.PAGESIZE
    for at in range(start, end, _STEP):
        if madvise(at, min(_STEP, end - at), _POPULATE_WRITE):
            break  # not supported, or there is no memory: the writes find that out
