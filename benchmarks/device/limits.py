"""The limits of a device, as measured: matrix products and reading memory.

tinygrad and PyTorch are both tried, and the faster one counts. Sizes grow until a call takes
long enough to be measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from archdsl.backend.target import open_device, supports
from archdsl.backend.tinygrad_devices import tensor_core_dtypes, total_memory
from benchmarks.device.runner import Line

_ENOUGH = 0.02  # seconds of a call
_SIDES = (256, 1024, 4096, 8192)
_BYTES = tuple(2**power for power in (24, 26, 28, 30))
_FIRST = 3.0  # seconds after which no larger size is tried


def measured(device: str) -> Line:
    """The device, and its limits in flops and bytes per second.

    The 16-bit dtypes are measured where they have tensor cores; otherwise they are emulated or
    hardly faster.
    """
    device = open_device(device)
    dtypes = [name for name in ("float32", "float16", "bfloat16") if supports(device, name)]
    memory, cores = total_memory(device), tensor_core_dtypes(device)
    fast = [name for name in dtypes if name == "float32" or name in cores]
    return {
        "device": device,
        "memory": memory,
        "dtypes": dtypes,
        "tensor_cores": list(cores),
        "flops": {name: _product(device, name) for name in fast},
        "bytes": _read(device, memory),
    }


def torch_measured(device: str) -> Line:
    """The same limits as PyTorch reaches them."""
    import torch

    name = torch_device(device)
    dtypes = ("float32",) if name == "cpu" else ("float32", "float16", "bfloat16")
    return {
        "torch": torch.__version__,
        "torch_device": name,
        "torch_flops": {dtype: _torch_product(name, dtype) for dtype in dtypes},
        "torch_bytes": _torch_read(name),
    }


def best(line: Line, dtype: str) -> tuple[float, float]:
    """Flops and bytes per second that the device reaches in a dtype."""
    if line.get("torch_device") == "cpu" and line["device"] != "CPU":
        return line["flops"][dtype], line["bytes"]  # not the same device
    flops = max(line["flops"][dtype], line.get("torch_flops", {}).get(dtype, 0.0))
    return flops, max(line["bytes"], line.get("torch_bytes", 0.0))


def torch_device(device: str) -> str:
    """PyTorch's name of the same device; the CPU where it has none."""
    import torch

    family = device.split(":")[0]
    if family in ("CUDA", "NV", "AMD", "HIP") and torch.cuda.is_available():
        return "cuda"
    if family == "METAL" and torch.backends.mps.is_available():
        return "mps"
    return "cpu"


def synchronize(name: str) -> None:
    """Waits for PyTorch's device."""
    import torch

    if name != "cpu":
        getattr(torch, name).synchronize()


def _product(device: str, dtype: str) -> float:
    from tinygrad import Device, Tensor
    from tinygrad.helpers import Context

    def make(side: int) -> Callable[[], Any]:
        a, b = (Tensor.ones(side, side, device=device).contiguous() for _ in range(2))
        a, b = a.cast(dtype).realize(), b.cast(dtype).realize()

        def once() -> None:
            a.matmul(b, dtype="float32").cast(dtype).realize()
            Device[device].synchronize()

        return once

    with Context(TC_OPT=2):  # type: ignore[no-untyped-call]
        return _rate(make, _SIDES, lambda side: 2.0 * side**3)


def _read(device: str, memory: int | None) -> float:
    from tinygrad import Device, Tensor

    def make(size: int) -> Callable[[], Any]:
        x = Tensor.ones(size // 4, device=device).contiguous().realize()

        def once() -> None:
            x.max().realize()
            Device[device].synchronize()

        return once

    return _rate(make, _allowed(memory), float)


def _torch_product(name: str, dtype: str) -> float:
    import torch

    def make(side: int) -> Callable[[], Any]:
        a, b = torch.ones(2, side, side, dtype=getattr(torch, dtype), device=name)
        return lambda: (a @ b, synchronize(name))

    return _rate(make, _SIDES, lambda side: 2.0 * side**3)


def _torch_read(name: str) -> float:
    import torch

    def make(size: int) -> Callable[[], Any]:
        x = torch.ones(size // 4, device=name)
        return lambda: (x.max(), synchronize(name))

    return _rate(make, _BYTES[:-1], float)


def _allowed(memory: int | None) -> tuple[int, ...]:
    return tuple(size for size in _BYTES if 4 * size <= (memory or 2**30))


def _rate(
    make: Callable[[int], Callable[[], Any]],
    sizes: tuple[int, ...],
    amount: Callable[[int], float],
) -> float:
    """The highest rate, of sizes that grow until a call takes long enough."""
    rates = [0.0]
    for size in sizes:
        start = time.perf_counter()
        call = make(size)
        call()
        first = time.perf_counter() - start
        seconds = shortest(call, 3)
        rates.append(amount(size) / seconds)
        if seconds > _ENOUGH or first > _FIRST:
            break
    return max(rates)


def shortest(call: Callable[[], Any], times: int) -> float:
    """The shortest of several times of a call, in seconds."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return min(found)
