"""What a device is good for, as its driver and its renderer say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from tinygrad import Device, dtypes

from archdsl.backend import tinygrad_devices
from archdsl.backend.target import open_device
from archdsl.backend.tinygrad_devices import (
    accumulates_in_float32,
    free_memory,
    tensor_core_dtypes,
    total_memory,
)


class Opened:
    """tinygrad's `Device` with one open device."""

    def __init__(self, name: str, *cores: Any):
        self._opened_devices = {name}
        cores = tuple(SimpleNamespace(dtype_in=each) for each in cores)
        self.device = SimpleNamespace(renderer=SimpleNamespace(tensor_cores=cores))

    def __getitem__(self, name: str) -> Any:
        return self.device


def test_the_memory_of_the_cpu() -> None:
    device = open_device("CPU")
    total = total_memory(device)
    assert total is not None
    assert total > 2**28
    assert free_memory(device) is None
    assert total_memory("WEBGPU") is None


def test_an_older_gpu_has_no_tensor_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tinygrad_devices, "Device", Opened("CUDA"))
    assert tensor_core_dtypes("CUDA") == ()
    assert not accumulates_in_float32("CUDA")
    new = Opened("CUDA", dtypes.half, dtypes.bfloat16, dtypes.float)
    monkeypatch.setattr(tinygrad_devices, "Device", new)
    assert tensor_core_dtypes("CUDA") == ("bfloat16", "float16")
    assert accumulates_in_float32("CUDA")


def test_a_gpu_that_is_not_open_is_taken_as_a_new_one() -> None:
    assert "AMD" not in vars(Device)["_opened_devices"]
    assert accumulates_in_float32("AMD")
    assert not accumulates_in_float32("CPU")
    assert not accumulates_in_float32("CL")
