"""Turns a C kernel into a tinygrad program, and calls it on tensors."""

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

# The C type of each dtype. A kernel has at most one 16-bit dtype, the type `weight`.
_TYPES = {
    dtypes.float32: "float",
    dtypes.int32: "int",
    dtypes.int8: "element",
    dtypes.uint8: "element",
}
_KINDS = {
    dtypes.bfloat16: "BFLOAT16",
    dtypes.float16: "FLOAT16",
    dtypes.int8: "INT8",
    dtypes.uint8: "INT4",
}


def stored_weight(
    name: str, weight: Tensor | Quantized
) -> tuple[dict[str, object], dict[str, Tensor | None]]:
    """The constants and inputs that describe to a kernel how a weight is stored."""
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
    """Runs `{name}.c` and returns its outputs.

    Outputs are written in place, so they must be contiguous: tinygrad copies other views first.
    Inputs that are None are left out. Tensors are named as the fields of the kernel's `struct
    args`, and `constants` are its macros. `operations` is the count that tinygrad reports.
    `gradient` returns the gradients of all buffers: outputs, inputs, and the thread pool.
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


@functools.lru_cache(1000)  # shared by all layers
def _program(
    text: str,
    called: str,
    kinds: tuple[tuple[tuple[int, ...], DType], ...],
    outputs: int,
    estimates: Estimates,
) -> UOp:
    """A tinygrad program for buffers of these shapes and dtypes."""
    parameters = tuple(
        UOp.placeholder(shape, dtype, slot, AddrSpace.GLOBAL)
        for slot, (shape, dtype) in enumerate(kinds)
    )
    info = ProgramInfo(
        called,
        local_size=(1, 1, 1),  # otherwise tinygrad would search for the best one
        globals=tuple(range(len(kinds))),
        outs=tuple(range(outputs)),
        ins=tuple(range(outputs, len(kinds))),
        target=Target("CPU"),
    )
    body = UOp.sink(*parameters, arg=KernelInfo(called, estimates=estimates))
    listing = UOp(Ops.LINEAR, src=parameters)
    return UOp(Ops.PROGRAM, src=(body, listing, UOp(Ops.SOURCE, arg=text)), arg=info)


def _signature(tensors: Mapping[str, Tensor], outputs: int) -> dict[str, object]:
    """The macros for a kernel's parameters, its `struct args`, and the type `weight`."""
    types = [_TYPES.get(each.dtype, "weight") for each in tensors.values()]
    constant = [""] * outputs + ["const "] * (len(tensors) - outputs)
    parameters = map("{}{} *{}".format, constant, types, tensors)
    kinds = {_KINDS[each.dtype]: 1 for each in tensors.values() if each.dtype in _KINDS}
    return kinds | {
        "PARAMETERS": ", ".join(parameters),
        "ARGUMENTS": ", ".join(f".{key} = {key}" for key in tensors),
    }
