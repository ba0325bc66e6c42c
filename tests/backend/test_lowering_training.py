"""A step of training on GPUs that this machine does not have: gradients, and the update.

As in `test_lowering.py`, nothing runs here; `test_devices.py` runs steps on the devices here.
"""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from numpy.typing import NDArray
from tinygrad import Tensor
from tinygrad.helpers import Context

import archdsl
from archdsl.backend.optimizers import Rule
from archdsl.backend.program import OPTIONS
from archdsl.backend.quantized import Weights
from archdsl.execution import train_step
from archdsl.execution.train_step import TrainStep
from archdsl.passes.program import Program
from tests.backend.lowering import Kernel, lower
from tests.backend.test_lowering import LARGE, Unopened, matrix_products

# Sizes that fill no tensor core.
SIZES: dict[str, Any] = {"vocab": 91, "context": 90, "D": 44, "heads": 4, "depth": 1}
ROWS, LENGTH = 3, 37
HALVES = ("float16", "bfloat16")
CORES = [
    ("CUDA:sm_80", "float16"),
    ("CUDA:sm_80", "bfloat16"),
    ("AMD:gfx1100", "float16"),
    ("AMD:gfx1100", "bfloat16"),
    ("METAL", "float16"),
]
CASES = [
    *CORES,
    *((target, "float32") for target in ("CUDA:sm_80", "AMD:gfx1100", "METAL", "WEBGPU", "CL")),
    ("WEBGPU", "float16"),
    ("CL", "float16"),
]
FEW = 8  # rows that fill half of a tensor core


def empty(shape: tuple[int, ...], device: str, dtype: str = "float32") -> Tensor:
    return Tensor.empty(*shape, device=device, dtype=dtype)


def copied(values: NDArray[Any], device: str, dtype: str = "float32") -> Tensor:
    return empty(values.shape, device, dtype)


def step_of(device: str, dtype: str, rule: str) -> TrainStep:
    """A step of a model whose weights have no memory."""
    executable = archdsl.compile(
        "gpt.arch", dtype=dtype, kernels="tinygrad", **SIZES
    ).executable
    weights = {
        path: empty(each.weight.shape, device, dtype)
        for path, each in executable.weights.items()
    }
    executable._device, executable._parameters = device, Weights(weights, dtype)

    def run(program: Program) -> Unopened:
        return Unopened(program, weights, {}, device)

    executable.run = run  # type: ignore[method-assign]
    # What is computed before the first step is part of no program.
    later = SimpleNamespace(realize=lambda *_: None)
    with (
        patch.object(train_step, "zeros", empty),
        patch.object(train_step, "to_device", copied),
        patch.object(train_step, "realize_outside_capture", lambda each: each),
        patch.object(Tensor, "realize", later.realize),
    ):
        return TrainStep(executable, Rule(rule), ema=0.99)


def gradients(device: str, dtype: str) -> list[Tensor]:
    step = step_of(device, dtype, "adamw")
    key, numbers = empty((2,), device, "uint32"), empty((2,), device)
    return [step._differentiated(key, numbers, tokens=empty((ROWS, LENGTH), device, "int32"))]


def update(device: str, dtype: str, rule: str = "adamw") -> list[Tensor]:
    return [step_of(device, dtype, rule)._updated(empty((2,), device))]


@functools.cache
def lowered(part: str, target: str, dtype: str) -> tuple[Kernel, ...]:
    build = {"gradients": gradients, "update": update}[part]
    with Context(**OPTIONS):  # type: ignore[no-untyped-call]
        return lower(lambda device: build(device, dtype), target, compiles=False)


@pytest.mark.slow
@pytest.mark.parametrize("case", CORES, ids="-".join)
def test_large_products_use_tensor_cores(case: tuple[str, str]) -> None:
    """Those of the forward pass, and the two of each of them in the backward pass."""
    products, _ = matrix_products(archdsl.compile("gpt.arch", **SIZES).graph)
    found = [
        each
        for each in lowered("gradients", *case)
        if each.multiply_adds > LARGE and each.rows >= FEW
    ]
    assert sum(each.products for each in found) == 3 * products
    assert [each.name for each in found if not each.tensor_cores] == []


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids="-".join)
@pytest.mark.parametrize("part", ["gradients", "update"])
def test_sums_and_updates_are_in_fp32(part: str, case: tuple[str, str]) -> None:
    kernels = lowered(part, *case)
    assert kernels
    assert {name for each in kernels for name in each.precision} <= {"float", "int"}
