"""Runs all calls of a captured CPU program by one C function.

tinygrad calls each kernel from Python, one part after another, which takes longer than many of
the kernels. `CPUGraphRunner` is a tinygrad `GraphRunner` for the CPU: a table of programs and
their arguments, in which each run replaces only the inputs and variables.
"""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tinygrad import Device, Tensor, UOp

from archdsl.backend.kernels import thread_pool
from archdsl.backend.kernels.source import compiled
from archdsl.backend.tinygrad_seam import (
    ClangRenderer,
    Compiled,
    CPUProgram,
    GraphRunner,
    address,
    get_call_arg_uops,
    memory,
)

_ARGUMENTS = 16  # at most
FIRST = 3  # the index of the first argument in a row
WIDTH = FIRST + _ARGUMENTS  # ROW in graph_runner.c


# A row of a table, and a function that is called before it.
Pause: TypeAlias = tuple[int, Callable[[], None]]


class CPUGraphRunner(GraphRunner):
    """The calls of a captured program as a table for `graph_runner.c`."""

    pauses: Sequence[Pause] = ()

    def __init__(self, linear: UOp, input_uops: tuple[UOp, ...] = ()):
        super().__init__(linear, input_uops)
        self.table = np.zeros((len(self.calls), WIDTH), np.uint64)
        self._inputs: list[tuple[int, int, int]] = []  # row, column, index of the input
        for number, (_, ast, buffers, _) in enumerate(self.calls):
            info, program = ast.arg, self.runtimes[number]
            assert program is not None
            places = [address(buffers[i]) for i in info.globals]
            core = info.runtimevars.get("core_id")
            tile = -1 if core is None else len(places) + core
            row = [program.addr, info.global_size[0], tile % 2**64, *places]
            self.table[number, : len(row)] = row
            for position, slot in self.uop_replace[number]:
                if position in info.globals:
                    place = FIRST + info.globals.index(position)
                    self._inputs.append((number, place, slot))

    def __call__(
        self, input_uops: tuple[UOp, ...], var_vals: dict[str, int], wait: bool = False
    ) -> float | None:
        start = time.perf_counter()
        for row, place, slot in self._inputs:
            self.table[row, place] = address(input_uops[slot].buffer)
        for row, variable, value in self.updated_vars(var_vals):
            count = len(self.calls[row][1].arg.globals)
            self.table[row, FIRST + count + variable] = value
        run(self.table, self.pauses)
        return time.perf_counter() - start if wait else None

    @staticmethod
    def supports_uop(batch_devs: list[Compiled], new_call: UOp) -> bool:
        if not GraphRunner.supports_uop(batch_devs, new_call):
            return False
        count = len(get_call_arg_uops(new_call)) + len(new_call.src[0].arg.vars)
        return count <= _ARGUMENTS


class ParallelProgram(CPUProgram):  # type: ignore[misc]  # found at run time
    """A single program whose parts run on the thread pool, as in a captured program."""

    def __call__(
        self, *bufs: Any, global_size: Any = (1, 1, 1), vals: Any = (), **others: Any
    ) -> float | None:
        arguments = [*(each.va_addr for each in bufs), *(value or 0 for value in vals)]
        tile = self.runtimevars.get("core_id")
        if tile is None or len(arguments) > _ARGUMENTS:
            seconds: float | None = super().__call__(
                *bufs, global_size=global_size, vals=vals, **others
            )
            return seconds
        table = np.zeros(WIDTH, np.uint64)
        table[: FIRST + len(arguments)] = [self.addr, global_size[0], tile, *arguments]
        start = time.perf_counter()
        run(table.reshape(1, -1))
        return time.perf_counter() - start


def run(table: NDArray[np.uint64], pauses: Sequence[Pause] = ()) -> None:
    """Runs the programs of a table [rows, WIDTH] in order, with pauses in their order."""
    program, pool = _program()
    start = 0
    for end, pause in (*pauses, (len(table), None)):
        if end > start:
            part = table[start:end]
            program.fxn(ctypes.c_uint64(part.ctypes.data), ctypes.c_uint64(len(part)), pool)
            start = end
        if pause:
            pause()


def unused_from(table: NDArray[np.uint64], tensor: Tensor) -> int:
    """The first row from which on no program of a table uses the memory of a tensor."""
    buffer = memory(tensor)
    start = address(buffer)
    used = (table[:, FIRST:] >= start) & (table[:, FIRST:] < start + buffer.nbytes)
    (rows,) = np.nonzero(used.any(1))
    return int(rows[-1]) + 1 if len(rows) else 0


def is_supported(device: str) -> bool:
    """Whether captured programs of an open device can run this way: on the CPU, if tinygrad
    compiles its kernels with clang."""
    return device == "CPU" and isinstance(Device[device].renderer, ClangRenderer)


def runner_for(device: str) -> type[CPUGraphRunner] | None:
    """The graph runner for an open device; None if tinygrad runs its own."""
    if not is_supported(device):
        return None
    _program()  # now: it must not be compiled during a capture
    return CPUGraphRunner


@functools.cache
def _program() -> tuple[Any, ctypes.c_uint64]:
    return compiled("graph_runner"), thread_pool.address()
