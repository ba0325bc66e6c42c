"""Helpers for tinygrad tensors: copies between numpy and a device, contiguity, realization.

`copy_in` and `copy_out` bypass tinygrad's scheduler, which takes longer than a step of a small
model.
"""

from __future__ import annotations

import functools
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tinygrad import Device, Tensor, UOp, dtypes

from archdsl.backend.large_pages import LargePages
from archdsl.backend.tinygrad_devices import shares
from archdsl.backend.tinygrad_memory import free_cached_memory
from archdsl.backend.tinygrad_seam import (
    Buffer,
    BufferSpec,
    DType,
    Ops,
    memory,
    not_captured,
    one_thread,
    read_buffer,
    write_buffer,
)
from archdsl.diagnostics import fail

# How drivers say it: CUDA, HIP and Metal; OpenCL.
_FULL = ("out of memory", "mem_object_allocation_failure", "out_of_host_memory")


class Shaped(Protocol):
    @property
    def shape(self) -> tuple[Any, ...]: ...


def shape(x: Shaped) -> tuple[int, ...]:
    return tuple(int(size) for size in x.shape)


def make_contiguous(x: Tensor) -> Tensor:
    """x as a contiguous tensor, computed once instead of once per use.

    A tensor that already has its own buffer is returned as it is.
    """
    return x if _base(x).op in (Ops.AFTER, Ops.BUFFER, Ops.CONTIGUOUS) else x.contiguous()


def in_buffer(x: Tensor, device: str | tuple[str, ...]) -> Tensor:
    """x in a buffer, also if all its numbers are the same: tinygrad stores no constant."""
    return x if _base(x).op in (Ops.AFTER, Ops.BUFFER) else x.clone(device=device)


def _base(x: Tensor) -> UOp:
    """The value that x shows in another shape."""
    uop = x.uop
    while uop.op is Ops.RESHAPE:
        uop = uop.src[0]
    return uop


def copy_in(tensor: Tensor, values: NDArray[Any]) -> None:
    """Copies an array into a realized tensor of the same shape and dtype."""
    for buffer, part in shares(tensor):
        share = values[part] if part else values
        data = np.require(share, requirements=["C", "W"])  # tinygrad asks for writable memory
        assert data.nbytes == buffer.nbytes, f"{data.nbytes} bytes for {buffer.nbytes}"
        write_buffer(buffer, data.data.cast("B"))


def copy_out(tensor: Tensor) -> NDArray[np.float32]:
    """Copies a realized float32 tensor into an array."""
    values = np.empty(shape(tensor), np.float32)
    for buffer, part in shares(tensor):
        share = np.empty(values[part].shape, np.float32) if part else values
        assert share.nbytes == buffer.nbytes, f"{share.nbytes} bytes for {buffer.nbytes}"
        read_buffer(share.data.cast("B"), buffer)
        if part:
            values[part] = share
    return values


def to_device(
    values: NDArray[Any],
    device: str,
    dtype: str = "float32",
    pages: LargePages | None = None,
    shape: tuple[int, ...] | None = None,
) -> Tensor:
    """Copies an array into a new tensor on a device; on the CPU in `pages`, if given.

    The tensor has the shape of the array, or `shape`. The array holds the bits of `dtype`;
    float16 values are converted if `dtype` is float32.
    """
    kind = getattr(dtypes, dtype)
    buffer: Any = (
        pages.buffer(values.size, kind)
        if pages is not None and device == "CPU"
        else _allocate(device, values.size, kind)
    )
    wide = dtype == "float32" and values.dtype == np.float16
    if device == "CPU":  # convert and copy in one pass
        memory = np.frombuffer(
            buffer.allocator._as_buffer(buffer._buf), np.float32 if wide else values.dtype
        )
        np.copyto(memory.reshape(values.shape), values)
        return _over(buffer, shape or values.shape)
    tensor = _over(buffer, shape or values.shape)
    copy_in(tensor, np.require(values, np.float32 if wide else None, requirements=["W"]))
    return tensor


def _allocate(device: str, size: int, dtype: DType) -> Any:
    """A new buffer. Two threads at once could be given the same memory by tinygrad."""
    with one_thread:
        return Buffer(device, size, dtype, preallocate=True)


def _over(buffer: Any, shape: tuple[int, ...]) -> Tensor:
    """A tensor over a buffer. Skips `reshape`, which is slow for a thousand weights.

    It waits for a capture in another thread, which looks through all buffers of the process.
    """
    with one_thread:
        uop, sizes = UOp.from_buffer(buffer), _sizes(shape)
        return Tensor(uop if sizes is None else UOp(Ops.RESHAPE, src=(uop, sizes)))


@functools.lru_cache(10_000)
def _sizes(shape: tuple[int, ...]) -> UOp | None:
    """tinygrad's shape argument for reshaping a flat buffer; None if no reshape is needed."""
    flat = UOp.new_buffer("CPU", prod(shape), dtypes.uint8)
    reshaped: UOp = flat.reshape(shape)
    return None if reshaped is flat else reshaped.src[1]


def zeros(shape: tuple[int, ...], device: str, dtype: str) -> Tensor:
    """Zeros on a device, without running a kernel.

    On the CPU the system provides zero pages, which take memory only once they are written to.
    The buffer must therefore be new, not one that tinygrad reuses.
    """
    options = BufferSpec(nolru=True)
    buffer: Any = Buffer(device, prod(shape), getattr(dtypes, dtype), None, options).allocate()
    tensor = _over(buffer, shape)
    if device != "CPU":
        copy_in(tensor, np.zeros(buffer.nbytes, np.uint8))
    return tensor


def zeros_like(tensor: Tensor) -> Tensor:
    """Float32 zeros of the shape of a tensor, in shares on the same devices."""
    if isinstance(tensor.device, str):
        return zeros(shape(tensor), tensor.device, "float32")
    return realize_outside_capture(tensor.zeros_like(dtype=dtypes.float32).contiguous())


def fill_zeros(tensor: Tensor) -> None:
    """Overwrites a realized tensor with zeros."""
    write_buffer(memory(tensor), memoryview(bytearray(memory(tensor).nbytes)))


def copy_tensor(x: Tensor, sizes: tuple[int, ...] | None = None) -> Tensor:
    """Copies a realized tensor; of each axis only the first `sizes` elements."""
    sizes = sizes or shape(x)
    if not isinstance(x.device, str):
        return realize_outside_capture(x.clone())
    buffer = memory(x)
    first = tuple(slice(size) for size in sizes)
    if buffer.device != "CPU" and sizes != shape(x):
        return realize_outside_capture(x[first].contiguous())
    new = _allocate(buffer.device, prod(sizes), buffer.dtype)
    if buffer.device == "CPU":
        number = f"u{buffer.dtype.itemsize}"
        whole, part = (
            np.frombuffer(b.allocator._as_buffer(b._buf), number) for b in (buffer, new)
        )
        np.copyto(part.reshape(sizes), whole.reshape(shape(x))[first])
    else:
        new.copy_from(buffer)
    return _over(new, sizes)


def trim_memory(device: str, above: int = 0) -> None:
    """Frees the device memory that tinygrad caches for reuse, if it is above so many bytes."""
    with one_thread:
        free_cached_memory(device, above)


def finish_copies(device: str) -> None:
    """Frees the host memory from which arrays were copied to a device.

    CUDA copies from locked pages of the host. tinygrad keeps those of every copy until the
    device is waited for: without this, those of all weights at once.
    """
    opened: Any = Device[device]
    opened.synchronize()
    trim_memory(device)


def refuse_full_device(error: Exception, device: str) -> None:
    """Raises `ArchError` "device" if an error says that the device has no memory left."""
    said = str(error).lower()
    if isinstance(error, MemoryError) or any(words in said for words in _FULL):
        fail(
            "device",
            f"the device `{device}` has no memory left",
            found=(str(error).strip().splitlines() or ["MemoryError"])[0],
            help="use a 16-bit dtype, a shorter context or fewer rows; "
            "`archdsl doctor SPEC` says what fits",
            cause=error,
        )


def realize_outside_capture(tensor: Tensor) -> Tensor:
    """Computes a tensor now, so that it is not part of a program that is being captured."""
    with not_captured():
        return tensor.realize()
