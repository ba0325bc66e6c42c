"""Opening tinygrad's CPU device in a few hundredths of a second.

Left to itself tinygrad tries every other device first, looks for libraries by asking the system
about each file of its folders, and lowers four programs of the CPU device anew in each
process. Here the same is found from less, on Linux; elsewhere nothing is changed.
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

from tinygrad import Device
from tinygrad.device import TinyELF
from tinygrad.helpers import DEV, Target
from tinygrad.runtime.support.c import DLL

from archdsl.backend import program_store
from archdsl.backend.toolchain import Compiler
from archdsl.cache import key_of

_LINUX = sys.platform == "linux"
# Where Linux shows what tinygrad's other devices need.
_NODES = ("kfd", "dxg", "kgsl-3d0", "ion", "nvidiactl", "nvidia0")
_PCI_VENDORS = {"0x1002", "0x10de"}  # AMD, NVIDIA
_USB_VENDORS = {"add1", "3801"}  # AMD's in an enclosure
_GRAPHICS = ("dri", "mali0")  # what OpenCL finds beside the processor
_OPENCL = "/etc/OpenCL/vendors"
_VARIABLES = (
    *("REMOTE", "OPENCL_PATH", "CUDA_PATH"),
    *("OCL_ICD_VENDORS", "OCL_ICD_FILENAMES", "OPENCL_VENDOR_PATH"),
)


def choose_processor() -> None:
    """Has tinygrad take the processor as its default device where it would find no other."""
    if DEV.device or "_select_device" in vars(Device) or not _bare():
        return
    # What tinygrad does once it has tried all others.
    vars(Device)["_select_device"] = os.environ["DEV"] = "CPU"


def _bare() -> bool:
    """Whether this machine has nothing for tinygrad to compute on but its processor, be it
    through OpenCL."""
    if not _LINUX or any(os.environ.get(name) for name in (*_VARIABLES, *Device._devices)):
        return False
    if any(os.path.exists(f"/dev/{name}") for name in _NODES):
        return False
    if _PCI_VENDORS & set(_told("/sys/bus/pci/devices", "vendor")):
        return False
    if _USB_VENDORS & set(_told("/sys/bus/usb/devices", "idVendor")):
        return False
    return not find_library("cuda", ["cuda"]) and not _opencl()


def _opencl() -> bool:
    """Whether OpenCL may have more than PoCL, which computes on the processor."""
    if not find_library("OpenCL", ["OpenCL"]):
        return False
    if any(os.path.exists(f"/dev/{name}") for name in _GRAPHICS):
        return True
    names = os.listdir(_OPENCL) if os.path.isdir(_OPENCL) else []
    drivers = [Path(_OPENCL, name).read_bytes() for name in names if name.endswith(".icd")]
    return not drivers or not all(b"pocl" in each for each in drivers)


def _told(folder: str, name: str) -> Iterator[str]:
    """What Linux says of each device in a folder, where it says it."""
    if not os.path.isdir(folder):
        return
    for device in os.listdir(folder):
        try:
            yield Path(folder, device, name).read_text(encoding="ascii").strip()
        except OSError:
            continue


@contextmanager
def quick_opening(compiler: Compiler) -> Iterator[None]:
    """Within it, tinygrad's CPU device opens quickly."""
    if "CPU" in Device._opened_devices or not program_store.enabled():
        yield
        return
    programs = _Programs(ops_cpu.do_to_program, compiler)
    with _replaced(ops_cpu, "do_to_program", programs):
        yield
    programs.store()


@contextmanager
def _replaced(owner: Any, name: str, value: object) -> Iterator[None]:
    before = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


class _Programs:
    """`do_to_program` for the programs of the CPU device, as they were stored."""

    def __init__(self, lower: Any, compiler: Compiler):
        self._lower = lower
        about = program_store.environment(compiler, __file__)
        self._key = key_of("programs of the device", about)
        entry = program_store.read(self._key)
        names = entry.header["names"] if entry else []
        blocks = entry.blocks if entry else []
        self._codes = {name: bytes(code) for name, code in zip(names, blocks, strict=True)}
        self._new = False

    def __call__(self, sink: Any, renderer: Any) -> Any:
        name = sink.arg.name
        if name not in self._codes:
            self._codes[name] = self._lower(sink, renderer).to_elf().lib
            self._new = True
        return _Lowered(name, self._codes[name])

    def store(self) -> None:
        if self._new:
            entry = program_store.Entry({"names": [*self._codes]}, [*self._codes.values()])
            program_store.write(self._key, entry)


class _Lowered:
    """A program as the device takes it."""

    def __init__(self, name: str, code: bytes):
        self._elf = TinyELF(code, name, Target("CPU"), ())

    def to_elf(self) -> TinyELF:
        return self._elf


# -- libraries --


def find_library(
    name: str, paths: Sequence[str], extra_paths: Sequence[str] = ()
) -> str | None:
    """The path of a library, as tinygrad's `DLL.findlib` finds it on Linux: but each folder is
    listed once, and only files of the right name are looked at."""
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
    """Whether a file is a library, and no script of a linker's."""
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False


# -- the module of the device --

# Renderers that clang's stands before, by their modules: to import them takes longer than all
# else of the device.
_OTHERS = {
    "tinygrad.renderer.nir": "LVPRenderer",
    "tinygrad.renderer.isa.x86": "X86Renderer",
}


def _cpu_module() -> Any:
    """tinygrad's module of the CPU device, which looks for libraries as it is imported."""
    name = "tinygrad.runtime.ops_cpu"
    if not _LINUX or name in sys.modules:
        return import_module(name)
    missing = [other for other in _OTHERS if other not in sys.modules]
    for other in missing:
        sys.modules[other] = _stand_in(other, _OTHERS[other])
    try:
        with _replaced(DLL, "findlib", staticmethod(find_library)):
            return import_module(name)
    finally:
        for other in missing:
            del sys.modules[other]


def _stand_in(module: str, renderer: str) -> ModuleType:
    """A module whose one class makes instances of the renderer, imported when it is asked."""

    def make(cls: type, *given: Any) -> Any:
        return getattr(import_module(module), renderer)(*given)

    found = ModuleType(module)
    setattr(found, renderer, type(renderer, (), {"__new__": make}))
    return found


ops_cpu = _cpu_module()
