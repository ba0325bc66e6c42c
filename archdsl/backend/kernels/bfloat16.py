"""Provides `__truncsfbf2`, the rounding to bfloat16, if the C library does not have it.

On processors without a bfloat16 instruction, clang calls this function even for a copy. libgcc
has it since version 13.
"""

from __future__ import annotations

import functools
from typing import Any

from archdsl.backend.kernels.source import compiled
from archdsl.backend.tinygrad_seam import link_bfloat16_rounding


@functools.cache
def provide() -> None:
    """Makes the function available to CPU kernels."""
    link_bfloat16_rounding(_rounding)


def _rounding() -> Any:
    program = compiled("round_bfloat16")
    program.fxn.program = program  # keeps the code loaded
    return program.fxn
