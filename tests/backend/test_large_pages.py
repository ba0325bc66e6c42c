"""Memory for weights in few blocks."""

from __future__ import annotations

import gc
import weakref

import numpy as np
from tinygrad import dtypes

from archdsl.backend.large_pages import LargePages
from archdsl.backend.tensors import to_device
from archdsl.backend.tinygrad_seam import address, memory


def test_tensors_do_not_overlap_and_outlive_the_pages() -> None:
    sizes = (3, 1000, 1 << 20, 7, 5 << 20)
    pages = LargePages(4 * size for size in sizes[:3])  # the others need more blocks
    arrays = [np.arange(size, dtype=np.float32) * (i + 1) for i, size in enumerate(sizes)]
    tensors = [to_device(each, "CPU", pages=pages) for each in arrays]
    del pages
    gc.collect()
    for tensor, array in zip(tensors, arrays, strict=True):
        assert address(memory(tensor)) % 64 == 0
        np.testing.assert_array_equal(tensor.numpy(), array)


def test_a_block_is_freed_with_its_last_tensor() -> None:
    pages = LargePages([400, 400])
    one, two = (pages.buffer(100, dtypes.float32) for _ in range(2))
    assert one.memory_block is two.memory_block
    block = weakref.ref(one.memory_block)
    del pages, one
    gc.collect()
    assert block() is not None
    del two
    gc.collect()
    assert block() is None
