"""Sizes that no machine can hold, devices that are full, and settings of NumPy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tinygrad import Device

import archdsl
from archdsl.analysis import analyse
from archdsl.backend.target import probe
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


# -- memory of devices --

GPT = {"vocab": 50, "context": 16, "D": 32, "heads": 4, "depth": 2}


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA Error 2, out of memory"),
        RuntimeError("OpenCL Error -4: CL_MEM_OBJECT_ALLOCATION_FAILURE"),
        MemoryError("Failed to allocate memory of size 10"),
    ],
)
def test_a_full_device_is_reported(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    model = archdsl.compile("gpt.arch", device="CPU", **GPT)

    def full(*given: object, **named: object) -> None:
        raise error

    monkeypatch.setattr(model.executable, "_load_weights", full)
    with pytest.raises(ArchError, match=r"`CPU` has no memory left[\s\S]*archdsl doctor SPEC"):
        model(tokens=[[1, 2]])
    monkeypatch.undo()
    monkeypatch.setattr("archdsl.backend.program._Jit.__call__", full)
    with pytest.raises(ArchError, match=r"`CPU` has no memory left"):
        model(tokens=[[1, 2]])


def test_weights_on_several_devices_are_refused() -> None:
    model = archdsl.compile("gpt.arch", device="CPU", **GPT)
    name, weight = list(model.parameters.items())[-1]
    weight.shard_(("CPU:0", "CPU:1"))
    with pytest.raises(ArchError, match=rf"the weight `{name}` is spread over 2 devices"):
        model(tokens=[[1, 2]])


@pytest.mark.long
def test_weights_are_on_a_device_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a float32 file no more is there, at any time, than the weights and a few tensors."""
    if not probe("CL").runs:
        pytest.skip("OpenCL does not run here")
    sizes = GPT | {"D": 128, "depth": 8}
    archdsl.compile("gpt.arch", device="CPU", **sizes).save(tmp_path / "w.safetensors")
    model = archdsl.compile("gpt.arch", device="CL", dtype="bfloat16", **sizes)
    allocator: Any = Device[model.device].allocator
    held, peak = 0, 0
    allocate, free = allocator._alloc, allocator._free

    def counted(size: int, options: Any) -> Any:
        nonlocal held, peak
        held += size
        peak = max(peak, held)
        buffer = allocate(size, options)
        counts[id(buffer)] = size
        return buffer

    def freed(buffer: Any, options: Any) -> None:
        nonlocal held
        held -= counts.pop(id(buffer), 0)
        free(buffer, options)

    counts: dict[int, int] = {}
    monkeypatch.setattr(allocator, "_alloc", counted)
    monkeypatch.setattr(allocator, "_free", freed)
    monkeypatch.setattr("archdsl.execution.executable._UNTRIMMED", 2**18)
    model.load(tmp_path / "w.safetensors")
    weights = model.cost().weight_bytes
    largest = 4 * 4 * 128 * 128
    assert weights <= held < 1.1 * weights
    assert peak < weights + 2**18 + 3 * largest < 2 * weights
