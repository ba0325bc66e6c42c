"""The rounding to bfloat16 that clang calls a function for, where the C library has none.

clang makes a call of `__truncsfbf2` even of a copy, on processors without the instruction, and
libgcc has it from version 13 on. tinygrad looks for what its kernels call in its `rt_lib`.
"""

from __future__ import annotations

import functools
from typing import Any

from archdsl.backend.kernels.source import compiled
from archdsl.backend.opening import ops_cpu


@functools.cache
def provide() -> None:
    """Has kernels of the CPU find the function, wherever it comes from."""
    library: Any = ops_cpu.CPUProgram.rt_lib
    if not hasattr(library, "__truncsfbf2"):
        program = compiled("narrow")
        program.fxn.program = program  # whose code it is
        setattr(library, "__truncsfbf2", program.fxn)  # a method would mangle it
