"""What a machine can do at most, as contestants: products of matrices, and reading memory.

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

from archdsl.runtime.race import THREADS, Call, Contestant

_SIDE = 1024  # of the matrices
_READ = 2**28  # bytes, well beyond any cache

PRODUCT_FLOPS = 2 * _SIDE**3
READ_BYTES = _READ


def product() -> Call:
    """A product of two float32 matrices, by whichever library here is quicker at it."""
    a, b = np.random.default_rng(0).standard_normal((2, _SIDE, _SIDE), np.float32)
    found: list[Callable[[], Any]] = [lambda: a @ b]
    if find_spec("torch"):
        import torch

        torch.set_num_threads(THREADS)
        x, y = torch.from_numpy(a), torch.from_numpy(b)
        found.append(lambda: x @ y)
    return _quickest(found)


def reading() -> Call:
    """An array read once by all threads, each a part of its own."""
    parts = np.array_split(np.ones(_READ // 4, np.float32), THREADS)
    pool = ThreadPoolExecutor(THREADS)
    return _quickest(
        [lambda: list(pool.map(np.max, parts)), lambda: list(pool.map(np.sum, parts))]
    )


LIMITS = (Contestant("product limit", product), Contestant("read limit", reading))


def _quickest(calls: list[Callable[[], Any]]) -> Call:
    times = []
    for call in calls:
        for _ in range(2):
            start = time.perf_counter()
            call()
            took = time.perf_counter() - start
        times.append(took)
    best = calls[times.index(min(times))]

    def once() -> None:
        best()

    return once
