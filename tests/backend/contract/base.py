"""Helpers for the checks of tinygrad's behaviour."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tinygrad import Device, Tensor, UOp

ROOT = Path(__file__).parents[3]
SEAM = ROOT / "archdsl/backend/tinygrad_seam.py"
PARTS = [
    ROOT / f"archdsl/backend/tinygrad_{name}.py"
    for name in ("cpu", "cache", "memory", "devices")
]
TREES = [ast.parse(path.read_text(encoding="utf-8")) for path in (SEAM, *PARTS)]

# What `tinygrad/__init__.py` imports for its users.
PUBLIC = {"Context", "Device", "GlobalCounters", "Tensor", "TinyJit", "UOp", "Variable"}
PUBLIC |= {"dtypes", "fetch", "function", "getenv"}


def private_imports(tree: ast.Module) -> dict[str, str]:
    """The names that a module imports from inside tinygrad, and the modules they come from."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tinygrad":
            inside = node.module != "tinygrad"
            names = [alias.name for alias in node.names]
            found |= {n: node.module or "" for n in names if inside or n not in PUBLIC}
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            found |= {n: n for n in names if n.startswith("tinygrad.")}
    return found


IMPORTED = {name: module for tree in TREES for name, module in private_imports(tree).items()}
IMPORTED["CPUProgram"] = "tinygrad.runtime.ops_cpu"  # which tinygrad_cpu.py imports by its name
CHECKS: dict[str, Callable[[], None]] = {}


def private(name: str) -> Any:
    return getattr(importlib.import_module(IMPORTED[name]), name)


def check(name: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def added(function: Callable[[], None]) -> Callable[[], None]:
        CHECKS[name] = function
        return function

    return added


def realized(*numbers: float) -> Tensor:
    return Tensor(np.array(numbers, np.float32), device="CPU").realize()


class Recorder:
    """A stub of a JIT that captures."""

    def __init__(self) -> None:
        self.calls: list[UOp] = []

    def add_linear(self, linear: UOp, values: dict[str, int]) -> None:
        assert linear.op is private("Ops").LINEAR
        self.calls += linear.src


@contextmanager
def recorded() -> Iterator[list[UOp]]:
    recorder = Recorder()
    private("capturing").append(recorder)
    try:
        yield recorder.calls
    finally:
        private("capturing").clear()


def kernel(function: Callable[[Tensor], Tensor], *numbers: float) -> UOp:
    """The one kernel of a function, not yet lowered."""
    x = realized(*numbers)
    with recorded() as calls:
        function(x).realize()
    (call,) = calls
    found: UOp = call.src[0]
    return found


def program(function: Callable[[Tensor], Tensor], *numbers: float) -> UOp:
    found: UOp = private("to_program")(kernel(function, *numbers), Device["CPU"].renderer)
    return found
