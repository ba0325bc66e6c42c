"""The seam with tinygrad: all of it that its package does not export, and what each name does.

tinygrad exports Tensor, TinyJit, UOp, Variable, dtypes, Device, Context, GlobalCounters, fetch,
function and getenv. Everything else may change with any release, so only this module imports
it. `BEHAVIOUR` says what is relied on, `tests/backend/test_tinygrad_seam.py` checks each entry,
and `python -m tests.backend.contract VERSION` does so with another tinygrad.

State of tinygrad's that archdsl needs otherwise is changed here too, and put back, so that a
user's own tinygrad code runs as if archdsl were not there.
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
from tinygrad.device import Buffer, BufferSpec, Compiled, LRUAllocator, TinyELF
from tinygrad.dtype import DTYPES_DICT, AddrSpace, DType, storage_fmt_for_dtype
from tinygrad.engine.jit import GraphRunner, _TinyJit
from tinygrad.engine.realize import capturing, get_call_arg_uops, graph_cache, time_call
from tinygrad.helpers import (
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
from tinygrad.renderer import Estimates
from tinygrad.renderer.cstyle import ClangRenderer
from tinygrad.runtime.support.compiler_cpu import ClangCompiler
from tinygrad.uop.ops import KernelInfo, Ops, ProgramInfo, buffers

from archdsl.backend.tinygrad_cache import diskcache_get, diskcache_put
from archdsl.backend.tinygrad_cpu import ops_cpu

__all__ = [
    "BEHAVIOUR",
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
    "buffers",
    "cpu_words",
    "current_capture",
    "default_device",
    "default_is",
    "diskcache_get",
    "diskcache_put",
    "environment",
    "free_cached_memory",
    "get_call_arg_uops",
    "graph_cache",
    "graph_runner",
    "is_opencl_on_processor",
    "link_bfloat16_rounding",
    "load_program",
    "memory",
    "not_captured",
    "one_thread",
    "read_buffer",
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

# What is relied on of each name that is imported above.
BEHAVIOUR = {
    # -- tensors and memory --
    "Ops": "the kinds of UOp: BUFFER, PARAM, RESHAPE, AFTER, CONTIGUOUS, CALL, LINEAR, SINK, "
    "PROGRAM, SOURCE; a call's src[0] is the kernel, the rest its buffers and bound variables",
    "buffers": "maps a BUFFER UOp to its Buffer, which in a capture it does not have yet",
    "Buffer": "memory on a device: allocate, copy_from, get_buf('CPU').va_addr, "
    "allocator._copyin and _copyout; UOp.from_buffer makes it a tensor's without a kernel",
    "BufferSpec": "nolru: memory comes from the system and goes back to it",
    "LRUAllocator": "keeps freed memory in `cache`, by its size and options; the free of the "
    "class above gives it back",
    "DType": "the class of dtypes.float32 and others: itemsize, name and fmt",
    "DTYPES_DICT": "every dtype by its name",
    "storage_fmt_for_dtype": "the format of memoryview in which a dtype's bits are stored",
    "all_int": "whether all sizes are numbers, and none a variable",
    "TRAINING": "the ContextVar that turns dropout on; false unless a user sets it",
    # -- lowering and programs --
    "to_program": "lowers and compiles a kernel: SINK -> PROGRAM, src[0].arg.applied_opts; a "
    "kernel's arg has opts_to_apply and beam",
    "to_program_cache": "grows by one for each kernel that is lowered",
    "to_program_context": "the ContextVars that lowering reads, with key and value",
    "to_program_key": "kernel, type of renderer, target, settings: these decide a program",
    "Opt": "one step of a schedule; pickles, and is hashable",
    "args_from_ast": "buffers for a kernel, and the middle value of each of its variables",
    "time_call": "runs a call again and again, and yields its seconds",
    "KernelInfo": "the name and the estimates of a kernel",
    "ProgramInfo": "of a program: globals (buffers in order), outs, ins, vars, global_size, "
    "runtimevars (where a part's number goes), and local_size, which it then does not search",
    "AddrSpace": "GLOBAL: a placeholder is a parameter",
    "Estimates": "operations and bytes, for what tinygrad prints",
    "Target": "Target('CPU') is what a program is made for",
    "TinyELF": "an object file as a device's runtime loads it",
    # -- capturing --
    "_TinyJit": "captures the call at which cnt is 1, by way of _linears; after that "
    "captured(buffers, values) does without the function",
    "capturing": "holds the JIT that captures, with add_linear and _linears; else empty; each "
    "module that asks for it has it by this name",
    "GraphRunner": "made of captured calls: calls, runtimes, uop_replace, updated_vars and "
    "supports_uop; Device[…].graph names the class, and None means call by call",
    "graph_cache": "the runner of a captured graph, by the body of its call",
    "get_call_arg_uops": "the buffers of a call, without its bound variables",
    # -- devices --
    "Compiled": "an open device: renderer, compiler, runtime, allocator, graph and arch",
    "DLL": "its findlib finds each library that ops_cpu looks for as it is imported",
    "CPUProgram": "a loaded program: addr, fxn, runtimevars; called with va_addr's buffers and "
    "vals; resolves what it calls by getattr on rt_lib",
    "ClangRenderer": "the C of the CPU; pickles as its class and target",
    "ClangCompiler": "compile(source) runs the program that getenv('CC', 'clang') names",
    "NUM_CPU_THREADS": "how many parts a kernel of the CPU has at most",
    "CACHEDB": "the file in which compiled kernels are kept",
    "CACHELEVEL": "below 1 nothing is kept there",
    "DEBUG": "above 0 tinygrad prints what it does",
    "JIT": "at 0 nothing is captured",
    "PROFILE": "above 0 tinygrad times what it does",
    "ContextVar": "a setting: key and value",
    "helpers": "the module that has every ContextVar",
    "DEV": "the device asked for: device, target(family).renderer; value lists Targets",
    "diskcache_get": "what was put for a key, or None",
    "diskcache_put": "keeps a value that pickles for a key of strings",
    "getenv": "an environment variable, read once; cache_clear has it read again",
}

# Only one thread at a time changes tinygrad's state, and captures.
one_thread = threading.RLock()


# -- memory --


def memory(tensor: Tensor) -> Any:
    """The buffer of a realized tensor."""
    return tensor.uop.base.buffer


def address(buffer: Any) -> int:
    """Where a buffer on the CPU begins."""
    found: int = buffer.get_buf("CPU").va_addr
    return found


def cpu_words(buffer: Any) -> Any:
    """A buffer on the CPU as words of 8 bytes, which can be written to."""
    return buffer.get_buf("CPU").cpu_view().view(fmt="Q")


def write_buffer(buffer: Any, data: memoryview) -> None:
    """Copies bytes into a buffer, past the scheduler."""
    buffer.allocator._copyin(buffer._buf, data)


def read_buffer(data: memoryview, buffer: Any) -> None:
    """Copies a buffer into bytes, past the scheduler."""
    buffer.allocator._copyout(data, buffer._buf)


def free_cached_memory(device: str) -> None:
    """Gives back the memory of tensors that are gone, which tinygrad keeps for others of just
    their sizes."""
    allocator: Any = Device[device].allocator
    if isinstance(allocator, LRUAllocator):
        # Not by `free_cache`: what is freed may free more, while it goes through the cache.
        while allocator.cache:
            (size, options), kept = allocator.cache.popitem()
            for each in kept:
                super(LRUAllocator, allocator).free(each, size, options)


# -- programs --


def settings() -> list[tuple[str, object]]:
    """tinygrad's settings by name: what each ContextVar is."""
    known = [each for each in vars(helpers).values() if isinstance(each, ContextVar)]
    return sorted((each.key, str(each.value)) for each in known)


def load_program(source: str, name: str) -> Any:
    """A function of C, compiled and loaded as tinygrad does it for the CPU."""
    device: Any = Device["CPU"]
    code = device.compiler.compile_cached(source)
    return device.runtime(TinyELF(code, name, Target("CPU"), ()))


def set_runtime(device: str, runtime: Callable[..., Any]) -> None:
    """Has a device load programs by a class; for processes of our own alone."""
    opened: Any = Device[device]
    opened.runtime = lambda code: runtime(opened, code)


def link_bfloat16_rounding(make: Callable[[], Any]) -> None:
    """Has kernels of the CPU find clang's `__truncsfbf2`, which `make` loads where no library
    has it.

    This stays, since a user runs such kernels too: the steps of an optimizer are theirs. What
    tinygrad can load by itself it loads as before.
    """
    library: Any = CPUProgram.rt_lib
    with one_thread:
        if not hasattr(library, "__truncsfbf2"):
            setattr(library, "__truncsfbf2", make())  # a method would mangle the name


# -- capturing --


class _Captures(list[Any]):
    """tinygrad's `capturing` as the thread that captures sees it; empty to all others, whose
    tensors are then theirs to read and realize."""

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
    """Has what other threads realize in the meantime be no part of a capture in the block."""
    modules = [each for name, each in list(sys.modules.items()) if name.startswith("tinygrad")]
    holders = [each for each in modules if vars(each).get("capturing") is capturing]
    if capturing:  # whoever captures already goes on as before
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
    """The JIT that captures in this thread, if any."""
    found = vars(sys.modules[JitBase.__module__])["capturing"]
    return found[0] if found else None


@contextmanager
def graph_runner(
    device: str, runner: type[GraphRunner] | None, options: dict[str, int]
) -> Iterator[None]:
    """Has what is captured in the block run by a class, under options; None: by tinygrad's own.

    Whatever else is captured in the process, before or after, is none the wiser.
    """
    opened: Any = Device[device]
    own = _captured_in_this_thread()
    with one_thread, Context(**options), default_is(device), own:  # type: ignore[no-untyped-call]
        before = opened.graph
        opened.graph = runner or before
        try:
            yield
        finally:
            opened.graph = before


@contextmanager
def default_is(device: str) -> Iterator[None]:
    """Has constants of the block belong to a device where a user has named none.

    A constant lies nowhere, but tinygrad looks for the default device whenever one is made: the
    first time it opens all that it can find, which takes a while, and sets `DEV`.
    """
    first, *others = DEV.value
    if not first.device:
        first = replace(first, device=device.split(":")[0])
    with one_thread, Context(DEV=[first, *others]):  # type: ignore[no-untyped-call]
        yield


@contextmanager
def not_captured() -> Iterator[None]:
    """What is realized in the block is run now, and no part of a program being captured."""
    with one_thread, Context(CAPTURING=0):  # type: ignore[no-untyped-call]
        yield


# -- devices --


def use_clang(device: str, path: str) -> None:
    """Opens a device of the CPU's family, whose kernels this clang compiles.

    Where tinygrad finds the same program by itself, nothing is changed. Else the compiler of
    this one device is told its path: the environment stays as it is.
    """
    with _compiling_by(path):
        renderer = Device[device].renderer
    if isinstance(renderer, ClangRenderer) and not _finds(path):
        _tell(renderer, path)


def default_device(path: str | None) -> str:
    """The device that tinygrad takes by itself, with this clang for the CPU.

    tinygrad opens one after the other, and puts the first that opens into the environment.
    """
    before = os.environ.get("DEV")
    chosen = "_select_device" in vars(Device)
    try:
        with _compiling_by(path):
            return str(Device.DEFAULT)
    finally:
        if before is None and not chosen:
            # As if nobody had asked: whoever does so next finds it again.
            os.environ.pop("DEV", None)
            vars(Device).pop("_select_device", None)


def is_opencl_on_processor() -> bool:
    """Whether the OpenCL device is a processor and no GPU, as PoCL's is."""
    import ctypes

    from tinygrad.runtime.autogen import opencl

    kind = ctypes.c_uint64()
    size = ctypes.sizeof(kind)
    device: Any = Device["CL"]
    opencl.clGetDeviceInfo(device.cl_dev, opencl.CL_DEVICE_TYPE, size, ctypes.byref(kind), None)
    return bool(kind.value & opencl.CL_DEVICE_TYPE_CPU)


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Environment variables that tinygrad sees in the block, where they are not set already."""
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
def _compiling_by(path: str | None) -> Iterator[None]:
    """What is compiled in the block for the CPU is compiled by this clang: tinygrad compiles
    some programs as it opens the device, when there is no compiler to be told yet."""
    if path is None or _finds(path):
        yield
        return
    with one_thread:
        before = ClangCompiler.compile
        ClangCompiler.compile = _compile(path)  # type: ignore[method-assign]
        try:
            yield
        finally:
            ClangCompiler.compile = before  # type: ignore[method-assign]


def _finds(path: str) -> bool:
    """Whether tinygrad finds this compiler by itself."""
    found = shutil.which(getenv("CC", "clang"))
    return found is not None and os.path.abspath(found) == path


def _tell(renderer: ClangRenderer, path: str) -> None:
    compiler: Any = renderer.compiler
    compiler.compile = MethodType(_compile(path), compiler)
    # tinygrad's workers, which compile too, are sent the renderer.
    renderer.__reduce__ = lambda: (_told, (renderer.target, path))  # type: ignore[method-assign]


def _told(target: Target, path: str) -> ClangRenderer:
    renderer = ClangRenderer(target)
    _tell(renderer, path)
    return renderer


def _compile(path: str) -> Any:
    """tinygrad's `ClangCompiler.compile`, flags and all, that runs the clang at a path."""
    original: Any = _original
    around = {**original.__globals__, "getenv": lambda name, default: path}
    return FunctionType(original.__code__, around, original.__name__)


_original = ClangCompiler.compile
