"""What a machine can do at most, as candidates: products of matrices, and reading memory.

Raced beside what is to be judged, they tell how far that is from the machine's own limits in
the very same minutes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any

import numpy as np

from archdsl.backend.kernels import roofline
from archdsl.backend.target import kernels_for, open_device
from archdsl.bench.runner import THREADS, Call, Candidate
from archdsl.diagnostics import ArchError

_SIDE = 1024  # of the matrices
_READ = 2**28  # bytes, well beyond any cache

PRODUCT_FLOPS = 2 * _SIDE**3
READ_BYTES = _READ


def product() -> Call:
    """As many multiply-adds in float32 as a product of two matrices has: by our own loop that
    touches no memory, or the product by whichever library here is quicker."""
    a, b = np.random.default_rng(0).standard_normal((2, _SIDE, _SIDE), np.float32)
    found: list[Callable[[], Any]] = [lambda: a @ b]
    if find_spec("torch"):
        import torch

        torch.set_num_threads(THREADS)
        x, y = torch.from_numpy(a), torch.from_numpy(b)
        found.append(lambda: x @ y)
    if _own():
        found.append(roofline.multiply_add(PRODUCT_FLOPS))
    return _quickest(found)


def reading() -> Call:
    """An array read once by all threads, each a part of its own: by our own loop or NumPy's."""
    array = np.ones(_READ // 4, np.float32)
    parts = np.array_split(array, THREADS)
    pool = ThreadPoolExecutor(THREADS)
    found: list[Callable[[], Any]] = [
        lambda: list(pool.map(np.max, parts)),
        lambda: list(pool.map(np.sum, parts)),
    ]
    if _own():
        found.append(roofline.memory_read(array))
    return _quickest(found)


def _own() -> bool:
    """Whether our kernels for the CPU can be compiled here."""
    try:
        return kernels_for(open_device("CPU")) is not None
    except ArchError:
        return False


ROOFLINE = (Candidate("product limit", product), Candidate("read limit", reading))


def _quickest(calls: list[Callable[[], Any]]) -> Call:
    times = [min(_took(call) for _ in range(5)) for call in calls]
    best = calls[times.index(min(times))]

    def once() -> None:
        best()

    return once


def _took(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
