"""Sizes that no machine can hold, and settings of NumPy."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import archdsl
from archdsl.analysis import analyse
from archdsl.diagnostics import ArchError
from archdsl.execution.memory import machine_memory
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


@pytest.mark.parametrize(
    "size", [np.int64(32), np.int8(32), np.float32(32), np.array(32), 3.2e1]
)
def test_a_number_of_numpy_is_a_size(size: int) -> None:
    graph = analyse(SPEC, settings={"D": size, "rate": np.float32(0.25)}).graph
    assert graph == analyse(SPEC, settings={"D": 32, "rate": 0.25}).graph


@pytest.mark.parametrize("size", [np.float32(8.5), np.array([32]), np.bool_(True), np.nan])
def test_another_value_of_numpy_is_not(size: int) -> None:
    with pytest.raises(ArchError, match="`D` of `M` cannot be"):
        analyse(SPEC, settings={"D": size})


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "3000"}, 3000),
        ("0::/a/b\n", {"a/b/memory.max": "2000", "a/memory.max": "3000"}, 2000),
        ("0::/elsewhere\n", {"memory.max": "1000"}, 1000),
        ("2:cpu:/a\n1:memory,cpu:/a\n", {"memory/a/memory.limit_in_bytes": "4000"}, 4000),
        ("1:memory:/b\n", {"memory/memory.limit_in_bytes": "5000"}, 5000),
        ("1:memory:/a\n", {"memory/a/memory.limit_in_bytes": str(2**63 - 4096)}, None),
        ("0::/a\n", {"a/memory.max": "max"}, None),
        ("", {"memory.max": "1000"}, None),
        (None, {}, None),
    ],
)
def test_the_limit_of_a_container(
    groups: str | None, limits: dict[str, str], expected: int | None, tmp_path: Path
) -> None:
    if groups is not None:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, text in limits.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert machine_memory(tmp_path) == (expected or physical)


def test_a_model_beyond_the_limit_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archdsl.execution.memory.machine_memory", lambda: 500)
    with pytest.raises(ArchError, match="at most 500 bytes"):
        archdsl.compile(SPEC, device="CPU")(t=[[1]])
