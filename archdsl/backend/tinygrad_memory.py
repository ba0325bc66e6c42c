"""Bounds the memory that tinygrad keeps for later: a part of the seam with tinygrad.

tinygrad keeps the memory of deleted tensors, by size, and the kernels of every shape, for as
long as the process runs.
"""

from __future__ import annotations

from typing import Any

from tinygrad import Device
from tinygrad.codegen import to_program_cache
from tinygrad.device import LRUAllocator
from tinygrad.engine.realize import runtime_cache
from tinygrad.schedule import schedule_cache

MOST_SIZES = 256
MOST_KERNELS = 1000  # a forward pass has about twenty
CACHES: tuple[dict[Any, Any], ...] = (to_program_cache, schedule_cache, runtime_cache)


def free_cached_memory(device: str, above: int = 0) -> None:
    """Frees the memory of deleted tensors, which tinygrad keeps for new tensors of the same
    size, if it is more than `above` bytes, or of more than `MOST_SIZES` sizes."""
    allocator: Any = Device[device].allocator
    if not isinstance(allocator, LRUAllocator):
        return
    kept = list(allocator.cache.items())  # other threads may delete tensors
    total = sum(size * len(buffers) for (size, _), buffers in kept)
    if total <= above and len(kept) <= MOST_SIZES:
        return
    for (size, options), buffers in kept:
        del allocator.cache[size, options]
        while buffers:
            super(LRUAllocator, allocator).free(buffers.pop(), size, options)


def forget_kernels() -> None:
    """Has tinygrad forget its compiled kernels, if there are more than `MOST_KERNELS`.

    Captured programs keep their own. A forgotten kernel that is needed again is lowered again.
    """
    if max(map(len, CACHES)) > MOST_KERNELS:
        for cache in CACHES:
            cache.clear()
