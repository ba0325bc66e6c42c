"""What TinyJit has captured for the CPU, run by one call of C.

tinygrad calls each program from Python, and its parts one after the other, which takes longer
than many of them do. This is its `GraphRunner` for the CPU: a table of programs and their
arguments, in which each call replaces what is new.
"""

from __future__ import annotations

import ctypes
import functools
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tinygrad import Device, UOp

from archdsl.backend.kernels import team
from archdsl.backend.kernels.source import compiled
from archdsl.backend.tinygrad_seam import (
    ClangRenderer,
    Compiled,
    CPUProgram,
    GraphRunner,
    address,
    get_call_arg_uops,
)

_ARGUMENTS = 16  # at most
FIRST = 3  # where a row's arguments begin
WIDTH = FIRST + _ARGUMENTS  # ROW in sequence.c


class Sequence(GraphRunner):
    """Calls of programs on the CPU."""

    def __init__(self, linear: UOp, input_uops: tuple[UOp, ...] = ()):
        super().__init__(linear, input_uops)
        self.table = np.zeros((len(self.calls), WIDTH), np.uint64)
        self._inputs: list[tuple[int, int, int]] = []  # a row, a place in it, the input there
        for number, (_, ast, buffers, _) in enumerate(self.calls):
            info, program = ast.arg, self.runtimes[number]
            assert program is not None
            places = [address(buffers[i]) for i in info.globals]
            core = info.runtimevars.get("core_id")
            part = -1 if core is None else len(places) + core
            row = [program.addr, info.global_size[0], part % 2**64, *places]
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
        run(self.table)
        return time.perf_counter() - start if wait else None

    @staticmethod
    def supports_uop(batch_devs: list[Compiled], new_call: UOp) -> bool:
        if not GraphRunner.supports_uop(batch_devs, new_call):
            return False
        count = len(get_call_arg_uops(new_call)) + len(new_call.src[0].arg.vars)
        return count <= _ARGUMENTS


class Shared(CPUProgram):  # type: ignore[misc]  # found at run time
    """A program that is called by itself, its parts shared as those of a captured one are."""

    def __call__(
        self, *bufs: Any, global_size: Any = (1, 1, 1), vals: Any = (), **others: Any
    ) -> float | None:
        arguments = [*(each.va_addr for each in bufs), *(value or 0 for value in vals)]
        part = self.runtimevars.get("core_id")
        if part is None or len(arguments) > _ARGUMENTS:
            alone: float | None = super().__call__(
                *bufs, global_size=global_size, vals=vals, **others
            )
            return alone
        table = np.zeros(WIDTH, np.uint64)
        table[: FIRST + len(arguments)] = [self.addr, global_size[0], part, *arguments]
        start = time.perf_counter()
        run(table.reshape(1, -1))
        return time.perf_counter() - start


def run(table: NDArray[np.uint64]) -> None:
    """Runs the programs of a table [rows, WIDTH], one behind the other."""
    program, workers = _program()
    program.fxn(ctypes.c_uint64(table.ctypes.data), ctypes.c_uint64(len(table)), workers)


def usable(device: str) -> bool:
    """Whether what is captured for an open device can be run in this way: by C that the clang
    compiles which tinygrad compiles its own kernels with."""
    return device == "CPU" and isinstance(Device[device].renderer, ClangRenderer)


def runner(device: str) -> type[Sequence] | None:
    """What runs the captures of an open device; None where that is left to tinygrad."""
    if not usable(device):
        return None
    _program()  # now, and not during a capture
    return Sequence


@functools.cache
def _program() -> tuple[Any, ctypes.c_uint64]:
    return compiled("sequence"), team.address()
