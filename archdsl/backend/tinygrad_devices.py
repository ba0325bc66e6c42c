"""How much memory a device has, for which dtypes it has tensor cores, and tensors that are on
several devices."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tinygrad import Device, Tensor, UOp
from tinygrad.uop.ops import AxisType

from archdsl.backend.tinygrad_seam import DTYPES_DICT, memory

_WITH_TENSOR_CORES = frozenset({"CUDA", "NV", "AMD", "HIP", "METAL"})


def total_memory(device: str) -> int | None:
    """The bytes of memory of an open device; None where its driver does not report them."""
    family = device.split(":")[0]
    with suppress(AttributeError, OSError, ValueError, IndexError, subprocess.SubprocessError):
        return _TOTAL[family](Device[device]) if family in _TOTAL else None
    return None


def free_memory(device: str) -> int | None:
    """The bytes of memory that no process uses; None where this is not known."""
    if device.split(":")[0] != "CUDA":
        return None
    from tinygrad.runtime.autogen import cuda

    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    opened: Any = Device[device]
    cuda.cuCtxSetCurrent(opened.context)
    if cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)):
        return None
    return free.value


def tensor_core_dtypes(device: str) -> tuple[str, ...]:
    """The dtypes that an open device multiplies on tensor cores.

    float32 is left out on NVIDIA GPUs, which would round it to 19 bits.
    """
    renderer: Any = Device[device].renderer
    found = {core.dtype_in for core in renderer.tensor_cores}
    names = ["bfloat16", "float16"]
    if device.split(":")[0] not in ("CUDA", "NV"):
        names.append("float32")
    return tuple(name for name in names if DTYPES_DICT[name] in found)


def accumulates_in_float32(device: str) -> bool:
    """Whether a device multiplies 16-bit matrices in hardware, with float32 sums.

    Older GPUs have no tensor cores: their device is open, and says so. A device that is not
    open is only lowered for, and is taken as a new one.
    """
    if device.split(":")[0] not in _WITH_TENSOR_CORES:
        return False
    opened: Any = Device
    if device not in opened._opened_devices:
        return True
    renderer: Any = Device[device].renderer
    return bool(renderer.tensor_cores)


# -- tensors on several devices --


def shares(tensor: Tensor) -> list[tuple[Any, tuple[slice, ...]]]:
    """The buffers of a realized tensor, and the part of the tensor that each holds.

    On several devices each has the whole tensor, or its share of one axis.
    """
    found = memory(tensor)
    buffers, axis = getattr(found, "bufs", [found]), tensor.uop.axis
    if axis is None:
        return [(buffer, ()) for buffer in buffers]
    size, before = int(tensor.shape[axis]) // len(buffers), (slice(None),) * axis
    return [
        (buffer, (*before, slice(i * size, (i + 1) * size))) for i, buffer in enumerate(buffers)
    ]


def split_like(x: Tensor, other: Tensor) -> Tensor:
    """x, of which each device takes the share that it holds of another tensor of this shape.

    Nothing is copied: x is whole on each of the devices, or split like the other.
    """
    axis, devices = other.uop.axis, other.device
    if not isinstance(devices, tuple) or axis is None or axis == x.uop.axis:
        return x
    device = UOp.range(len(devices), -1, AxisType.DEVICE)
    return Tensor(x.uop._shard(axis, device).unshard(axis))


def _host(opened: Any) -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cuda(opened: Any) -> int:
    from tinygrad.runtime.autogen import cuda

    total = ctypes.c_size_t()
    if cuda.cuDeviceTotalMem_v2(ctypes.byref(total), opened.cu_device):
        raise OSError("cuDeviceTotalMem failed")
    return total.value


def _opencl(opened: Any) -> int:
    from tinygrad.runtime.autogen import opencl

    total = ctypes.c_uint64()
    what, size = opencl.CL_DEVICE_GLOBAL_MEM_SIZE, ctypes.sizeof(total)
    opencl.clGetDeviceInfo(opened.cl_dev, what, size, ctypes.byref(total), None)
    return total.value


def _metal(opened: Any) -> int:
    return int(opened.sysdevice.recommendedMaxWorkingSetSize())


def _amd(opened: Any) -> int:
    """Linux shows the memory of each AMD GPU in a file."""
    found = sorted(Path("/sys/class/drm").glob("card*/device/mem_info_vram_total"))
    return int(found[getattr(opened, "device_id", 0)].read_text())


def _nvidia(opened: Any) -> int:
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    shown = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    lines = shown.stdout.split()
    return int(lines[getattr(opened, "device_id", 0)]) * 2**20


_TOTAL: dict[str, Callable[[Any], int]] = {
    "CPU": _host,
    "CUDA": _cuda,
    "CL": _opencl,
    "METAL": _metal,
    "AMD": _amd,
    "HIP": _amd,
    "NV": _nvidia,
}
