"""The rooflines of this machine, as candidates: matrix products, and reading memory.

They are measured in the same rounds as the other candidates, so a share of the roofline
compares times under the same load.
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
_READ = 2**28  # bytes; larger than any cache

COMPUTE_FLOPS = 2 * _SIDE**3
MEMORY_BYTES = _READ


def compute() -> Call:
    """The fastest way to do the float32 multiply-adds of a matrix product: numpy, PyTorch, or
    a loop of ours that reads no memory."""
    a, b = np.random.default_rng(0).standard_normal((2, _SIDE, _SIDE), np.float32)
    found: list[Callable[[], Any]] = [lambda: a @ b]
    if find_spec("torch"):
        import torch

        torch.set_num_threads(THREADS)
        x, y = torch.from_numpy(a), torch.from_numpy(b)
        found.append(lambda: x @ y)
    if _has_cpu_kernels():
        found.append(roofline.multiply_add(COMPUTE_FLOPS))
    return _fastest(found)


def memory() -> Call:
    """The fastest way to read an array once with all threads: numpy or a loop of ours."""
    array = np.ones(_READ // 4, np.float32)
    parts = np.array_split(array, THREADS)
    pool = ThreadPoolExecutor(THREADS)
    found: list[Callable[[], Any]] = [
        lambda: list(pool.map(np.max, parts)),
        lambda: list(pool.map(np.sum, parts)),
    ]
    if _has_cpu_kernels():
        found.append(roofline.memory_read(array))
    return _fastest(found)


def _has_cpu_kernels() -> bool:
    """Whether our CPU kernels can be compiled on this machine."""
    try:
        return kernels_for(open_device("CPU")) is not None
    except ArchError:
        return False


ROOFLINE = (Candidate("compute roofline", compute), Candidate("memory roofline", memory))


def _fastest(calls: list[Callable[[], Any]]) -> Call:
    times = [min(_measure(call) for _ in range(5)) for call in calls]
    best = calls[times.index(min(times))]

    def once() -> None:
        best()

    return once


def _measure(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
