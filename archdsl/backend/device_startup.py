"""Opening tinygrad's CPU device in a few hundredths of a second.

Left to itself tinygrad tries every other device first, looks for libraries by asking the system
about each file of its folders, and lowers four programs of the CPU device anew in each
process. Here the same is found from less, on Linux; elsewhere nothing is changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tinygrad import Device

from archdsl.backend import program_store
from archdsl.backend.tinygrad_cpu import LINUX, find_library, ops_cpu, replaced
from archdsl.backend.tinygrad_seam import Target, TinyELF
from archdsl.backend.toolchain import Compiler
from archdsl.cache import key_of

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


def has_only_cpu() -> bool:
    """Whether this machine has nothing for tinygrad to compute on but its processor, be it
    through OpenCL."""
    if not LINUX or any(os.environ.get(name) for name in (*_VARIABLES, *Device._devices)):
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
def fast_startup(compiler: Compiler) -> Iterator[None]:
    """Within it, tinygrad's CPU device opens quickly."""
    if "CPU" in Device._opened_devices or not program_store.enabled():
        yield
        return
    programs = _Programs(ops_cpu.do_to_program, compiler)
    with replaced(ops_cpu, "do_to_program", programs):
        yield
    programs.store()


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
