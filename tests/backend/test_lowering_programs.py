"""A model's other programs on GPUs: prefill, steps of decoding, and the gradients of training.

As in `test_lowering.py`, nothing runs here. Large products use tensor cores whatever their
sizes, and none of the CPU's kernels is in any of these programs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import pytest
from tinygrad import Tensor, UOp
from tinygrad.helpers import Context
from tinygrad.uop.ops import Ops

import archdsl
from archdsl.backend import interpret
from archdsl.backend.program import OPTIONS
from archdsl.execution.decoder import _nested
from archdsl.graph.nodes import Input
from archdsl.graph.types import Type
from archdsl.model import Model
from archdsl.passes.build_step_graph import CACHE_POSITIONS, LEFT_PAD, PAST
from archdsl.passes.keep_last_position import keep_last_position
from archdsl.passes.program import lower as program_of
from archdsl.passes.split_decoding import split_decoding
from tests.backend.lowering import Kernel, lower, schedule
from tests.backend.test_lowering import LARGE, Unopened, unopened
from tests.suite import some

# Odd sizes, which fill no tensor core.
SIZES: dict[str, Any] = {"vocab": 91, "context": 90, "D": 44, "heads": 4, "depth": 1}
GROUPED = {**SIZES, "D": 60, "heads": 6, "kv_heads": 2, "inner": 84}
MODELS: dict[str, dict[str, Any]] = {
    "gpt.arch": SIZES,
    "transformer.arch": SIZES,
    "gpt2.arch": SIZES,
    "t5.arch": {**SIZES, "size": 11, "inner": 84},
    "whisper.arch": {**SIZES, "bins": 5, "length": 21, "pad_id": 0, "inner": 84},
    "llama.arch": GROUPED,
    "mistral.arch:Mistral": {**GROUPED, "window": 24},
    "qwen.arch:Qwen3": {**GROUPED, "head_size": 10},
    "bert.arch:BertMaskedLM": {**SIZES, "inner": 84},
    "dosovitskiy2020.arch": {"image": 40, "classes": 9, "patch": 8, "D": 44, "heads": 4}
    | {"inner": 84, "depth": 1},
}
# Rows, and how many tokens of each are new: a chunk of a prompt, a row, a batch of rows.
STEPS = {"prefill": (1, 32), "batch": (37, 1), "single": (1, 1)}
ROOM, LENGTH = 96, 37

Build: TypeAlias = Callable[[str], list[Tensor]]


@functools.cache
def described(spec: str) -> Model:
    return archdsl.compile(spec, **MODELS[spec])


def weights(spec: str, dtype: str, device: str) -> dict[str, Tensor]:
    return {
        path: Tensor.empty(*each.weight.shape, dtype=dtype, device=device)
        for path, each in described(spec).weights.items()
    }


def tokens(device: str, *shape: int) -> Tensor:
    return Tensor.empty(*shape, dtype="int32", device=device)


def stepping(spec: str, dtype: str, rows: int, new: int) -> Build:
    """The logits after new tokens, with the caches of earlier ones."""

    def build(device: str) -> list[Tensor]:
        plan = split_decoding(described(spec).graph, ROOM)
        graph = keep_last_position(plan.step, plan.axis) if new > 1 else plan.step
        sizes = {axis.name: axis.near(LENGTH) for axis in graph.varying}
        sizes[plan.axis] = new
        sizes |= {axis.name: ROOM for axis in graph.varying if axis.bound == ROOM}

        def empty(type: Type) -> Tensor:
            shape = (axis.size.at(sizes) for axis in type.axes)
            kind = dtype if type.dtype == "float" else "int32"
            return Tensor.empty(rows, *shape, dtype=kind, device=device)

        stacks = {state.name: state.stacks for state in plan.states}
        values = {}
        for each in graph.inputs:
            around = stacks.get(each.name, ())
            one = replace(each.type, axes=each.type.axes[len(around) :])
            values[each.name] = _nested(each.name, around, lambda _, one=one: empty(one))
        past = UOp.variable("past", 0, ROOM - 1).bind(5)
        values |= {PAST: past, CACHE_POSITIONS: None, LEFT_PAD: tokens(device, rows)}
        run = Unopened(program_of(graph, rows, sizes), weights(spec, dtype, device), {}, device)
        return [interpret.forward(run, values)[plan.logits]]

    return build


def training(spec: str, dtype: str, rows: int = 3) -> Build:
    """The loss and the gradients of all weights."""

    def build(device: str) -> list[Tensor]:
        graph, learnt = described(spec).graph, weights(spec, dtype, device)
        given = arrays((*graph.inputs, *graph.labels), dtype, device, rows)
        run = unopened(graph, learnt, given, device, trains=True)
        loss = interpret.loss(run, given)
        return [loss, *loss.gradient(*learnt.values())]

    return build


def whole(spec: str, dtype: str, rows: int = 3) -> Build:
    """A forward pass of a batch."""

    def build(device: str) -> list[Tensor]:
        graph = described(spec).graph
        given = arrays(graph.inputs, dtype, device, rows)
        run = unopened(graph, weights(spec, dtype, device), given, device)
        return [*interpret.forward(run, given).values()]

    return build


def arrays(inputs: Sequence[Input], dtype: str, device: str, rows: int) -> dict[str, Tensor]:
    """Inputs whose varying axes have the same length."""
    return {
        each.name: Tensor.empty(
            rows,
            *(axis.size.at(dict.fromkeys(each.type.vars, LENGTH)) for axis in each.type.axes),
            dtype=dtype if each.type.dtype == "float" else "int32",
            device=device,
        )
        for each in inputs
    }


PROGRAMS = (*STEPS, "training")
# The programs of models that predict no tokens, and of those that are above.
OTHERS: dict[str, tuple[str, ...]] = {
    "llama.arch": (),
    "bert.arch:BertMaskedLM": ("whole",),
    "dosovitskiy2020.arch": ("training", "whole"),
}
FEW = 8  # rows that fill half of a tensor core
CASES = [
    *some(
        [
            *(("gpt.arch", program, "AMD", "float16") for program in PROGRAMS),
            *(("transformer.arch", program, "CUDA", "bfloat16") for program in STEPS),
        ],
        ("gpt.arch", "prefill", "AMD", "float16"),
    ),
    # Neighbours of the above: a GPT's steps on AMD, a Transformer's on CUDA.
    *(
        pytest.param(("gpt.arch", program, "CUDA", "float16"), marks=pytest.mark.slow)
        for program in (*STEPS, "training")
    ),
    # Queries that share a key head, in each program; and every other family.
    pytest.param(("llama.arch", "prefill", "CUDA", "float16"), marks=pytest.mark.long),
    *(
        pytest.param(("llama.arch", program, "CUDA", "float16"), marks=pytest.mark.slow)
        for program in (*PROGRAMS, "whole")
        if program != "prefill"
    ),
    pytest.param(("llama.arch", "prefill", "AMD", "bfloat16"), marks=pytest.mark.slow),
    *(
        pytest.param((spec, program, "CUDA", "bfloat16"), marks=pytest.mark.slow)
        for spec in list(MODELS)[2:]
        for program in OTHERS.get(spec, (*PROGRAMS, "whole"))
    ),
]


@functools.cache
def lowered(spec: str, program: str, target: str, dtype: str) -> tuple[Kernel, ...]:
    if program in STEPS:
        build = stepping(spec, dtype, *STEPS[program])
    else:
        build = {"training": training, "whole": whole}[program](spec, dtype)
    with Context(**OPTIONS):  # type: ignore[no-untyped-call]
        return lower(build, target, compiles=False)


def large(kernels: tuple[Kernel, ...]) -> list[Kernel]:
    """Products of matrices; a vector's, as of one query with the keys, shares nothing."""
    return [each for each in kernels if each.multiply_adds > LARGE and each.rows >= FEW]


@pytest.mark.long
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_large_products_use_tensor_cores(case: tuple[str, str, str, str]) -> None:
    found = large(lowered(*case))
    assert found or case[1] == "single"
    assert [kernel.name for kernel in found if not kernel.tensor_cores] == []


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_softmax_norms_and_sums_are_in_fp32(case: tuple[str, str, str, str]) -> None:
    assert {name for kernel in lowered(*case) for name in kernel.precision} <= {"float", "int"}


@pytest.mark.few(1)
@pytest.mark.parametrize("target", ["CUDA", "AMD", "CL"])
@pytest.mark.parametrize("spec", ["gpt.arch", "transformer.arch"])
def test_no_kernel_of_the_cpu_is_in_a_graph_of_a_gpu(
    spec: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the C code nor the thread pool of the CPU."""

    def forbidden(*given: object, **named: object) -> None:
        raise AssertionError("a kernel of the CPU's on a GPU")

    monkeypatch.setattr("archdsl.backend.kernels.launch.launch", forbidden)
    monkeypatch.setattr("archdsl.backend.kernels.thread_pool.tensor", forbidden)
    for module in ("attention", "norms", "products", "tables"):
        monkeypatch.setattr(f"archdsl.backend.kernels.{module}.launch", forbidden)
    builds = [stepping(spec, "float32", *STEPS["batch"]), training(spec, "float32")]
    with Context(**OPTIONS):  # type: ignore[no-untyped-call]
        for build in builds:
            for kernel in schedule(build, target):
                assert kernel.op is Ops.SINK
                devices = {u.arg.device for u in kernel.toposort() if u.op is Ops.PARAM}
                assert "CPU" not in devices
