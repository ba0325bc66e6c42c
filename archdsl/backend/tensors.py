"""What is asked of tinygrad's tensors in many places, and numbers in and out of them.

`put` and `get` pass by its scheduler, which takes longer than a step of a small model.
"""

from __future__ import annotations

import functools
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tinygrad import Tensor, UOp, dtypes

from archdsl.backend.tinygrad_seam import (
    Buffer,
    BufferSpec,
    Ops,
    copy_in,
    copy_out,
    free_cached_memory,
    memory,
    not_captured,
)


class Shaped(Protocol):
    @property
    def shape(self) -> tuple[Any, ...]: ...


def shape(x: Shaped) -> tuple[int, ...]:
    return tuple(int(size) for size in x.shape)


def made(x: Tensor) -> Tensor:
    """x computed once, and not again for each use: itself where it has been made already."""
    uop = x.uop
    while uop.op is Ops.RESHAPE:
        uop = uop.src[0]
    return x if uop.op in (Ops.AFTER, Ops.BUFFER, Ops.CONTIGUOUS) else x.contiguous()


def put(tensor: Tensor, values: NDArray[Any]) -> None:
    """Writes values into a realized tensor of their shape and dtype."""
    buffer = memory(tensor)
    data = np.ascontiguousarray(values)
    assert data.nbytes == buffer.nbytes, f"{data.nbytes} bytes for {buffer.nbytes}"
    copy_in(buffer, data.data.cast("B"))


def get(tensor: Tensor) -> NDArray[np.float32]:
    """The values of a realized float32 tensor."""
    buffer = memory(tensor)
    values = np.empty(shape(tensor), np.float32)
    assert values.nbytes == buffer.nbytes, f"{values.nbytes} bytes for {buffer.nbytes}"
    copy_out(values.data.cast("B"), buffer)
    return values


def placed(values: NDArray[Any], device: str, dtype: str = "float32") -> Tensor:
    """The values whose bits these are, of a dtype, in memory of their own on a device.

    Values of float16 can be given for float32.
    """
    buffer: Any = Buffer(device, values.size, getattr(dtypes, dtype), preallocate=True)
    wide = dtype == "float32" and values.dtype == np.float16
    if device == "CPU":  # to where they stay, in one pass
        memory = np.frombuffer(
            buffer.allocator._as_buffer(buffer._buf), np.float32 if wide else values.dtype
        )
        np.copyto(memory.reshape(values.shape), values)
        return _over(buffer, values.shape)
    tensor = _over(buffer, values.shape)
    put(tensor, np.require(values, np.float32 if wide else None, requirements=["W"]))
    return tensor


def _over(buffer: Any, shape: tuple[int, ...]) -> Tensor:
    """A tensor of a buffer, without what `reshape` does anew for each of a thousand."""
    uop, sizes = UOp.from_buffer(buffer), _sizes(shape)
    return Tensor(uop if sizes is None else UOp(Ops.RESHAPE, src=(uop, sizes)))


@functools.cache
def _sizes(shape: tuple[int, ...]) -> UOp | None:
    """What tinygrad has for a shape behind a buffer in one piece; None where that has it."""
    flat = UOp.new_buffer("CPU", prod(shape), dtypes.uint8)
    turned: UOp = flat.reshape(shape)
    return None if turned is flat else turned.src[1]


def zeros(shape: tuple[int, ...], device: str, dtype: str) -> Tensor:
    """Zeros on a device, without a program that makes them. On the CPU they take memory where
    they are written to: it comes from the system, whose new pages are zeros, and anew."""
    options = BufferSpec(nolru=True)
    buffer: Any = Buffer(device, prod(shape), getattr(dtypes, dtype), None, options).allocate()
    tensor = _over(buffer, shape)
    if device != "CPU":
        put(tensor, np.zeros(buffer.nbytes, np.uint8))
    return tensor


def copied(x: Tensor, sizes: tuple[int, ...] | None = None) -> Tensor:
    """A realized tensor's values in memory of their own; of each axis the first `sizes`."""
    buffer, sizes = memory(x), sizes or shape(x)
    first = tuple(slice(size) for size in sizes)
    if buffer.device != "CPU" and sizes != shape(x):
        return kept(x[first].contiguous())
    own: Any = Buffer(buffer.device, prod(sizes), buffer.dtype, preallocate=True)
    if buffer.device == "CPU":
        number = f"u{buffer.dtype.itemsize}"
        whole, part = (
            np.frombuffer(b.allocator._as_buffer(b._buf), number) for b in (buffer, own)
        )
        np.copyto(part.reshape(sizes), whole.reshape(shape(x))[first])
    else:
        own.copy_from(buffer)
    return _over(own, sizes)


def spare(device: str) -> None:
    """Gives back the memory of tensors that are gone, which tinygrad keeps for others of just
    their sizes."""
    free_cached_memory(device)


def kept(tensor: Tensor) -> Tensor:
    """The tensor, made now and for good: no part of a program in whose making it is needed."""
    with not_captured():
        return tensor.realize()
