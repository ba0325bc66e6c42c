"""Opens tinygrad's CPU device in some tens of milliseconds, on Linux.

By default, tinygrad tries every other device first, checks each file of many folders for
libraries, and compiles four programs of the CPU device in each process. This module finds the
same with fewer checks, and caches the programs. On other systems nothing is changed.
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

# Where Linux shows the hardware of tinygrad's other devices.
_NODES = ("kfd", "dxg", "kgsl-3d0", "ion", "nvidiactl", "nvidia0")
_PCI_VENDORS = {"0x1002", "0x10de"}  # AMD, NVIDIA
_USB_VENDORS = {"add1", "3801"}  # AMD in an external enclosure
_GRAPHICS = ("dri", "mali0")  # GPUs that OpenCL can use
_OPENCL = "/etc/OpenCL/vendors"
_VARIABLES = (
    *("REMOTE", "OPENCL_PATH", "CUDA_PATH"),
    *("OCL_ICD_VENDORS", "OCL_ICD_FILENAMES", "OPENCL_VENDOR_PATH"),
)


def has_only_cpu() -> bool:
    """Whether tinygrad can compute only on the CPU of this machine, also through OpenCL."""
    if not LINUX or any(os.environ.get(name) for name in (*_VARIABLES, *Device._devices)):
        return False
    if any(os.path.exists(f"/dev/{name}") for name in _NODES):
        return False
    if _PCI_VENDORS & set(_device_attributes("/sys/bus/pci/devices", "vendor")):
        return False
    if _USB_VENDORS & set(_device_attributes("/sys/bus/usb/devices", "idVendor")):
        return False
    return not find_library("cuda", ["cuda"]) and not _has_opencl_gpu()


def _has_opencl_gpu() -> bool:
    """Whether OpenCL may have a device other than PoCL, which uses the CPU."""
    if not find_library("OpenCL", ["OpenCL"]):
        return False
    if any(os.path.exists(f"/dev/{name}") for name in _GRAPHICS):
        return True
    names = os.listdir(_OPENCL) if os.path.isdir(_OPENCL) else []
    drivers = [Path(_OPENCL, name).read_bytes() for name in names if name.endswith(".icd")]
    return not drivers or not all(b"pocl" in each for each in drivers)


def _device_attributes(folder: str, name: str) -> Iterator[str]:
    """An attribute of each device in a folder of /sys, if it has the attribute."""
    if not os.path.isdir(folder):
        return
    for device in os.listdir(folder):
        try:
            yield Path(folder, device, name).read_text(encoding="ascii").strip()
        except OSError:
            continue


@contextmanager
def fast_startup(compiler: Compiler) -> Iterator[None]:
    """Opens tinygrad's CPU device quickly in the block."""
    if "CPU" in Device._opened_devices or not program_store.enabled():
        yield
        return
    programs = _Programs(ops_cpu.do_to_program, compiler)
    with replaced(ops_cpu, "do_to_program", programs):
        yield
    programs.store()


class _Programs:
    """Replaces `do_to_program` for the CPU device: returns stored programs."""

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
    """A compiled program, in the form that the device expects."""

    def __init__(self, name: str, code: bytes):
        self._elf = TinyELF(code, name, Target("CPU"), ())

    def to_elf(self) -> TinyELF:
        return self._elf
