"""What an adapter adds to the weights of a model (Hu et al. 2021, section 4.1)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from archdsl.diagnostics import fail
from archdsl.formats.host import LazyTensor
from archdsl.frozen import Frozen
from archdsl.published.convert import as_floats


class LowRank(Frozen):
    """What is added to a weight [out, in]: scale * b @ a.

    a is [rank, in] and b [out, rank], of float32.
    """

    a: NDArray[Any]
    b: NDArray[Any]
    scale: float

    @property
    def rank(self) -> int:
        return len(self.a)


def with_low_rank(path: str, weight: LazyTensor, low: LowRank | None, dtype: str) -> LazyTensor:
    """A weight with what an adapter adds to it, if anything, in a dtype; computed when read.

    Raises `ArchError` then, if a number is too large for the dtype.
    """
    if low is None and weight.dtype == dtype:
        return weight

    def load() -> NDArray[Any]:
        total = as_floats(weight).read()
        if low is not None:
            total = total + low.b @ low.a * np.float32(low.scale)
        found = round_to(total, dtype)
        if dtype == "float16" and not np.isfinite(found).all():
            fail(
                "overflow",
                f"`{path}` is beyond the largest number of float16",
                expected="numbers up to 65504",
                help="choose another dtype",
            )
        return found

    return LazyTensor(dtype, weight.shape, load)


def round_to(numbers: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Numbers of float32 in another dtype, rounded to the nearest.

    >>> hex(round_to(np.array([1.00390625], np.float32), "bfloat16")[0])
    '0x3f80'
    """
    if dtype != "bfloat16":
        with np.errstate(over="ignore"):
            return numbers.astype(dtype)
    bits = numbers.astype(np.float32).view(np.uint32)
    # To the nearest, and to the even one of two that are as near.
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
