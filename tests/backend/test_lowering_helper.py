"""The lowering helper detects tensor cores, and which kernels were compiled."""

from __future__ import annotations

import pytest
from tinygrad import Device, Tensor, dtypes
from tinygrad.dtype import DType

from tests.backend.lowering import TARGETS, Kernel, lower, missing_compiler

WITH_TENSOR_CORES = ["CUDA", "CUDA:sm_80", "NV", "AMD", "AMD:gfx1100", "AMD:HIP", "METAL"]
HALVES = [dtypes.half, dtypes.bfloat16]

# What only the compiler's output has: a header, or an instruction that no source spells.
COMPILED = {
    "CUDA": b".target sm_90",
    "CUDA:sm_80": b".target sm_80",
    "NV": b"\x7fELF",
    "AMD": b"\x7fELF",
    "AMD:gfx1100": b"\x7fELF",
    "AMD:HIP": b"v_mfma_f32_16x16x16",
}


def product(target: str, dtype: DType) -> Kernel:
    """The kernel of a 32 x 16 by 16 x 32 product."""

    def build(device: str) -> list[Tensor]:
        left = Tensor.empty(32, 16, dtype=dtype, device=device)
        return [left @ Tensor.empty(16, 32, dtype=dtype, device=device)]

    (kernel,) = lower(build, target)
    return kernel


def precision_of_softmax(dtype: DType) -> set[str]:
    def build(device: str) -> list[Tensor]:
        return [Tensor.empty(16, 64, dtype=dtypes.half, device=device).cast(dtype).softmax()]

    return {name for kernel in lower(build, "CUDA") for name in kernel.precision}


@pytest.mark.few(2)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("target", TARGETS)
def test_products_of_halves_call_the_tensor_cores(target: str, dtype: DType) -> None:
    kernel = product(target, dtype)
    assert kernel.tensor_cores == (target in WITH_TENSOR_CORES)
    assert kernel.multiply_adds == 32 * 16 * 32


def test_fp32_products_are_not_rounded_to_tf32_on_cuda() -> None:
    kernel = product("CUDA", dtypes.float)
    assert not kernel.tensor_cores
    assert kernel.precision == {"float"}


@pytest.mark.parametrize("target", COMPILED)
def test_a_compiler_made_the_binary(target: str) -> None:
    if reason := missing_compiler(target):
        pytest.skip(f"rendered only: {reason}")
    kernel = product(target, dtypes.half)
    assert kernel.binary is not None
    assert COMPILED[target] in kernel.binary
    assert COMPILED[target] not in kernel.source.encode()


@pytest.mark.parametrize("target", sorted(TARGETS.keys() - COMPILED.keys()))
def test_a_target_without_a_compiler_says_so(target: str) -> None:
    assert missing_compiler(target) == "no compiler is published"
    assert product(target, dtypes.half).binary is None


def test_no_device_is_opened() -> None:
    before = set(Device._opened_devices)
    for target in TARGETS:
        product(target, dtypes.float)
    assert Device._opened_devices == before


def test_a_softmax_in_half_is_told_from_one_in_fp32() -> None:
    assert "half" in precision_of_softmax(dtypes.half)
    assert precision_of_softmax(dtypes.float) == {"float"}


def test_a_sum_of_squares_is_no_matrix_product() -> None:
    def build(device: str) -> list[Tensor]:
        return [Tensor.empty(64, 64, device=device).square().mean(-1)]

    assert [kernel.multiply_adds for kernel in lower(build, "CUDA")] == [0]
