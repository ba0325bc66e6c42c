"""Weights whose values exceed the range of the dtype in which they are loaded."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

import archdsl
from archdsl.execution.ranges import checked, largest_magnitude
from archdsl.formats import LazyTensor

SPEC = "model Line(D = 2) { input x: float[D]  output y: float[D] = x -> out: linear(D) }\n"


def lazy(dtype: str, *values: float) -> LazyTensor:
    array = np.array(values, np.float64 if dtype == "float64" else np.float32)
    if dtype == "bfloat16":
        array = (array.view(np.uint32) >> 16).astype(np.uint16)
    return LazyTensor(dtype, array.shape, lambda: array)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_the_largest_magnitude(dtype: str) -> None:
    assert largest_magnitude(lazy(dtype, 1, -65536, np.nan)) == 65536
    assert largest_magnitude(lazy(dtype, 1, -2, np.inf, np.nan)) == 2
    assert largest_magnitude(lazy(dtype, 3, -0.5)) == 3
    assert largest_magnitude(lazy(dtype)) == 0


def test_weights_beyond_float16_are_named() -> None:
    found = {
        "small": lazy("float32", 65504, -65504),
        "large": lazy("float32", 1, -70000),
        "larger": lazy("bfloat16", 131072),
    }
    with pytest.warns(
        UserWarning, match="`larger` and 1 more weights have values beyond 65504"
    ):
        assert dict(checked(found, "float16")) == found
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dict(checked(found, "float32")) == found
        assert dict(checked({"small": found["small"]}, "float16")) == {"small": found["small"]}


def test_a_model_is_loaded_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "line.arch"
    path.write_text(SPEC)
    weight = np.array([[1e5, 0], [0, 1]], np.float32)
    np.savez(tmp_path / "w.npz", **{"out.weight": weight, "out.bias": np.zeros(2, np.float32)})
    model = archdsl.compile(str(path), device="CPU", dtype="float16")
    with pytest.warns(UserWarning, match=r"`out.weight` has values beyond 65504"):
        model.load(tmp_path / "w.npz")
