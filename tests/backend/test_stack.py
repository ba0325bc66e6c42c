"""No kernel takes more of a thread's stack than any thread has, up to the sizes that its row in
`archdsl.passes.select_kernels` states; beyond them tinygrad's own kernels give the same."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tinygrad import Tensor

import archdsl
from archdsl.backend.kernels import attention, norms, products
from archdsl.backend.quantized import Quantized
from archdsl.backend.toolchain import ensure_compiler
from archdsl.graph.masks import parse
from archdsl.passes.select_kernels import (
    CPU,
    TINYGRAD,
    WIDEST_HEAD,
    WIDEST_SUM,
    Attention,
    Linear,
    choose,
)
from tests.backend.on_cpu import Array, ready, tensor

BOUND = 2**20
PROCESSORS = {
    "AVX2": ["--target=x86_64-none-unknown-elf", "-march=haswell"],
    "AVX-512": ["--target=x86_64-none-unknown-elf", "-march=skylake-avx512"],
    "NEON": ["--target=aarch64-none-unknown-elf", "-mcpu=neoverse-n1"],
}
RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def cpu() -> None:
    ready()


def empty(*shape: int) -> Tensor:
    return Tensor.empty(*shape, device="CPU")


def whole(out: int, into: int, bits: int, group: int) -> Quantized:
    values = RANDOM.integers(0, 100, (out, into if bits == 8 else into // 2))
    dtype = np.int8 if bits == 8 else np.uint8
    scales = RANDOM.random((out, into // group), np.float32)
    return Quantized(
        Tensor(values.astype(dtype), device="CPU").realize(), tensor(scales), tensor(scales)
    )


def attend(size: int, value: int) -> None:
    for kernel in ("attend", "attend_few"):
        q, v = (empty(1, 1100, 2, each) for each in (size, value))
        attention.attend(
            kernel, q, q, v, 0.5, parse("causal & within(3)"), trains=True
        ).sum().gradient(q)


# Kernels whose scratch grows with a size, at sizes that make most of it.
LAUNCHES: dict[str, Callable[[], object]] = {
    f"attention, heads of {size} and {value}": lambda size=size, value=value: attend(
        size, value
    )
    for size, value in (
        (WIDEST_HEAD, WIDEST_HEAD),
        (128, WIDEST_HEAD),
        (320, 320),
    )
} | {
    f"matvec, {rows} rows of {into} numbers of {bits} bits": (
        lambda rows=rows, into=into, bits=bits, group=group: products.linear(
            "matvec", empty(rows, into), whole(2, into, bits, group), None
        )
    )
    for bits, group in ((8, 16), (8, 32), (4, 32))
    for rows in (1, 13)
    for into in (WIDEST_SUM, WIDEST_SUM // 2, 26208)
}
LAUNCHES["matmul"] = lambda: products.matmul(empty(5000, 2**17), empty(2**17, 30000))
LAUNCHES["norm"] = lambda: norms.norm(empty(3, 2**17), False, 1e-5, None, None)


@pytest.mark.long
@pytest.mark.parametrize("name", LAUNCHES)
def test_a_kernels_frames_are_small(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from archdsl.backend.kernels.source import source

    texts: list[str] = []

    def noted(name: str, constants: Any) -> str:
        texts.append(source(name, constants))
        return texts[-1]

    monkeypatch.setattr("archdsl.backend.kernels.launch.source", noted)
    LAUNCHES[name]()
    assert texts
    for processor, target in PROCESSORS.items():
        for text in texts:
            assert 0 < frames(text, target) < BOUND, processor


def frames(text: str, target: list[str]) -> int:
    """The frames of a program's functions, all together; it does not recurse."""
    flags = ["-c", "-x", "c", "-O2", "-fPIC", "-ffreestanding", "-nostdlib"]
    command = [ensure_compiler().path, *flags, *target, "-Wframe-larger-than=0", "-", "-o"]
    ran = subprocess.run(
        [*command, os.devnull], input=text, text=True, capture_output=True, check=True
    )
    return sum(map(int, re.findall(r"stack frame size \((\d+)\)", ran.stderr)))


def test_sizes_are_stated_and_what_is_larger_is_tinygrads() -> None:
    for queries, kernel in ((1, "attend_few"), (300, "attend")):
        assert choose(Attention(2, queries, 300, WIDEST_HEAD, tables=False), CPU) == kernel
        assert (
            choose(Attention(2, queries, 300, WIDEST_HEAD + 1, tables=False), CPU) == TINYGRAD
        )
    assert choose(Linear(1, WIDEST_SUM, 512), CPU) == "matvec"
    assert choose(Linear(1, WIDEST_SUM + 1, 512), CPU) == TINYGRAD
    assert choose(Linear(64, WIDEST_SUM + 1, 512), CPU) == "matmul"


SPEC = """
model A(size, value) {
  input x: float[T <= 300, 1, size]
  input v: float[T, 1, value]
  output y: float[T, 1, value] = attend(x, x, v, causal)
}
"""
WIDE = """
import sys, threading
import archdsl, numpy as np

spec, size, value, kernels = sys.argv[1:]
size, value = int(size), int(value)
rng = np.random.default_rng(0)
x = rng.standard_normal((1, 130, 1, size), np.float32)
v = rng.standard_normal((1, 130, 1, value), np.float32)

def run():
    sizes = {"size": size, "value": value}
    model = archdsl.compile(archdsl.parse(spec), device="CPU", kernels=kernels, **sizes)
    print(model(x=x, v=v)["y"].numpy().tobytes().hex())

threading.stack_size(2 << 20)
thread = threading.Thread(target=run)
thread.start()
thread.join()
"""


@pytest.mark.long
@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("size", "value"),
    [(WIDEST_HEAD, WIDEST_HEAD), (8, 4096), (16384, 16384)],
)
def test_heads_of_any_width_give_the_same_on_a_small_stack(size: int, value: int) -> None:
    def computed(kernels: str) -> Array:
        command = [sys.executable, "-c", WIDE, SPEC, str(size), str(value), kernels]
        ran = subprocess.run(command, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr[-2000:]
        return np.frombuffer(bytes.fromhex(ran.stdout), np.float32)

    best, plain = computed("best"), computed("tinygrad")
    assert best.size == 130 * value
    assert np.abs(best - plain).max() <= 1e-5 * np.abs(plain).max()


def test_gradients_of_the_widest_heads() -> None:
    q, k, v = (tensor(RANDOM.standard_normal((1, 70, 1, WIDEST_HEAD))) for _ in "qkv")
    weight = tensor(RANDOM.standard_normal((1, 70, 1, WIDEST_HEAD)))
    ours = attention.attend("attend", q, k, v, 0.05, parse("causal"), trains=True)
    queries, keys, values = (each.transpose(1, 2) for each in (q, k, v))
    seen = Tensor.ones(70, 70, device="CPU").tril()
    scores = (queries @ keys.transpose(-1, -2) * 0.05).masked_fill(seen == 0, -np.inf)
    plain = (scores.softmax(-1) @ values).transpose(1, 2)
    found, right = ((each * weight).sum().gradient(q, k, v) for each in (ours, plain))
    for one, other in zip(found, right, strict=True):
        expected = other.numpy()
        assert np.abs(one.numpy() - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("rows", [1, 13])
def test_sums_as_long_as_is_stated(rows: int, bits: int) -> None:
    weight = whole(7, WIDEST_SUM, bits, 32)
    x = RANDOM.standard_normal((rows, WIDEST_SUM)).astype(np.float32)
    found = products.linear("matvec", tensor(x), weight, None).numpy()
    exact = x.astype(float) @ weight.full("float32").numpy().T.astype(float)
    assert np.abs(found - exact).max() <= 1e-4 * np.abs(exact).max()


def test_a_model_of_8_bits_with_longer_sums_is_run() -> None:
    width = WIDEST_SUM + 32
    spec = f"""
    model A(D = {width}) {{
      input x: float[T <= 4, D]
      output y: float[T, 64] = x -> linear(64)
    }}
    """
    x = RANDOM.standard_normal((1, 2, width)).astype(np.float32)
    given = {"device": "CPU", "quantize": "int8"}
    found, plain = (
        archdsl.compile(archdsl.parse(spec), kernels=kernels, **given)(x=x)["y"].numpy()
        for kernels in ("best", "tinygrad")
    )
    assert np.abs(found - plain).max() <= 1e-4 * np.abs(plain).max()
