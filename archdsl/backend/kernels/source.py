"""Assembles the C source of a kernel: constants, shared headers, and its own file."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from archdsl.backend.tinygrad_seam import load_program

_HEADERS = ("vector.h", "weights.h", "thread_pool.h")
_FAMILIES = ("attend", "norm")  # kernels that share another header


def source(name: str, constants: Mapping[str, object]) -> str:
    """The source of `{name}.c`, after its constants and headers."""
    macros = "".join(f"#define {key} {value}\n" for key, value in constants.items())
    family = name.split("_")[0]
    headers = (*_HEADERS, f"{family}.h") if family in _FAMILIES else _HEADERS
    return macros + "".join(map(_read, (*headers, f"{name}.c")))


def compiled(name: str) -> Any:
    """Compiles and loads the function of `{name}.c`, as tinygrad loads CPU programs."""
    return load_program(source(name, {}), name)


@functools.cache
def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
