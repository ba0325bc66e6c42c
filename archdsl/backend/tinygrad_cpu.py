"""Imports tinygrad's module of the CPU device quickly, on Linux. Like `tinygrad_seam.py`, this
module may use private names of tinygrad.

The module searches for libraries when it is imported, for which tinygrad checks each file of
many folders, and it imports the renderers of other devices. This import needs fewer checks. On
other systems nothing is changed.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from tinygrad.runtime.support.c import DLL

LINUX = sys.platform == "linux"


@contextmanager
def replaced(owner: Any, name: str, value: object) -> Iterator[None]:
    """Sets an attribute in the block."""
    before = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


# -- libraries --


def find_library(
    name: str, paths: Sequence[str], extra_paths: Sequence[str] = ()
) -> str | None:
    """The path of a library, with the result of tinygrad's `DLL.findlib` on Linux.

    Each folder is listed once, and only files with a matching name are read.
    """
    variable = os.environ.get(name.replace("-", "_").upper() + "_PATH", "")
    if os.path.isfile(variable):
        return variable
    for each in paths:
        if os.path.isabs(each):
            if os.path.isfile(each):
                return each
            continue
        known = re.compile(f"lib{each}\\.so\\.?[0-9]*")
        for folder in (*filter(None, [variable]), *_folders(), *extra_paths):
            for file in filter(known.fullmatch, _listed(folder)):
                if _is_library(os.path.join(folder, file)):
                    return str(Path(folder) / file)
    return None


def _folders() -> tuple[str, ...]:
    own = filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep))
    system = ("/usr/lib64", "/usr/lib", "/usr/local/lib", "/usr/lib/wsl/lib/", "/lib", "/lib64")
    return (*own, *system, f"/lib/{sysconfig.get_config_var('MULTIARCH')}")


@functools.cache
def _listed(folder: str) -> tuple[str, ...]:
    try:
        return tuple(name for name in os.listdir(folder) if ".so" in name)
    except OSError:
        return ()


def _is_library(path: str) -> bool:
    """Whether a file is a library, not a linker script."""
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False


# -- the module of the device --

# Renderers that are used only without clang, by module. Importing them takes longer than the
# rest of the device.
_OTHERS = {
    "tinygrad.renderer.nir": "LVPRenderer",
    "tinygrad.renderer.isa.x86": "X86Renderer",
}


def _cpu_module() -> Any:
    """Imports tinygrad's module of the CPU device."""
    name = "tinygrad.runtime.ops_cpu"
    if not LINUX or name in sys.modules:
        return import_module(name)
    missing = [other for other in _OTHERS if other not in sys.modules]
    for other in missing:
        sys.modules[other] = _lazy_renderer_module(other, _OTHERS[other])
    try:
        with replaced(DLL, "findlib", staticmethod(find_library)):
            return import_module(name)
    finally:
        for other in missing:
            del sys.modules[other]


def _lazy_renderer_module(module: str, renderer: str) -> ModuleType:
    """A placeholder module, whose class imports the renderer when it is instantiated."""

    def make(cls: type, *given: Any) -> Any:
        return getattr(import_module(module), renderer)(*given)

    found = ModuleType(module)
    setattr(found, renderer, type(renderer, (), {"__new__": make}))
    return found


ops_cpu = _cpu_module()
