"""The C of a kernel: its constants, what all include, and its own file."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from archdsl.backend.tinygrad_seam import load_program

_ALL = ("vector.h", "weights.h", "thread_pool.h")
_FAMILIES = ("attend", "norm")  # whose kernels share a header of their own


def source(name: str, constants: Mapping[str, object]) -> str:
    """`{name}.c` with its constants defined, and what it needs in front."""
    defined = "".join(f"#define {key} {value}\n" for key, value in constants.items())
    family = name.split("_")[0]
    headers = (*_ALL, f"{family}.h") if family in _FAMILIES else _ALL
    return defined + "".join(map(_read, (*headers, f"{name}.c")))


def compiled(name: str) -> Any:
    """The function of `{name}.c`, as tinygrad loads programs for the CPU."""
    return load_program(source(name, {}), name)


@functools.cache
def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
