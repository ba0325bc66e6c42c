"""The models of specs/ lowered for GPUs that this machine does not have, through our emitter.

`lowering.py` says how, and which targets are compiled and which rendered only. Nothing runs
here: `test_devices.py` says that the numbers are right.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from tinygrad import Tensor
from tinygrad.helpers import Context

import archdsl
from archdsl.backend.context import ExecutionContext, OpCall
from archdsl.backend.emit import embed
from archdsl.backend.interpret import forward, measured
from archdsl.backend.program import OPTIONS
from archdsl.graph.nodes import Apply, Graph, walk
from archdsl.model import Model
from archdsl.passes import optimise
from archdsl.passes.program import lower as program_of
from tests.backend.lowering import TARGETS, Kernel, lower, missing_compiler, recompiled
from tests.suite import some

HALVES = ("float16", "bfloat16")
# Qualcomm's OpenCL has no bfloat16.
DTYPES = {
    "CUDA": ("float32", *HALVES),
    "NV": ("float32", *HALVES),
    "AMD": ("float32", *HALVES),
    "METAL": ("float32", *HALVES),
    "QCOM": ("float32", "float16"),
}
WITH_TENSOR_CORES = DTYPES.keys() - {"QCOM"}
LARGE = 2**16  # multiply-adds

# The spec, the sizes and the shapes of the inputs. The encoder-decoders fill tensor cores,
# the others do not; models of one size share most of their kernels.
SIZES: dict[str, Any] = {"D": 64, "heads": 4, "depth": 2}
EVEN: dict[str, Any] = {"vocab": 128, "context": 64, **SIZES}
PAIR: dict[str, tuple[int, ...]] = {"source": (2, 64), "target": (2, 64)}
MODELS: dict[str, tuple[str, dict[str, Any], dict[str, tuple[int, ...]]]] = {
    "transformer": ("transformer.arch", EVEN, PAIR),
    "vaswani2017": ("vaswani2017.arch", {"hidden": 256, **EVEN}, PAIR),
    "annalog": ("annalog.arch", {"hidden": 256, **EVEN}, PAIR),
    "gpt": ("gpt.arch", {"vocab": 59, "context": 40, **SIZES}, {"tokens": (1, 37)}),
    "vit": (
        "vit.arch",
        {"image": 48, "patch": 8, "classes": 10, **SIZES},
        {"pixels": (1, 3, 48, 48)},
    ),
}

CASES = [
    *(("transformer", target, dtype) for target in DTYPES for dtype in DTYPES[target]),
    *((model, target, "float16") for target in DTYPES for model in list(MODELS)[1:]),
]
# These need no compiler.
FEW = (("gpt", "QCOM", "float16"),)
HALF_CASES = [case for case in CASES if case[2] in HALVES]


def named(case: tuple[str, str, str]) -> str:
    model, target, dtype = case
    rendered_only = "" if TARGETS[target].compiler else ", rendered only"
    return f"{model}-{target}-{dtype}{rendered_only}"


class Unopened(ExecutionContext):
    """A context whose constants have no values, so that no device is opened."""

    def constant(self, key: tuple[object, ...], make: Callable[[], np.ndarray]) -> Tensor:
        made = make()
        return Tensor.empty(*made.shape, dtype=str(made.dtype), device=self.device)


def unopened(
    graph: Graph,
    weights: Mapping[str, Tensor],
    inputs: Mapping[str, Any],
    device: str,
    trains: bool = False,
) -> Unopened:
    """A run of a graph's program by tinygrad's own kernels, for inputs of these shapes."""
    graph = optimise(graph)
    program = program_of(graph, *measured(graph, inputs), trains=trains)
    return Unopened(program, weights, {}, device)


@functools.cache
def described(model: str) -> Model:
    spec, settings, _ = MODELS[model]
    return archdsl.compile(spec, **settings)


@functools.cache
def lowered(model: str, target: str, dtype: str) -> tuple[Kernel, ...]:
    """The kernels of a forward pass; a target whose compiler is absent has to wait for it.

    Lowering takes long, and for NV it is CUDA's: only the compiler is asked for another output.
    """
    if TARGETS[target].compiler and (reason := missing_compiler(target)):
        pytest.skip(f"{target} is lowered where it is compiled: {reason}")
    if target == "NV":
        return tuple(recompiled(kernel, target) for kernel in lowered(model, "CUDA", dtype))
    return lowered_alone(model, target, dtype)


def lowered_alone(model: str, target: str, dtype: str) -> tuple[Kernel, ...]:
    graph = described(model).graph
    shapes = {path: p.weight.shape for path, p in described(model).weights.items()}
    given = MODELS[model][2]

    def build(device: str) -> list[Tensor]:
        weights = {
            path: Tensor.empty(*shape, dtype=dtype, device=device)
            for path, shape in shapes.items()
        }
        inputs = {
            each.name: Tensor.empty(
                *given[each.name],
                dtype="int32" if each.type.dtype == "int" else dtype,
                device=device,
            )
            for each in graph.inputs
        }
        return [*forward(unopened(graph, weights, inputs, device), inputs).values()]

    with Context(**OPTIONS):  # type: ignore[no-untyped-call]
        return lower(build, target)


def matrix_products(graph: Graph) -> tuple[int, int]:
    """How many products of matrices a forward pass has, and how many a GELU follows."""
    products, gelus = 0, 0
    for node, around in walk(graph.nodes):
        if isinstance(node, Apply):
            copies = math.prod(stack.count for stack in around)
            sizes = node.attr.get("sizes")
            layers = len(sizes) if isinstance(sizes, tuple) else 0
            of_each = {"attention": 6, "linear": 1, "unembed": 1, "mlp": layers}
            products += copies * of_each.get(node.op, 0)
            gelus += copies * max(layers - 1, 0) * (node.attr.get("act") == "gelu")
    return products, gelus


@pytest.mark.parametrize("case", some(CASES, *FEW), ids=named)
def test_each_product_is_one_kernel(case: tuple[str, str, str]) -> None:
    products, _ = matrix_products(described(case[0]).graph)
    assert sum(kernel.multiply_adds > 0 for kernel in lowered(*case)) == products


@pytest.mark.parametrize("case", some(CASES, *FEW), ids=named)
def test_exponentials_are_not_made_again_for_each_term_of_a_product(
    case: tuple[str, str, str],
) -> None:
    _, gelus = matrix_products(described(case[0]).graph)
    products = [kernel for kernel in lowered(*case) if kernel.multiply_adds]
    # A GELU is computed once for each number, as the product before it is stored.
    assert sum("exp2" in kernel.source for kernel in products) == gelus


@pytest.mark.parametrize("case", some(HALF_CASES, *FEW), ids=named)
def test_softmax_norms_and_sums_are_in_fp32(case: tuple[str, str, str]) -> None:
    # Whole numbers are what lengths are counted in.
    assert {name for kernel in lowered(*case) for name in kernel.precision} <= {"float", "int"}


@pytest.mark.long
@pytest.mark.parametrize(
    "case",
    some(
        [case for case in HALF_CASES if case[1] in WITH_TENSOR_CORES],
        ("gpt", "METAL", "float16"),
    ),
    ids=named,
)
def test_large_products_use_tensor_cores(case: tuple[str, str, str]) -> None:
    large = [kernel for kernel in lowered(*case) if kernel.multiply_adds > LARGE]
    assert large
    assert [kernel.name for kernel in large if not kernel.tensor_cores] == []


@pytest.mark.parametrize("case", some(CASES, *FEW), ids=named)
def test_what_can_be_compiled_is(case: tuple[str, str, str]) -> None:
    _, target, _ = case
    there = TARGETS[target].compiler is not None
    assert {kernel.binary is not None for kernel in lowered(*case)} == {there}


@pytest.mark.long
@pytest.mark.parametrize("case", [("vit", "NV", "float16")], ids=named)
def test_nv_has_the_kernels_of_cuda(case: tuple[str, str, str]) -> None:
    assert lowered(*case) == lowered_alone(*case)


def test_a_lookup_in_a_large_table_is_one_kernel() -> None:
    """Not partial sums over the table, all but one of them zero."""

    def build(device: str) -> list[Tensor]:
        run = unopened(described("gpt").graph, {}, {"tokens": Tensor.empty(2, 9)}, device)
        table = Tensor.empty(50257, 8, device=device)
        tokens = Tensor.empty(2, 9, dtype="int32", device=device)
        return [embed(OpCall({"tokens": tokens}, {}, {"weight": table}, {}, run))]

    with Context(**OPTIONS):  # type: ignore[no-untyped-call]
        (kernel,) = lower(build, "CUDA")
    assert "for (" not in kernel.source
