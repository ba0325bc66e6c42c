"""The most flops per second of the machine, measured in a fraction of a second."""

from __future__ import annotations

import time

import numpy as np

from archdsl.backend.kernels import roofline
from archdsl.execution.executable import Executable

_FLOPS = 2 * 512**3  # of a measured call: 5 ms at 50 GFLOP/s
_SECONDS = 0.2  # of measured calls; the fastest one counts, in which no other process ran


def peak_rate(executable: Executable) -> float | None:
    """The float32 operations per second of the processor, all threads together; None for other
    devices.

    They are multiply-adds in registers. Without a C compiler they are those of a matrix product
    of numpy.
    """
    if executable.device.partition(":")[0] != "CPU":
        return None
    a, b = np.ones((2, 512, 512), np.float32)
    call = roofline.multiply_add(_FLOPS) if executable.target else lambda: a @ b
    fastest, end = float("inf"), time.perf_counter() + _SECONDS
    while (start := time.perf_counter()) < end:
        call()
        fastest = min(fastest, time.perf_counter() - start)
    return _FLOPS / fastest
