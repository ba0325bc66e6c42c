"""A kernel in C as a step of tinygrad's: its sizes, its buffers, and its call."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from tinygrad import Tensor, UOp, dtypes

from archdsl.backend.kernels import thread_pool
from archdsl.backend.kernels.source import source
from archdsl.backend.quantized import Quantized
from archdsl.backend.tinygrad_seam import (
    AddrSpace,
    DType,
    Estimates,
    KernelInfo,
    Ops,
    ProgramInfo,
    Target,
)

# What each dtype is called in C; of the half ones a kernel has one, its `weight`.
_TYPES = {
    dtypes.float32: "float",
    dtypes.int32: "int",
    dtypes.int8: "number",
    dtypes.uint8: "number",
}
_KINDS = {
    dtypes.bfloat16: "BFLOAT16",
    dtypes.float16: "FLOAT16",
    dtypes.int8: "INT8",
    dtypes.uint8: "INT4",
}


def stored(
    name: str, weight: Tensor | Quantized
) -> tuple[dict[str, object], dict[str, Tensor | None]]:
    """The constants and the inputs of a kernel that say how a weight lies in memory."""
    if isinstance(weight, Tensor):
        return {}, {name: weight}
    constants: dict[str, object] = {
        "GROUP": weight.group,
        "OFFSETS": int(weight.offsets is not None),
    }
    inputs = {name: weight.values, "scales": weight.scales, "offsets": weight.offsets}
    return constants, inputs


def launch(
    name: str,
    constants: Mapping[str, object],
    outputs: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor | None],
    operations: int = 0,
    gradient: Callable[[UOp, UOp], tuple[UOp | None, ...]] | None = None,
) -> tuple[Tensor, ...]:
    """The outputs once `{name}.c` has run on them and on the inputs that there are.

    Outputs are written in place; a view that is not contiguous is copied first, so they are
    none. Tensors have the names of the fields of the kernel's `struct args`, `constants` are
    its macros, `operations` is what tinygrad counts it as, and `gradient` what it calls for
    the gradients of all buffers: the outputs, the inputs, and the team of threads.
    """
    tensors = {**outputs, **{key: each for key, each in inputs.items() if each is not None}}
    buffers = (*tensors.values(), thread_pool.tensor())
    text = source(name, {"KERNEL": name, **_signature(tensors, len(outputs)), **constants})
    called = "_".join([name, *(str(size) for size in buffers[0].shape)])
    kinds = tuple((each.uop.max_shard_shape, each.dtype) for each in buffers)
    read = sum(int(each.nbytes()) for each in tensors.values())
    program = _program(text, called, kinds, len(outputs), Estimates(operations, 0, read))
    call = program.call(*(each.uop for each in buffers), grad_fxn=gradient)
    return tuple(Tensor(each.uop.after(call)) for each in outputs.values())


@functools.cache  # the copies of a block share theirs
def _program(
    text: str,
    called: str,
    kinds: tuple[tuple[tuple[int, ...], DType], ...],
    outputs: int,
    estimates: Estimates,
) -> UOp:
    """A program of tinygrad's for buffers of these shapes and dtypes."""
    parameters = tuple(
        UOp.placeholder(shape, dtype, slot, AddrSpace.GLOBAL)
        for slot, (shape, dtype) in enumerate(kinds)
    )
    info = ProgramInfo(
        called,
        local_size=(1, 1, 1),  # or tinygrad would look for the best one
        globals=tuple(range(len(kinds))),
        outs=tuple(range(outputs)),
        ins=tuple(range(outputs, len(kinds))),
        target=Target("CPU"),
    )
    body = UOp.sink(*parameters, arg=KernelInfo(called, estimates=estimates))
    listing = UOp(Ops.LINEAR, src=parameters)
    return UOp(Ops.PROGRAM, src=(body, listing, UOp(Ops.SOURCE, arg=text)), arg=info)


def _signature(tensors: Mapping[str, Tensor], outputs: int) -> dict[str, object]:
    """The macros of a kernel's parameters, of what it keeps of them, and of its `weight`."""
    types = [_TYPES.get(each.dtype, "weight") for each in tensors.values()]
    constant = [""] * outputs + ["const "] * (len(tensors) - outputs)
    parameters = map("{}{} *{}".format, constant, types, tensors)
    kinds = {_KINDS[each.dtype]: 1 for each in tensors.values() if each.dtype in _KINDS}
    return kinds | {
        "PARAMETERS": ", ".join(parameters),
        "ARGUMENTS": ", ".join(f".{key} = {key}" for key in tensors),
    }
