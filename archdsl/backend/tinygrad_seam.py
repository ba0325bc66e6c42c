"""The only module that uses names that tinygrad does not export, with `tinygrad_cpu.py`,
`tinygrad_cache.py` and `tinygrad_memory.py`.

tinygrad exports Tensor, TinyJit, UOp, Variable, dtypes, Device, Context, GlobalCounters, fetch,
function and getenv. Any other name may change with a release, so only these modules import it.
`tests/backend/contract/behaviour.py` lists the behaviour that archdsl relies on,
`tests/backend/test_tinygrad_seam.py` checks each entry, and `python -m tests.backend.contract
VERSION` checks another version of tinygrad.

This module also changes tinygrad's state where archdsl needs it, and restores it, so that a
user's own tinygrad code is not affected.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import FunctionType, MethodType
from typing import Any

from tinygrad import Context, Device, Tensor, helpers
from tinygrad.codegen import to_program, to_program_cache, to_program_context, to_program_key
from tinygrad.codegen.opt import Opt
from tinygrad.codegen.opt.postrange import args_from_ast
from tinygrad.device import Buffer, BufferSpec, Compiled, TinyELF
from tinygrad.dtype import DTYPES_DICT, AddrSpace, DType, storage_fmt_for_dtype
from tinygrad.engine.jit import GraphRunner, _TinyJit
from tinygrad.engine.realize import (
    capturing,
    get_call_arg_uops,
    graph_cache,
    run_linear,
    time_call,
)
from tinygrad.helpers import (
    BEAM,
    CACHEDB,
    CACHELEVEL,
    DEBUG,
    DEV,
    JIT,
    NUM_CPU_THREADS,
    PROFILE,
    TRAINING,
    ContextVar,
    Target,
    all_int,
    getenv,
)
from tinygrad.nn import optim
from tinygrad.renderer import Estimates
from tinygrad.renderer.cstyle import ClangRenderer
from tinygrad.runtime.support.compiler_cpu import ClangCompiler
from tinygrad.uop.ops import KernelInfo, Ops, ProgramInfo, buffers

from archdsl.backend.tinygrad_cache import diskcache_get, diskcache_put
from archdsl.backend.tinygrad_cpu import ops_cpu

__all__ = [
    "CACHEDB",
    "CACHELEVEL",
    "DEBUG",
    "DEV",
    "DTYPES_DICT",
    "JIT",
    "NUM_CPU_THREADS",
    "PROFILE",
    "TRAINING",
    "AddrSpace",
    "Buffer",
    "BufferSpec",
    "CPUProgram",
    "ClangRenderer",
    "Compiled",
    "DType",
    "Estimates",
    "GraphRunner",
    "JitBase",
    "KernelInfo",
    "Ops",
    "Opt",
    "ProgramInfo",
    "Target",
    "TinyELF",
    "address",
    "all_int",
    "args_from_ast",
    "beam_width",
    "buffers",
    "cpu_words",
    "current_capture",
    "default_device",
    "default_is",
    "diskcache_get",
    "diskcache_put",
    "environment",
    "get_call_arg_uops",
    "graph_cache",
    "graph_runner",
    "is_opencl_on_processor",
    "link_bfloat16_rounding",
    "load_program",
    "memory",
    "not_captured",
    "one_thread",
    "optim",
    "read_buffer",
    "run_linear",
    "set_runtime",
    "settings",
    "storage_fmt_for_dtype",
    "time_call",
    "to_program",
    "to_program_cache",
    "to_program_context",
    "to_program_key",
    "use_clang",
    "write_buffer",
]

JitBase = _TinyJit
CPUProgram: Any = ops_cpu.CPUProgram

# Held while tinygrad's state is changed or a program is captured: by one thread at a time.
one_thread = threading.RLock()


# -- memory --


def memory(tensor: Tensor) -> Any:
    """The buffer of a realized tensor."""
    return tensor.uop.base.buffer


def address(buffer: Any) -> int:
    """The address of a buffer on the CPU."""
    found: int = buffer.get_buf("CPU").va_addr
    return found


def cpu_words(buffer: Any) -> Any:
    """A buffer on the CPU as a writable view of 8-byte words."""
    return buffer.get_buf("CPU").cpu_view().view(fmt="Q")


def write_buffer(buffer: Any, data: memoryview) -> None:
    """Copies bytes into a buffer, without the scheduler."""
    buffer.allocator._copyin(buffer._buf, data)


def read_buffer(data: memoryview, buffer: Any) -> None:
    """Copies a buffer into bytes, without the scheduler."""
    buffer.allocator._copyout(data, buffer._buf)


# -- programs --


def settings() -> list[tuple[str, object]]:
    """tinygrad's settings: the name and value of each ContextVar."""
    known = [each for each in vars(helpers).values() if isinstance(each, ContextVar)]
    return sorted((each.key, str(each.value)) for each in known)


def load_program(source: str, name: str) -> Any:
    """Compiles and loads a C function, as tinygrad does for the CPU."""
    device: Any = Device["CPU"]
    code = device.compiler.compile_cached(source)
    return device.runtime(TinyELF(code, name, Target("CPU"), ()))


def set_runtime(device: str, runtime: Callable[..., Any]) -> None:
    """Sets the class with which a device loads programs; only for processes of archdsl."""
    opened: Any = Device[device]
    opened.runtime = lambda code: runtime(opened, code)


def link_bfloat16_rounding(make: Callable[[], Any]) -> None:
    """Makes clang's `__truncsfbf2` available to CPU kernels; `make` loads it if it is missing.

    This change is permanent, because the user's own kernels may need the function too, for
    example in an optimizer. Kernels that tinygrad can load by itself are not affected.
    """
    library: Any = CPUProgram.rt_lib
    with one_thread:
        if not hasattr(library, "__truncsfbf2"):
            setattr(
                library, "__truncsfbf2", make()
            )  # in a method, Python would mangle the name


# -- capturing --


class _Captures(list[Any]):
    """tinygrad's `capturing` list, which looks empty to all threads but the one that captures.

    Other threads can therefore read and realize tensors during a capture.
    """

    def __init__(self) -> None:
        self._owner = threading.get_ident()

    def _mine(self) -> bool:
        return threading.get_ident() == self._owner

    def __len__(self) -> int:
        return super().__len__() if self._mine() else 0

    def __bool__(self) -> bool:
        return len(self) > 0


@contextmanager
def _captured_in_this_thread() -> Iterator[None]:
    """Keeps what other threads realize out of a capture in the block."""
    modules = [each for name, each in list(sys.modules.items()) if name.startswith("tinygrad")]
    holders = [each for each in modules if vars(each).get("capturing") is capturing]
    if capturing:  # a capture is already running
        yield
        return
    own = _Captures()
    for each in holders:
        vars(each)["capturing"] = own
    try:
        yield
    finally:
        for each in holders:
            vars(each)["capturing"] = capturing


def current_capture() -> Any | None:
    """The JIT that captures in this thread; None if there is no capture."""
    found = vars(sys.modules[JitBase.__module__])["capturing"]
    return found[0] if found else None


@contextmanager
def graph_runner(
    device: str, runner: Callable[[Any], Any], options: dict[str, int]
) -> Iterator[None]:
    """Runs what is captured in the block by a graph runner, under tinygrad settings.

    `runner` receives tinygrad's own runner, or None, and returns the one to use. Other captures
    in the process are not affected.
    """
    opened: Any = Device[device]
    own = _captured_in_this_thread()
    with one_thread, Context(**options), default_is(device), own:  # type: ignore[no-untyped-call]
        before = opened.graph
        opened.graph = runner(before)
        try:
            yield
        finally:
            opened.graph = before


@contextmanager
def default_is(device: str) -> Iterator[None]:
    """Sets the device of constants in the block, unless the user has set `DEV`.

    A constant needs no device, but tinygrad asks for the default device when one is created. On
    the first time it opens all devices that it finds, which is slow, and sets `DEV`.
    """
    first, *others = DEV.value
    if not first.device:
        first = replace(first, device=device.split(":")[0])
    with one_thread, Context(DEV=[first, *others]):  # type: ignore[no-untyped-call]
        yield


@contextmanager
def not_captured() -> Iterator[None]:
    """Tensors that are realized in the block are computed now, outside any capture."""
    with one_thread, Context(CAPTURING=0):  # type: ignore[no-untyped-call]
        yield


# -- devices --


def beam_width() -> int:
    """The width of tinygrad's own search for kernels, 0 if it is off."""
    return int(getenv("JITBEAM", BEAM.value))


def use_clang(device: str, path: str) -> None:
    """Opens a device of the CPU family, whose kernels this clang compiles.

    Nothing is changed if tinygrad finds the same clang. Otherwise only the compiler of this
    device gets the path; the environment is not changed.
    """
    with _compiling_with(path):
        renderer = Device[device].renderer
    if isinstance(renderer, ClangRenderer) and not _is_default(path):
        _set_compiler(renderer, path)


def default_device(path: str | None) -> str:
    """The device that tinygrad chooses, with this clang for the CPU.

    tinygrad tries all devices in turn, and stores the first that opens in the environment.
    """
    before = os.environ.get("DEV")
    chosen = "_select_device" in vars(Device)
    try:
        with _compiling_with(path):
            return str(Device.DEFAULT)
    finally:
        if before is None and not chosen:
            # Undo the choice, so that the user's code makes it again.
            os.environ.pop("DEV", None)
            vars(Device).pop("_select_device", None)


def is_opencl_on_processor() -> bool:
    """Whether the OpenCL device is a CPU, as PoCL's is, and not a GPU."""
    import ctypes

    from tinygrad.runtime.autogen import opencl

    kind = ctypes.c_uint64()
    size = ctypes.sizeof(kind)
    device: Any = Device["CL"]
    opencl.clGetDeviceInfo(device.cl_dev, opencl.CL_DEVICE_TYPE, size, ctypes.byref(kind), None)
    return bool(kind.value & opencl.CL_DEVICE_TYPE_CPU)


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Sets environment variables in the block, except those that are already set."""
    with one_thread:
        added = {name: v for name, v in variables.items() if name not in os.environ}
        _set_environment(added)
        try:
            yield
        finally:
            _set_environment(dict.fromkeys(added))


def _set_environment(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    if variables:
        read: Any = getenv  # an overloaded function, to mypy
        read.cache_clear()


@contextmanager
def _compiling_with(path: str | None) -> Iterator[None]:
    """Compiles for the CPU with this clang in the block.

    tinygrad compiles some programs while it opens the device, before the compiler of the device
    can be changed.
    """
    if path is None or _is_default(path):
        yield
        return
    with one_thread:
        before = ClangCompiler.compile
        ClangCompiler.compile = _compile_with(path)  # type: ignore[method-assign]
        try:
            yield
        finally:
            ClangCompiler.compile = before  # type: ignore[method-assign]


def _is_default(path: str) -> bool:
    """Whether tinygrad would use this compiler."""
    found = shutil.which(getenv("CC", "clang"))
    return found is not None and os.path.abspath(found) == path


def _set_compiler(renderer: ClangRenderer, path: str) -> None:
    compiler: Any = renderer.compiler
    compiler.compile = MethodType(_compile_with(path), compiler)
    # tinygrad's compile workers receive a pickled renderer.
    renderer.__reduce__ = lambda: (_restore_renderer, (renderer.target, path))  # type: ignore[method-assign]


def _restore_renderer(target: Target, path: str) -> ClangRenderer:
    renderer = ClangRenderer(target)
    _set_compiler(renderer, path)
    return renderer


def _compile_with(path: str) -> Any:
    """tinygrad's `ClangCompiler.compile`, with all its flags, running the clang at a path."""
    original: Any = _original
    around = {**original.__globals__, "getenv": lambda name, default: path}
    return FunctionType(original.__code__, around, original.__name__)


_original = ClangCompiler.compile
