"""The contract with tinygrad: what archdsl relies on of names that tinygrad keeps private.

Every entry of `BEHAVIOUR` in `archdsl/backend/tinygrad_seam.py` has a check here, which takes
its names from tinygrad itself: a name that is gone fails the checks that need it, and no other.
A failure says which name changed. `python -m tests.backend.contract VERSION` runs this file
with another tinygrad.
"""

from __future__ import annotations

import ast
import ctypes
import importlib
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tinygrad
from tinygrad import Context, Device, Tensor, TinyJit, UOp, dtypes

ROOT = Path(__file__).parents[2]
SEAM = ROOT / "archdsl/backend/tinygrad_seam.py"
TREE = ast.parse(SEAM.read_text(encoding="utf-8"))

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


def behaviour() -> dict[str, str]:
    """`BEHAVIOUR`, read without importing the seam, which another tinygrad may not allow."""
    for node in TREE.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "BEHAVIOUR":
            found: dict[str, str] = ast.literal_eval(node.value)
            return found
    raise AssertionError(f"no BEHAVIOUR in {SEAM}")


IMPORTED = private_imports(TREE)
BEHAVIOUR = behaviour()
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
    """Stands where a JIT that captures does."""

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


# -- tensors and memory --


@check("Ops")
def kinds() -> None:
    Ops, x = private("Ops"), realized(1, 2)
    assert x.uop.base.op is Ops.BUFFER
    assert x.reshape(2, 1).uop.op is Ops.RESHAPE
    assert (x + 1).contiguous().uop.op is Ops.CONTIGUOUS
    assert x.uop.after(x.uop).op is Ops.AFTER
    with recorded() as calls:
        y = (x + 1).realize()
    (call,) = calls
    assert call.op is Ops.CALL
    assert call.src[0].op is Ops.SINK
    assert {each.base for each in call.src[1:]} == {x.uop.base, y.uop.base}
    made = program(lambda x: x * 3, 1, 2)
    assert made.op is Ops.PROGRAM
    assert [each.op for each in made.src[1:3]] == [Ops.LINEAR, Ops.SOURCE]


@check("buffers")
def buffers_of_uops() -> None:
    buffers, x = private("buffers"), realized(1, 2)
    assert buffers[x.uop.base] is x.uop.base.buffer
    before = next(UOp.unique_num)
    with recorded():
        made = (x + 1).realize()
    assert made.uop.base not in buffers
    assert made.uop.base.arg.slot > before


@check("Buffer")
def memory() -> None:
    buffer = private("Buffer")("CPU", 3, dtypes.float32, preallocate=True)
    tensor = Tensor(UOp.from_buffer(buffer)).reshape(3)
    with recorded() as calls:
        tensor.realize()
    assert calls == []
    assert tensor.uop.base.buffer is buffer
    given = np.array([1, 2, 3], np.float32)
    buffer.allocator._copyin(buffer._buf, given.data.cast("B"))
    assert tensor.tolist() == [1, 2, 3]
    found = np.empty(3, np.float32)
    buffer.allocator._copyout(found.data.cast("B"), buffer._buf)
    assert found.tolist() == [1, 2, 3]
    at = buffer.get_buf("CPU").va_addr
    assert list((ctypes.c_float * 3).from_address(at)) == [1, 2, 3]
    other = private("Buffer")("CPU", 3, dtypes.float32, preallocate=True).copy_from(buffer)
    assert other.get_buf("CPU").va_addr != at
    assert other.nbytes == 12
    assert Tensor(UOp.from_buffer(other)).tolist() == [1, 2, 3]
    words = private("Buffer")("CPU", 2, dtypes.uint64, preallocate=True)
    view = words.get_buf("CPU").cpu_view().view(fmt="Q")
    view[1] = 7
    assert Tensor(UOp.from_buffer(words)).tolist()[1] == 7


@check("BufferSpec")
def fresh_memory() -> None:
    """Pages that are taken anew are zeros, whatever stood in those given back."""
    Buffer, options = private("Buffer"), private("BufferSpec")(nolru=True)
    for _ in range(3):
        buffer = Buffer("CPU", 2**18, dtypes.float32, None, options).allocate()
        tensor = Tensor(UOp.from_buffer(buffer))
        found = tensor.numpy()
        assert not found.any()
        ones = np.ones(2**18, np.float32)
        buffer.allocator._copyin(buffer._buf, ones.data.cast("B"))
        del tensor, buffer


@check("LRUAllocator")
def freed_memory() -> None:
    allocator = Device["CPU"].allocator
    assert isinstance(allocator, private("LRUAllocator"))
    buffer = private("Buffer")("CPU", 12345, dtypes.uint8, preallocate=True)
    buffer.deallocate()
    assert any(allocator.cache.values())
    allocator.free_cache()
    assert not any(allocator.cache.values())


@check("DType")
def dtype() -> None:
    assert isinstance(dtypes.bfloat16, private("DType"))
    assert (dtypes.float32.itemsize, dtypes.int32.fmt) == (4, "i")
    assert dtypes.is_float(dtypes.float16)
    assert not dtypes.is_float(dtypes.int32)


@check("DTYPES_DICT")
def dtypes_by_name() -> None:
    found = private("DTYPES_DICT")
    assert found["float32"] is dtypes.float32
    assert found["bfloat16"] is dtypes.bfloat16


@check("storage_fmt_for_dtype")
def formats() -> None:
    found = private("storage_fmt_for_dtype")
    assert (found(dtypes.float32), found(dtypes.bfloat16)) == ("f", "H")


@check("all_int")
def whole() -> None:
    assert private("all_int")((1, 2))
    assert not private("all_int")((1, UOp.variable("n", 1, 3)))


@check("TRAINING")
def training() -> None:
    found = private("TRAINING")
    assert not found
    with Context(TRAINING=1):
        assert found.value
    assert not found.value


# -- lowering and programs --


@check("to_program")
def lowering() -> None:
    plain = kernel(lambda x: x * 5, *range(64))
    assert plain.arg.opts_to_apply is None
    made = private("to_program")(plain, Device["CPU"].renderer)
    assert isinstance(made.src[0].arg.applied_opts, tuple)
    assert made.arg.outs == (0,)
    Opt, OptOps = private("Opt"), importlib.import_module(IMPORTED["Opt"]).OptOps
    schedule = (Opt(OptOps.UPCAST, 0, 4),)
    chosen = plain.replace(arg=replace(plain.arg, opts_to_apply=schedule))
    other = private("to_program")(chosen, Device["CPU"].renderer)
    assert other.src[0].arg.applied_opts == schedule
    assert replace(plain.arg, beam=1).beam == 1


@check("to_program_cache")
def lowered() -> None:
    cache = private("to_program_cache")
    before, x = len(cache), realized(1, 2, 3)
    for _ in range(2):
        (x * 12345.5).realize()
        assert len(cache) == before + 1


@check("to_program_context")
def settings() -> None:
    found = {each.key: each.value for each in private("to_program_context")}
    assert {"TC_OPT", "NUM_CPU_THREADS"} <= found.keys()
    with Context(TC_OPT=found["TC_OPT"] + 1):
        assert {each.key: each.value for each in private("to_program_context")} != found


@check("to_program_key")
def keys() -> None:
    key, renderer = private("to_program_key"), Device["CPU"].renderer
    one, other = kernel(lambda x: x + 1, 1, 2), kernel(lambda x: x + 2, 1, 2)
    assert key(one, renderer) == key(one, renderer) != key(other, renderer)
    assert key(one, renderer)[:3] == (one.key, type(renderer), renderer.target)
    with Context(NUM_CPU_THREADS=7):
        changed = key(one, renderer)
    assert changed != key(one, renderer)


@check("Opt")
def steps() -> None:
    Opt, OptOps = private("Opt"), importlib.import_module(IMPORTED["Opt"]).OptOps
    step = Opt(OptOps.UPCAST, 0, 4)
    assert {pickle.loads(pickle.dumps(step))} == {step}


@check("args_from_ast")
def arguments() -> None:
    found, values = private("args_from_ast")(kernel(lambda x: x * 7, 1, 2), "CPU")
    assert [each.size for each in found] == [2, 2]
    assert values == {}


@check("time_call")
def timed() -> None:
    made = program(lambda x: x * 9, 1, 2)
    x, y = realized(1, 2), realized(0, 0)
    timer = private("time_call")(made.call(y.uop.base, x.uop.base), {})
    assert next(timer) > 0
    assert next(timer) > 0
    assert y.tolist() == [9, 18]


SOURCE = "void twice(float *y, const float *x) { for (int i = 0; i < 3; i++) y[i] = 2 * x[i]; }"


def twice(x: Tensor) -> Tensor:
    """A kernel of our own source, as `archdsl.backend.kernels.launch` makes its own."""
    Ops = private("Ops")
    parameters = tuple(
        UOp.placeholder((3,), dtypes.float32, slot, private("AddrSpace").GLOBAL)
        for slot in range(2)
    )
    info = private("ProgramInfo")(
        "twice",
        local_size=(1, 1, 1),
        globals=(0, 1),
        outs=(0,),
        ins=(1,),
        target=private("Target")("CPU"),
    )
    estimates = private("Estimates")(3, 0, 24)
    body = UOp.sink(*parameters, arg=private("KernelInfo")("twice", estimates=estimates))
    listing = UOp(Ops.LINEAR, src=parameters)
    made = UOp(Ops.PROGRAM, src=(body, listing, UOp(Ops.SOURCE, arg=SOURCE)), arg=info)
    y = Tensor.empty(3, device="CPU")

    def back(gradient: UOp, call: UOp) -> tuple[UOp | None, ...]:
        return None, (Tensor(gradient) * 2).uop

    return Tensor(y.uop.after(made.call(y.uop, x.uop, grad_fxn=back)))


@check("KernelInfo")
@check("ProgramInfo")
@check("AddrSpace")
@check("Estimates")
@check("Target")
def own_kernels() -> None:
    assert (twice(realized(1, 2, 3)) + 1).tolist() == [3, 5, 7]
    x = realized(1, 2, 3)
    (gradient,) = twice(x).sum().gradient(x)
    assert gradient.tolist() == [2, 2, 2]
    made = program(lambda x: x + 4, 1, 2)
    assert len(made.arg.globals) == 2
    assert made.arg.ins == (1,)
    assert made.arg.global_size[0] >= 1
    assert isinstance(made.arg.runtimevars, dict)


@check("TinyELF")
def loaded() -> None:
    device: Any = Device["CPU"]
    code = device.compiler.compile_cached("void put(int *to) { *to = 42; }")
    made = device.runtime(private("TinyELF")(code, "put", private("Target")("CPU"), ()))
    number = ctypes.c_int()
    made.fxn(ctypes.c_uint64(ctypes.addressof(number)))
    assert number.value == 42
    assert made.addr


# -- capturing --


@check("_TinyJit")
def jit() -> None:
    """A subclass whose first call is captured, and which is then called past its `__call__`."""
    calls: list[int] = []

    def function(x: Tensor) -> Tensor:
        calls.append(1)
        found = (x + 1).contiguous().realize()
        linears = private("capturing")[0]._linears
        assert [each.op for each in linears] == [private("Ops").LINEAR]
        return found

    class Jit(private("_TinyJit")):  # type: ignore[misc]
        pass

    made = Jit(function)
    made.cnt = 1
    assert made.captured is None
    assert made(realized(1, 2)).tolist() == [2, 3]
    assert made.captured is not None
    x, n = realized(5, 6), UOp.variable("n", 1, 4).bind(2)
    assert made.captured([x.uop.base], {}).tolist() == [6, 7]
    assert calls == [1]
    variable, value = n.unbind()
    assert (variable.expr, value) == ("n", 2)


@check("capturing")
def recording() -> None:
    assert private("capturing") == []
    x = realized(1, 2)
    with recorded() as calls:
        (x + 3).realize()
        assert len(calls) == 1
        with Context(CAPTURING=0):
            now = (x + 4).realize()
        assert len(calls) == 1
    assert now.tolist() == [5, 6]


@check("GraphRunner")
def runners() -> None:
    """A runner of our own gets what is captured, with inputs and values that change."""
    seen: list[Any] = []

    class Runner(private("GraphRunner")):  # type: ignore[misc]
        def __call__(self, inputs: Any, values: Any, wait: bool = False) -> None:
            seen.append((self, inputs, list(self.updated_vars(values))))
            for number, (_, program, buffers, _) in enumerate(self.calls):
                given = [buffers[i] for i in program.arg.globals]
                for position, slot in self.uop_replace[number]:
                    given[program.arg.globals.index(position)] = inputs[slot].buffer
                numbers = [each[2] for each in self.updated_vars(values) if each[0] == number]
                names = [each.expr for each in program.arg.vars]
                vals = tuple(None if n == "core_id" else numbers.pop(0) for n in names)
                self.runtimes[number](
                    *(each.get_buf("CPU") for each in given),
                    global_size=program.arg.global_size,
                    vals=vals,
                )

    device: Any = Device["CPU"]
    assert device.graph is None
    device.graph = Runner
    try:
        jit = TinyJit(lambda x, n: ((x + n).contiguous() * 3).realize())
        n = UOp.variable("n", 1, 4)
        for i in range(4):
            found = jit(realized(1, i), n.bind(1 + i % 2))
            assert found.tolist() == [3 * (2 + i % 2), 3 * (i + 1 + i % 2)]
    finally:
        device.graph = None
    assert len(seen) == 3  # the second call is captured
    assert {each[2] for each in seen[-1][2]} == {2}
    supports = private("GraphRunner").supports_uop
    with recorded() as calls:
        realized_copy = Tensor.empty(2, device="PYTHON").to("CPU").realize()
    assert realized_copy.device == "CPU"
    assert not supports([device], calls[-1])


@check("get_call_arg_uops")
def call_arguments() -> None:
    n = UOp.variable("n", 1, 4).bind(3)
    x, y = realized(1, 2).uop, realized(0, 0).uop
    call = program(lambda x: x * 6, 1, 2).call(y, x, n)
    assert len(call.src) == 4
    assert private("get_call_arg_uops")(call) == (y, x)


# -- devices --


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


# -- the tests --


@pytest.mark.parametrize("name", BEHAVIOUR)
def test_tinygrad_does(name: str) -> None:
    try:
        private(name)
        CHECKS[name]()
    except Exception as error:
        where = f"{IMPORTED[name]}.{name} of tinygrad {version('tinygrad')}"
        pytest.fail(f"{where} has changed.\nRelied on: {BEHAVIOUR[name]}\n{error!r}")


def test_every_private_name_says_what_it_does_and_is_checked() -> None:
    inside = {name for name, module in IMPORTED.items() if "autogen" not in module}
    assert inside == BEHAVIOUR.keys() == CHECKS.keys()


def test_what_is_public() -> None:
    source = Path(tinygrad.__file__).read_text(encoding="utf-8")
    assert [name for name in PUBLIC if name not in source] == []
    assert vars(tinygrad).keys() >= PUBLIC


FILES = [path for path in (ROOT / "archdsl").rglob("*.py") if path != SEAM]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_other_module_has_private_names(path: Path) -> None:
    assert private_imports(ast.parse(path.read_text(encoding="utf-8"))) == {}
