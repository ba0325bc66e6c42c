"""The process that a `Tuner` starts: searches kernels one by one.

tinygrad's beam search proposes a schedule. It is accepted if it is faster than the default and
computes the same results from the same inputs.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tinygrad import Context, Device, Tensor, UOp, dtypes

from archdsl.backend.kernels.graph_runner import ParallelProgram
from archdsl.backend.target import kernels_for, open_device, supports
from archdsl.backend.tensors import copy_in
from archdsl.backend.tinygrad_seam import (
    Buffer,
    DType,
    args_from_ast,
    set_runtime,
    storage_fmt_for_dtype,
    time_call,
    to_program,
)
from archdsl.backend.tuning import Schedule, scheduled

WIDTH = 2  # of the beam
ROUNDS = 10  # of timing, in which two kernels alternate
FASTER = 0.95  # a schedule must take less than this share of the default's time

# The largest difference of results, relative to the largest result. Integers must be equal; the
# order of float32 sums may differ.
TOLERANCE = {dtypes.float32: 1e-5, dtypes.float16: 4e-3, dtypes.bfloat16: 3e-2}


def work() -> None:
    """The main loop: receives kernels and settings through a pipe, and sends back results."""
    number, device, shares = sys.argv[1:]
    threading.Thread(target=_end_with_parent, daemon=True).start()
    pipe: Connection[Any, Any] = Connection(int(number))
    supports(open_device(device), "bfloat16")  # loads what bfloat16 needs
    if int(shares) and kernels_for(device):
        set_runtime(device, ParallelProgram)
    while True:
        pipe.send("ready")
        kernel, settings = pipe.recv()
        try:
            with Context(PARALLEL=0, **settings):  # type: ignore[no-untyped-call]
                pipe.send(search(kernel, device))
        except Exception as error:  # any error: the default schedule still works
            pipe.send((None, f"its search failed: {type(error).__name__}: {error}"))


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def search(kernel: UOp, device: str) -> tuple[Schedule, str | None]:
    """The fastest schedule of a kernel, or None; and the reason if the schedule is wrong."""
    renderer = Device[device].renderer
    beam = kernel.replace(arg=replace(kernel.arg, beam=WIDTH))
    schedule = to_program(beam, renderer).src[0].arg.applied_opts
    plain, other = (to_program(scheduled(kernel, each), renderer) for each in (None, schedule))
    if not same_results(kernel, plain, other, device):
        return None, "the schedule gives different results"
    before, after = seconds(kernel, (plain, other), device)
    return (schedule, None) if after < FASTER * before else (None, None)


def same_results(kernel: UOp, plain: UOp, other: UOp, device: str) -> bool:
    """Whether two programs of a kernel give the same results.

    They run on random inputs with the middle values of all variables, then on their absolute
    values with the largest.
    """
    buffers, middle = args_from_ast(kernel, device)
    largest = {each.expr: int(each.vmax) for each in kernel.variables()}
    return all(
        _close(*(_results(program, buffers, values, positive) for program in (plain, other)))
        for values, positive in ((middle, False), (largest, True))
    )


def seconds(kernel: UOp, programs: Sequence[UOp], device: str) -> list[float]:
    """The shortest time of each of a kernel's programs, which alternate."""
    buffers, values = args_from_ast(kernel, device)
    _fill(buffers, False)
    timers = [time_call(_call(program, buffers), values) for program in programs]
    rounds = [[next(timer) for timer in timers] for _ in range(ROUNDS)]
    return [min(times) for times in zip(*rounds, strict=True)]


def _call(program: UOp, buffers: Sequence[Buffer]) -> UOp:
    return program.call(*(UOp.from_buffer(each) for each in buffers))


def _results(
    program: UOp, buffers: Sequence[Buffer], values: dict[str, int], positive: bool
) -> list[tuple[DType, NDArray[Any]]]:
    """Runs a program, and returns the contents of the buffers that it writes."""
    _fill(buffers, positive)
    next(time_call(_call(program, buffers), values))
    return [(buffers[i].dtype, _from_stored(buffers[i])) for i in program.arg.outs]


def _fill(buffers: Sequence[Buffer], positive: bool) -> None:
    """Fills buffers with random numbers: normal floats, and integers 0 and 1."""
    rng = np.random.default_rng(0)
    for each in buffers:
        if dtypes.is_float(each.dtype):
            floats = rng.standard_normal(each.size, np.float32)
            values = _to_stored(np.abs(floats) if positive else floats, each.dtype)
        else:
            values = rng.integers(0, 2, each.size).astype(each.dtype.fmt)
        copy_in(Tensor(UOp.from_buffer(each.ensure_allocated())), values)


def _to_stored(values: NDArray[np.float32], dtype: DType) -> NDArray[Any]:
    """Numbers in the format of a buffer; bfloat16 is the upper half of float32."""
    if dtype == dtypes.bfloat16:
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(dtype.fmt)


def _from_stored(buffer: Buffer) -> NDArray[Any]:
    held = np.frombuffer(buffer.as_memoryview(), storage_fmt_for_dtype(buffer.dtype))
    if buffer.dtype == dtypes.bfloat16:
        return (held.astype(np.uint32) << 16).view(np.float32)
    return held


def _close(
    plain: Sequence[tuple[DType, NDArray[Any]]], other: Sequence[tuple[DType, NDArray[Any]]]
) -> bool:
    for (dtype, right), (_, found) in zip(plain, other, strict=True):
        finite = np.abs(right[np.isfinite(right)].astype(np.float64))
        allowed = TOLERANCE.get(dtype, 0.0) * finite.max(initial=0.0)
        if not np.allclose(found, right, rtol=0, atol=allowed, equal_nan=True):
            return False
    return True
