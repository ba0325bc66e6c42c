"""Setup for the tests of CPU kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from tinygrad import Tensor

from archdsl.backend.target import kernels_for, open_device, supports
from archdsl.passes.select_kernels import CPU

Array = NDArray[Any]


def ready() -> None:
    """Opens the device; fails if its C kernels are not used, or if it has no bfloat16."""
    assert kernels_for(open_device("CPU")) == CPU
    assert supports("CPU", "bfloat16")


def tensor(values: Array, dtype: str = "float32") -> Tensor:
    return Tensor(values.astype(np.float32), device="CPU").cast(dtype).realize()
