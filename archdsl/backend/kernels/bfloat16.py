"""The rounding to bfloat16 that clang calls a function for, where the C library has none.

clang makes a call of `__truncsfbf2` even of a copy, on processors without the instruction, and
libgcc has it from version 13 on.
"""

from __future__ import annotations

import functools
from typing import Any

from archdsl.backend.kernels.source import compiled
from archdsl.backend.tinygrad_seam import link_bfloat16_rounding


@functools.cache
def provide() -> None:
    """Has kernels of the CPU find the function, wherever it comes from."""
    link_bfloat16_rounding(_rounding)


def _rounding() -> Any:
    program = compiled("round_bfloat16")
    program.fxn.program = program  # whose code it is
    return program.fxn
