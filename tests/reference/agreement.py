"""How far apart two results are, in the scale of the one that is right.

The scale is the largest magnitude in the right result: errors of float32 grow with the
numbers that are summed, so a bound on each number alone would say nothing of small ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np

TOLERANCE = 1e-4  # what forward passes in float32 may differ from another implementation's


def apart(ours: Any, theirs: Any) -> float:
    """max |ours - theirs| / max |theirs|; both are arrays, or have a method `numpy`.

    >>> apart([0.0, 4.0], [1.0, -4.0])
    2.0
    """
    found, right = (np.asarray(_host(x), dtype=np.float64) for x in (ours, theirs))
    assert found.shape == right.shape, f"{found.shape} is not {right.shape}"
    assert np.isfinite(found).all(), "not all numbers are finite"
    return float(np.abs(found - right).max() / np.abs(right).max())


def _host(x: Any) -> Any:
    return x.numpy() if hasattr(x, "numpy") else x
