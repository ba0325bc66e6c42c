"""Checks of devices, compilers and settings."""

from __future__ import annotations

import ctypes
import os
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tinygrad import Context, Device, dtypes

from tests.backend.contract.base import check, private, program, realized


@check("Compiled")
def devices() -> None:
    device: Any = Device["CPU"]
    assert isinstance(device, private("Compiled"))
    assert device.arch
    assert device.allocator
    assert dtypes.float32 in device.renderer.supported_dtypes()
    assert device.renderer.compiler is device.compiler
    loads: list[Any] = []

    def load(code: Any) -> Any:
        loads.append(code)
        return private("CPUProgram")(device, code)

    device.runtime = load
    try:
        assert (realized(1, 2) * 321).tolist() == [321, 642]
    finally:
        del device.runtime
    assert loads


@check("CPUProgram")
def cpu_programs() -> None:
    made = program(lambda x: x * 8, 1, 2)
    loaded = Device["CPU"].runtime(made.to_elf())
    assert isinstance(loaded, private("CPUProgram"))
    assert loaded.addr
    assert isinstance(loaded.runtimevars, dict)
    x, y = realized(1, 2), realized(0, 0)
    at = [each.uop.base.buffer.get_buf("CPU") for each in (y, x)]
    vals = (None,) * len(made.arg.vars)
    loaded(*at, global_size=made.arg.global_size, vals=vals)
    assert y.tolist() == [8, 16]
    library: Any = private("CPUProgram").rt_lib
    callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda n: n + 1)
    library.archdsl_contract = callback
    try:
        source = "int archdsl_contract(int); void f(int *to) { *to = archdsl_contract(*to); }"
        code = Device["CPU"].compiler.compile_cached(source)
        calling = Device["CPU"].runtime(
            private("TinyELF")(code, "f", private("Target")("CPU"), ())
        )
        number = ctypes.c_int(4)
        calling.fxn(ctypes.c_uint64(ctypes.addressof(number)))
        assert number.value == 5
    finally:
        delattr(library, "archdsl_contract")


@check("ClangRenderer")
def renderers() -> None:
    renderer = Device["CPU"].renderer
    assert isinstance(renderer, private("ClangRenderer"))
    again = pickle.loads(pickle.dumps(renderer))
    assert type(again) is type(renderer)
    assert again.target == renderer.target
    renderer.__reduce__ = lambda: (str, ("told",))  # type: ignore[method-assign]
    try:
        assert pickle.loads(pickle.dumps(renderer)) == "told"
    finally:
        del renderer.__reduce__


@check("ClangCompiler")
def clang() -> None:
    compile = private("ClangCompiler").compile
    asked: list[str] = []

    def answer(name: str, default: str) -> str:
        asked.append(name)
        return "/no/such/clang"

    changed = type(compile)(compile.__code__, {**compile.__globals__, "getenv": answer})
    with pytest.raises(FileNotFoundError, match="/no/such/clang"):
        changed(Device["CPU"].compiler, "void f(void) {}")
    assert asked == ["CC"]


@check("NUM_CPU_THREADS")
def threads() -> None:
    assert private("NUM_CPU_THREADS").value >= 1
    with Context(NUM_CPU_THREADS=3):
        made = program(lambda x: x * 10, *range(2**14))
        assert made.arg.global_size[0] <= 3


@check("CACHEDB")
def cache_file() -> None:
    private("diskcache_put")("archdsl_contract", {"key": "a"}, 1)
    assert Path(private("CACHEDB")).exists()


@check("CACHELEVEL")
def cache_level() -> None:
    private("diskcache_put")("archdsl_contract", {"key": "b"}, 1)
    with Context(CACHELEVEL=0):
        assert private("diskcache_get")("archdsl_contract", {"key": "b"}) is None


@check("DEV")
def default_devices() -> None:
    DEV = private("DEV")
    assert DEV.target("CPU").renderer == ""
    first, *_ = DEV.value
    with Context(DEV=[replace(first, device="PYTHON")]):
        assert (DEV.device, Device.DEFAULT) == ("PYTHON", "PYTHON")
        assert Device["CPU"].renderer.target.device == "CPU"
    with Context(DEV="CPU:LLVM"):
        assert DEV.target("CPU").renderer == "LLVM"
    before = vars(Device).pop("_select_device", None), os.environ.pop("DEV", None)
    try:
        with Context(DEV=""):
            chosen = Device.DEFAULT
            assert os.environ["DEV"] == chosen == vars(Device)["_select_device"]
    finally:
        for state, name, value in zip(
            (vars(Device), os.environ), ("_select_device", "DEV"), before, strict=True
        ):
            state.pop(name, None)
            if value is not None:
                state[name] = value


@check("diskcache_get")
@check("diskcache_put")
def kept() -> None:
    key = {"kernel": "contract", "device": sys.executable}
    assert private("diskcache_get")("archdsl_none", key) is None
    private("diskcache_put")("archdsl_contract_kept", key, (None,))
    assert private("diskcache_get")("archdsl_contract_kept", key) == (None,)


@check("getenv")
def variables() -> None:
    getenv = private("getenv")
    os.environ["ARCHDSL_CONTRACT"] = "before"
    try:
        assert getenv("ARCHDSL_CONTRACT", "") == "before"
        os.environ["ARCHDSL_CONTRACT"] = "after"
        getenv.cache_clear()
        assert getenv("ARCHDSL_CONTRACT", "") == "after"
    finally:
        del os.environ["ARCHDSL_CONTRACT"]


@check("BEAM")
@check("DEBUG")
@check("PROFILE")
def silence() -> None:
    for name in ("BEAM", "DEBUG", "PROFILE"):
        assert not private(name)
        assert private(name).key == name


@check("ContextVar")
@check("helpers")
def all_settings() -> None:
    """Every setting is found in the module, and its value is what a Context makes it."""
    kind, module = private("ContextVar"), private("helpers")
    found = {each.key: each for each in vars(module).values() if isinstance(each, kind)}
    read = {each.key for each in private("to_program_context")}
    assert read <= found.keys()
    before = found["NOOPT"].value
    with Context(NOOPT=before + 1):
        assert found["NOOPT"].value == before + 1


@check("DLL")
def libraries() -> None:
    found = private("DLL")
    assert isinstance(vars(found)["findlib"], staticmethod)
    path = found.findlib("m", ["m"], [])
    assert path is None or Path(path).is_file()
