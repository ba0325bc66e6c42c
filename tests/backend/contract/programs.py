"""Checks of lowering, programs and captures."""

from __future__ import annotations

import ctypes
import importlib
import pickle
from dataclasses import replace
from typing import Any

from tinygrad import Context, Device, Tensor, TinyJit, UOp, dtypes

from tests.backend.contract.base import (
    IMPORTED,
    check,
    kernel,
    private,
    program,
    realized,
    recorded,
)


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


@check("schedule_cache")
@check("runtime_cache")
def forgotten() -> None:
    caches = [private(name) for name in ("to_program_cache", "schedule_cache", "runtime_cache")]
    assert private("GraphRunner").__init__.__code__.co_names.count("runtimes") == 1
    x = realized(1, 2, 3)
    for _ in range(2):
        assert (x * 12346.5).tolist() == [12346.5, 24693.0, 37039.5]
        assert all(caches)
        for each in caches:
            each.clear()


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
    """A kernel from C source, as `archdsl.backend.kernels.launch` creates it."""
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


@check("_TinyJit")
def jit() -> None:
    """A subclass whose first call is captured, and which then runs without its `__call__`."""
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
    modules = ("engine.jit", "engine.realize", "schedule")
    holders = [importlib.import_module(f"tinygrad.{name}") for name in modules]
    assert all(vars(each)["capturing"] is private("capturing") for each in holders)
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
    """Our graph runner receives the captured calls, with new inputs and values."""
    seen: list[Any] = []

    class Runner(private("GraphRunner")):  # type: ignore[misc]
        def __call__(self, inputs: Any, values: Any, wait: bool = False) -> None:
            seen.append((self, inputs, list(self.updated_vars(values))))
            for number, (_, made, buffers, _) in enumerate(self.calls):
                given = [buffers[i] for i in made.arg.globals]
                for position, slot in self.uop_replace[number]:
                    given[made.arg.globals.index(position)] = inputs[slot].buffer
                numbers = [each[2] for each in self.updated_vars(values) if each[0] == number]
                names = [each.expr for each in made.arg.vars]
                vals = tuple(None if n == "core_id" else numbers.pop(0) for n in names)
                self.runtimes[number](
                    *(each.get_buf("CPU") for each in given),
                    global_size=made.arg.global_size,
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


@check("graph_cache")
def graphs() -> None:
    """A capture in one batch has one call, whose body is the key of its runner."""

    class Runner(private("GraphRunner")):  # type: ignore[misc]
        def __call__(self, inputs: Any, values: Any, wait: bool = False) -> None:
            return None

    device: Any = Device["CPU"]
    device.graph = Runner
    try:
        with Context(JIT_BATCH_SIZE=0):
            jit = TinyJit(lambda x: ((x + 1).contiguous() * 3).realize())
            for i in range(2):
                jit(realized(1, i))
    finally:
        device.graph = None
    (call,) = jit.captured.linear.src
    assert call.src[0].op is private("Ops").CUSTOM_FUNCTION
    assert isinstance(private("graph_cache").get(call.src[0]), Runner)


@check("run_linear")
def run_captured() -> None:
    jit = TinyJit(lambda x: ((x + 1).contiguous() * 3).realize())
    for i in range(2):
        found = jit(realized(1, i))
    other = realized(1, 5)
    captured = jit.captured._linear  # type: ignore[union-attr]
    private("run_linear")(captured, {}, input_uops=(other.uop.base,), jit=True)
    assert found.tolist() == [6, 18]


@check("JIT")
def not_capturing() -> None:
    jit = TinyJit(lambda x: (x + 1).realize())
    with Context(JIT=0):
        for i in range(4):
            assert jit(realized(1, i)).tolist() == [2, i + 1]
    assert jit.captured is None
