"""Checks of tensors, dtypes and memory."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from tinygrad import Context, Device, Tensor, UOp, dtypes

from tests.backend.contract.base import check, private, program, realized, recorded


@check("Ops")
def kinds() -> None:
    Ops, x = private("Ops"), realized(1, 2)
    assert x.uop.base.op is Ops.BUFFER
    assert x.reshape(2, 1).uop.op is Ops.RESHAPE
    assert (x + 1).contiguous().uop.op is Ops.CONTIGUOUS
    assert x.uop.after(x.uop).op is Ops.AFTER
    with recorded() as calls:
        y = (x + 1).realize()
    (call,) = calls
    assert call.op is Ops.CALL
    assert call.src[0].op is Ops.SINK
    assert {each.base for each in call.src[1:]} == {x.uop.base, y.uop.base}
    made = program(lambda x: x * 3, 1, 2)
    assert made.op is Ops.PROGRAM
    assert [each.op for each in made.src[1:3]] == [Ops.LINEAR, Ops.SOURCE]


@check("buffers")
def buffers_of_uops() -> None:
    buffers, x = private("buffers"), realized(1, 2)
    assert buffers[x.uop.base] is x.uop.base.buffer
    before = next(UOp.unique_num)
    with recorded():
        made = (x + 1).realize()
    assert made.uop.base not in buffers
    assert made.uop.base.arg.slot > before


@check("Buffer")
def memory() -> None:
    buffer = private("Buffer")("CPU", 3, dtypes.float32, preallocate=True)
    tensor = Tensor(UOp.from_buffer(buffer)).reshape(3)
    with recorded() as calls:
        tensor.realize()
    assert calls == []
    assert tensor.uop.base.buffer is buffer
    given = np.array([1, 2, 3], np.float32)
    buffer.allocator._copyin(buffer._buf, given.data.cast("B"))
    assert tensor.tolist() == [1, 2, 3]
    found = np.empty(3, np.float32)
    buffer.allocator._copyout(found.data.cast("B"), buffer._buf)
    assert found.tolist() == [1, 2, 3]
    at = buffer.get_buf("CPU").va_addr
    assert list((ctypes.c_float * 3).from_address(at)) == [1, 2, 3]
    other = private("Buffer")("CPU", 3, dtypes.float32, preallocate=True).copy_from(buffer)
    assert other.get_buf("CPU").va_addr != at
    assert other.nbytes == 12
    assert Tensor(UOp.from_buffer(other)).tolist() == [1, 2, 3]
    words = private("Buffer")("CPU", 2, dtypes.uint64, preallocate=True)
    view = words.get_buf("CPU").cpu_view().view(fmt="Q")
    view[1] = 7
    assert Tensor(UOp.from_buffer(words)).tolist()[1] == 7


@check("BufferSpec")
def fresh_memory() -> None:
    """New pages are zeros, also after other pages were freed."""
    Buffer, options = private("Buffer"), private("BufferSpec")(nolru=True)
    for _ in range(3):
        buffer = Buffer("CPU", 2**18, dtypes.float32, None, options).allocate()
        tensor = Tensor(UOp.from_buffer(buffer))
        found = tensor.numpy()
        assert not found.any()
        ones = np.ones(2**18, np.float32)
        buffer.allocator._copyin(buffer._buf, ones.data.cast("B"))
        del tensor, buffer


@check("BufferSpec")
def memory_of_others() -> None:
    """A buffer at a given address, which outlives it."""
    memory = np.arange(4, dtype=np.float32)
    options = private("BufferSpec")(external_ptr=memory.ctypes.data)
    buffer = private("Buffer")("CPU", 4, dtypes.float32, None, options).allocate()
    assert Tensor(UOp.from_buffer(buffer)).tolist() == [0, 1, 2, 3]
    buffer.deallocate()
    assert memory.tolist() == [0, 1, 2, 3]


@check("AxisType")
def shares() -> None:
    x = realized(1, 2, 3, 4)
    whole = x.shard(("CPU", "CPU:1")).realize()
    assert [each.nbytes for each in whole.uop.base.buffer.bufs] == [16, 16]
    device = UOp.range(2, -1, private("AxisType").DEVICE)
    split = Tensor(whole.uop._shard(0, device).unshard(0)).contiguous().realize()
    assert (whole.uop.axis, split.uop.axis) == (None, 0)
    found = np.empty(2, np.float32)
    for number, buffer in enumerate(split.uop.base.buffer.bufs):
        buffer.allocator._copyout(found.data.cast("B"), buffer._buf)
        assert found.tolist() == [1 + 2 * number, 2 + 2 * number]


@check("LRUAllocator")
def freed_memory() -> None:
    allocator = Device["CPU"].allocator
    assert isinstance(allocator, private("LRUAllocator"))
    buffer = private("Buffer")("CPU", 12345, dtypes.uint8, preallocate=True)
    buffer.deallocate()
    found = {size: kept for (size, _), kept in allocator.cache.items()}
    assert len(found[12345]) == 1
    given: list[int] = []
    above = private("LRUAllocator").__mro__[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(above, "free", lambda self, memory, size, options: given.append(size))
        super(private("LRUAllocator"), allocator).free(found[12345].pop(), 12345, None)
    assert given == [12345]


@check("DType")
def dtype() -> None:
    assert isinstance(dtypes.bfloat16, private("DType"))
    assert (dtypes.float32.itemsize, dtypes.int32.fmt) == (4, "i")
    assert dtypes.is_float(dtypes.float16)
    assert not dtypes.is_float(dtypes.int32)


@check("DTYPES_DICT")
def dtypes_by_name() -> None:
    found = private("DTYPES_DICT")
    assert found["float32"] is dtypes.float32
    assert found["bfloat16"] is dtypes.bfloat16


@check("storage_fmt_for_dtype")
def formats() -> None:
    found = private("storage_fmt_for_dtype")
    assert (found(dtypes.float32), found(dtypes.bfloat16)) == ("f", "H")


@check("all_int")
def whole() -> None:
    assert private("all_int")((1, 2))
    assert not private("all_int")((1, UOp.variable("n", 1, 3)))


@check("TRAINING")
def training() -> None:
    found = private("TRAINING")
    assert not found
    with Context(TRAINING=1):
        assert found.value
    assert not found.value


@check("optim")
def optimizers() -> None:
    for name in ("AdamW", "LAMB", "Muon", "SGD"):
        weight = realized(1, 2).reshape(1, 2)
        with Context(TRAINING=1):
            optimizer = getattr(private("optim"), name)([weight])
            optimizer.lr = realized(0.5)
            weight.grad = realized(1, 1).reshape(1, 2)
            changed = optimizer.schedule_step()
        Tensor.realize(*changed)
        assert (weight < Tensor([[1, 2]], device="CPU")).all().item()
