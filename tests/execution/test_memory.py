"""Sizes that no machine can hold, and settings of NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import archdsl
from archdsl.analysis import analyse
from archdsl.diagnostics import ArchError
from archdsl.graph.cost import cost

SPEC = archdsl.parse("""
model M(D = 8, context = 4, depth = 1, rate = 0.5) {
  input t: int[T <= context] < 10
  h = t -> embed(10, D) -> posenc(sinusoidal) -> scale(rate) -> { linear(D) } * depth
  output y: float[T, D] = h
}
""")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"D": 2**63}, "the weights of `M` need more memory than this machine has"),
        ({"D": 2**40}, "the weights of `M` need more memory than this machine has"),
        ({"D": 10**5000}, "`D` of `M` cannot be a number beyond 10^30"),
        ({"context": 10**18}, "the axis `T` of `M` is too long to compute with"),
        ({"depth": 10**9}, "`M` has 2_000_000_001 tensors of weights"),
    ],
)
def test_a_size_beyond_memory_is_refused_first(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ArchError) as error:
        archdsl.compile(SPEC, device="CPU", **settings)(t=[[1]])
    (found,) = error.value.diagnostics
    assert (found.code, found.message) == ("argument-value", message)


def test_costs_are_formulas() -> None:
    assert cost(analyse(SPEC, settings={"context": 10**18}).graph).sizes == {"T": 10**18}


@pytest.mark.parametrize("size", [np.int64(32), np.int8(32), np.float32(32), np.array(32)])
def test_a_number_of_numpy_is_a_size(size: int) -> None:
    graph = analyse(SPEC, settings={"D": size, "rate": np.float32(0.25)}).graph
    assert graph == analyse(SPEC, settings={"D": 32, "rate": 0.25}).graph


@pytest.mark.parametrize("size", [np.float32(8.5), np.array([32]), np.bool_(True), np.nan])
def test_another_value_of_numpy_is_not(size: int) -> None:
    with pytest.raises(ArchError, match="`D` of `M` cannot be"):
        analyse(SPEC, settings={"D": size})
