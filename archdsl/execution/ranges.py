"""Weights whose values exceed the range of the dtype in which they are loaded."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping

import numpy as np

from archdsl.formats import LazyTensor

# The largest finite number of a dtype that has fewer exponents than float32.
LARGEST = {"float16": 65504.0}
_WIDER = ("float32", "float64", "bfloat16")


def checked(found: Mapping[str, LazyTensor], dtype: str) -> Iterator[tuple[str, LazyTensor]]:
    """Yields the items; at the end, warns of the weights that become infinite in a dtype."""
    most = LARGEST.get(dtype, math.inf)
    beyond: dict[str, float] = {}
    for name, stored in found.items():
        if most < math.inf and stored.dtype in _WIDER:
            largest = largest_magnitude(stored)
            if largest > most:
                beyond[name] = largest
        yield name, stored
    if beyond:
        name, largest = max(beyond.items(), key=lambda item: item[1])
        more = f" and {len(beyond) - 1} more weights have" if len(beyond) > 1 else " has"
        warnings.warn(
            f"`{name}`{more} values beyond {most:g}, the largest number of {dtype}, up to "
            f"{largest:g}: they become infinite; load the model with dtype float32 or bfloat16",
            stacklevel=2,
        )


def largest_magnitude(stored: LazyTensor) -> float:
    """The largest absolute value of a tensor, NaN and infinity aside; 0 if there is none.

    >>> largest_magnitude(LazyTensor("float32", (3,), lambda: np.float32([1, -3, np.inf])))
    3.0
    """
    values = stored.read()
    if stored.dtype == "bfloat16":  # bits, whose order without the sign is that of the numbers
        magnitudes = values & 0x7FFF
        largest = magnitudes.max(initial=0, where=magnitudes < 0x7F80)
        return float((np.uint32(largest) << np.uint32(16)).view(np.float32))
    if not values.size:
        return 0.0
    most = max(np.fmax.reduce(values, axis=None), -np.fmin.reduce(values, axis=None))
    if not math.isfinite(most):
        most = np.abs(values).max(initial=0, where=np.isfinite(values))
    return float(most)
