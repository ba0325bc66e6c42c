"""The CPU's kernels against tinygrad's own and NumPy, over sizes that fit no tile."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from tinygrad import Tensor

import archdsl
from archdsl.backend.kernels import (
    activations,
    attention,
    experts,
    norms,
    products,
    roofline,
    tables,
)
from archdsl.backend.kernels.products import Epilogue
from archdsl.backend.kernels.source import source
from archdsl.backend.quantized import Quantized, quantize
from archdsl.backend.target import kernels_for
from archdsl.backend.tensors import copy_out
from archdsl.backend.toolchain import ensure_compiler
from archdsl.diagnostics import ArchError
from archdsl.graph import masks
from archdsl.model import Model
from tests.backend.on_cpu import Array, ready, tensor

RANDOM = np.random.default_rng(0)
HALVES = ["float32", "bfloat16", "float16"]


@pytest.fixture(autouse=True)
def cpu() -> None:
    ready()


def normal(*shape: int) -> Array:
    return RANDOM.standard_normal(shape).astype(np.float32)


# -- products --

ROWS, SIZES = (1, 2, 4, 5, 7, 11, 13, 250), (1, 7, 16, 33, 70, 129)
PRODUCTS = [
    (kernel, M, K, N)
    for number, (M, K, N) in enumerate(itertools.product(ROWS, SIZES, SIZES))
    for kernel in ("matvec", "matmul")
    # A part of all, another for each kernel; tiles ask for their size at least.
    if number % 29 == (kernel == "matmul") and (kernel == "matvec" or (M >= 6 and N >= 64))
]


@pytest.mark.few(4)
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("kernel", "M", "K", "N"), PRODUCTS)
def test_product(kernel: str, M: int, K: int, N: int, dtype: str) -> None:
    x, weight, bias = normal(M, K), tensor(normal(N, K), dtype), tensor(normal(N), dtype)
    found = products.linear(kernel, tensor(x), weight, bias).numpy()
    exact = x.astype(float) @ weight.float().numpy().T.astype(float) + bias.float().numpy()
    assert np.abs(found - exact).max() <= 1e-6 * math.sqrt(K) * max(1, np.abs(exact).max())


WHOLE = [
    ("matvec", 1, 32, 7),
    ("matvec", 5, 96, 33),
    ("matvec", 2, 288, 70),
    ("matmul", 6, 32, 64),
    ("matmul", 31, 160, 70),
]


def whole(out: int, into: int, bits: int, group: int, offsets: bool) -> Quantized:
    """Random integers with the smallest and largest, and random scales."""
    low, high = (-128, 128) if bits == 8 else (0, 256)
    width = into if bits == 8 else into // 2
    values = RANDOM.integers(low, high, (out, width)).astype(np.int8 if bits == 8 else np.uint8)
    values[0] = low
    scales = normal(out, into // group)
    return Quantized(
        Tensor(values, device="CPU").realize(),
        tensor(scales),
        tensor(normal(out, into // group)) if offsets else None,
    )


@pytest.mark.few(3)
@pytest.mark.parametrize(("bits", "group"), [(8, 32), (8, 16), (4, 32)])
@pytest.mark.parametrize("offsets", [False, True])
@pytest.mark.parametrize(("kernel", "M", "K", "N"), WHOLE)
def test_product_of_whole_numbers(
    kernel: str, M: int, K: int, N: int, offsets: bool, bits: int, group: int
) -> None:
    x, weight, bias = normal(M, K), whole(N, K, bits, group, offsets), tensor(normal(N))
    x[0, :32], x[-1] = 0, x[-1] * 1e6  # a group of zeros, and no scale of all rows
    full = weight.full("float32").numpy().astype(float)
    found = products.linear(kernel, tensor(x), weight, bias).numpy()
    exact = x.astype(float) @ full.T + bias.numpy()
    # In `matvec` x has 16 bits for each group, the largest number all of them.
    steps = np.abs(x).reshape(M, -1, group).max(-1).repeat(group, 1) / 65534
    off = np.sqrt((steps**2) @ (full**2).T) * 4 if kernel == "matvec" else 0
    sums = np.abs(x) @ np.abs(full).T
    assert (np.abs(found - exact) <= off + 1e-6 * sums + 1e-5).all()


def test_what_whole_numbers_are_in_full() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(8, 32)[:, :16]
    weight = Quantized(
        Tensor(values, device="CPU"), tensor(np.full((8, 1), 2.0)), tensor(np.ones((8, 1)))
    )
    halves = np.concatenate([values & 15, values >> 4], axis=1)
    assert weight.shape == (8, 32)
    assert weight.group == 32
    assert np.array_equal(weight.full("float32").numpy(), 2.0 * halves + 1)


def test_numbers_of_8_bits_are_the_nearest() -> None:
    weight = normal(33, 96)
    weight[0, :32] = 0
    full = quantize(tensor(weight)).full("float32").numpy()
    groups = np.abs(weight).reshape(33, -1, 32).max(-1, keepdims=True)
    assert (np.abs(full - weight).reshape(33, -1, 32) <= groups / 254 * 1.001).all()


ACTIVATIONS = {
    "relu": lambda x: max(x, 0.0),
    "gelu": lambda x: x * 0.5 * math.erfc(-x * math.sqrt(0.5)),
    "gelu_tanh": lambda x: (
        x * 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    ),
    "silu": lambda x: x / (1 + math.exp(-x)) if x > -700 else 0.0,
    "quick_gelu": lambda x: x / (1 + math.exp(-1.702 * x)) if x > -400 else 0.0,
    "tanh": math.tanh,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)) if x > -700 else 0.0,
}


@pytest.mark.few(4)
@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("kernel", ["matvec", "matmul"])
def test_activation(kernel: str, act: str) -> None:
    values = np.concatenate([np.linspace(-9, 9, 181), [-1e4, -120, -88, 88, 120, 1e4]])
    x = np.tile(values[:, None], 2).astype(np.float32)  # [187, 2]
    weight = np.zeros((64, 2), np.float32)
    weight[:, 0] = 1
    found = products.linear(kernel, tensor(x), tensor(weight), None, Epilogue(act)).numpy()
    exact = np.array([ACTIVATIONS[act](float(v)) for v in x[:, 0]])
    assert np.abs(found - exact[:, None]).max(where=np.abs(x[:, :1]) < 200, initial=0) < 4e-6
    assert np.allclose(found, exact[:, None], rtol=1e-6, atol=4e-6)


@pytest.mark.few(3)
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(
    ("kernel", "M", "N"), [("matvec", 1, 7), ("matvec", 4, 70), ("matmul", 13, 70)]
)
def test_gates_and_sums(kernel: str, M: int, N: int, dtype: str) -> None:
    x, weight, bias = normal(M, 33), tensor(normal(N, 33), dtype), tensor(normal(N), dtype)
    times, plus = normal(M, N), normal(M, N)
    plain = x.astype(float) @ weight.float().numpy().T.astype(float) + bias.float().numpy()
    for act, by, more in itertools.product((None, "relu"), (None, times), (None, plus)):
        epilogue = Epilogue(
            act, *(each if each is None else tensor(each) for each in (by, more))
        )
        found = products.linear(kernel, tensor(x), weight, bias, epilogue).numpy()
        exact = np.maximum(plain, 0) if act else plain
        exact = exact * (1 if by is None else by) + (0 if more is None else more)
        assert np.abs(found - exact).max() <= 1e-5 * np.abs(exact).max()


@pytest.mark.parametrize("kernel", ["matvec", "matmul"])
def test_what_is_no_number_stays_none(kernel: str) -> None:
    x = normal(9, 16)
    x[3, 5] = np.nan
    weight = tensor(normal(64, 16))
    for act in (None, *ACTIVATIONS):
        found = products.linear(kernel, tensor(x), weight, None, Epilogue(act)).numpy()
        assert np.isnan(found[3]).all() or act == "relu"
        assert np.isfinite(np.delete(found, 3, 0)).all()


# -- norms --


@pytest.mark.few(3)
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("rms", [False, True])
@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize(("M", "D"), [(1, 3), (5, 64), (77, 130)])
def test_norm(M: int, D: int, rms: bool, scale: bool, dtype: str) -> None:
    x, eps = normal(M, D) * 3 + 1, 0.03
    gain, bias = (tensor(normal(D), dtype) if scale else None for _ in range(2))
    found = norms.norm(tensor(x), rms, eps, gain, bias).numpy()
    centred = x if rms else x - x.mean(1, keepdims=True)
    exact = centred / np.sqrt((centred**2).mean(1, keepdims=True) + eps)
    if gain is not None and bias is not None:
        exact = exact * gain.float().numpy() + bias.float().numpy()
    assert np.abs(found - exact).max() < 1e-5


# -- lookups --


@pytest.mark.few(3)
@pytest.mark.parametrize("dtype", [*HALVES, "8 bits", "4 bits"])
@pytest.mark.parametrize(("rows", "D"), [(1, 32), (50, 96), (3000, 32)])
def test_embed(rows: int, D: int, dtype: str) -> None:
    tokens = RANDOM.integers(0, rows, (3, 7)).astype(np.int32)
    table: Any
    if dtype in HALVES:
        table = tensor(normal(rows, D), dtype)
        full = table.float().numpy()
    else:
        table = whole(rows, D, int(dtype[0]), 32, True)
        full = table.full("float32").numpy()
    found = tables.embed(Tensor(tokens, device="CPU"), table).numpy()
    # A product and a sum are rounded at once, or one by one.
    assert np.allclose(
        found, full[tokens], rtol=0, atol=0 if dtype in HALVES else 1e-5 * np.abs(full).max()
    )


def test_a_token_that_a_table_has_not_is_no_other_memory() -> None:
    tokens = Tensor(np.array([[-1, 2, 7, 5]], np.int32), device="CPU")
    table = normal(7, 9)
    found = tables.embed(tokens, tensor(table)).numpy()[0]
    assert np.array_equal(found, np.stack([table[0] * 0, table[2], table[0] * 0, table[5]]))


@pytest.mark.parametrize(("rows", "D"), [(1, 7), (50, 19), (3000, 32)])
def test_the_gradient_of_a_table(rows: int, D: int) -> None:
    tokens = RANDOM.integers(0, rows, (3, 70)).astype(np.int32)
    table, by = tensor(normal(rows, D)), normal(3, 70, D)
    (tables.embed(Tensor(tokens, device="CPU"), table) * tensor(by)).sum().backward()
    exact = np.zeros((rows, D))
    np.add.at(exact, tokens, by)
    assert table.grad is not None
    assert np.abs(table.grad.numpy() - exact).max() < 1e-4


# -- attention --


MASKS = ("causal", "causal & within(9)", "within(5)", "chunk(8)", "causal | prefix(6)")
MASKS += ("causal & (within(4) | prefix(3))", "causal & not within(20)")


def visible(mask: str, i: Array, j: Array) -> Array:
    """[…, T, S]: whether the query at position i [T] of its row sees the key at j [S]."""
    found: Array = masks.visible(
        masks.parse(mask), i[..., None], j[..., None, :], {}, lambda: np.array(True)
    )
    return found & (i == i)[..., None]


def attended(
    q: Array,
    k: Array,
    v: Array,
    scale: float,
    seen: Array,
    cap: float | None = None,
    sink: Array | None = None,
) -> Array:
    """[B, T, H, w], computed head by head; `seen` is [B, T, S] or broadcasts to it."""
    group = q.shape[2] // k.shape[2]
    k, v = (np.repeat(each.astype(float), group, 2) for each in (k, v))
    scores = np.einsum("bthd,bshd->bhts", q, k) * scale
    scores = scores if cap is None else cap * np.tanh(scores / cap)
    shares = np.where(seen[:, None], np.exp(scores), 0)
    total = shares.sum(-1, keepdims=True)
    total = total if sink is None else total + np.exp(sink)[:, None, None]
    return np.einsum("bhts,bshd->bthd", shares / np.where(total > 0, total, 1), v)


@pytest.mark.few(4)
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kernel", ["attend", "attend_few"])
@pytest.mark.parametrize("how", ["all", "padded", *MASKS])
@pytest.mark.parametrize("capped", [False, True])
@pytest.mark.parametrize(
    ("B", "T", "H", "K", "size", "value"),
    [(2, 1, 4, 2, 16, 16), (1, 7, 4, 1, 64, 64), (2, 50, 6, 3, 20, 44), (1, 130, 2, 2, 33, 8)],
)
def test_attention(
    B: int,
    T: int,
    H: int,
    K: int,
    size: int,
    value: int,
    how: str,
    kernel: str,
    dtype: str,
    capped: bool,
) -> None:
    q, k, v = normal(B, T, H, size), normal(B, T, K, size), normal(B, T, K, value)
    keys, values = tensor(k, dtype), tensor(v, dtype)
    lengths = RANDOM.integers(1, T + 1, B).astype(np.int32) if how == "padded" else None
    mask = None if how in ("all", "padded") else how
    seen = (
        np.ones((B, T, T), bool) if lengths is None else np.arange(T) < lengths[:, None, None]
    )
    if mask is not None:
        seen = seen & visible(mask, np.arange(T), np.arange(T))
    cap, sink = (2.0, normal(H)) if capped else (None, None)
    found = attention.attend(
        kernel,
        tensor(q),
        keys,
        values,
        0.3,
        masks.parse(mask),
        None if lengths is None else Tensor(lengths, device="CPU"),
        softcap=cap,
        sink=None if sink is None else tensor(sink),
    )
    exact = attended(q, keys.float().numpy(), values.float().numpy(), 0.3, seen, cap, sink)
    step = {"float32": 2e-5, "bfloat16": 2.0**-8, "float16": 2.0**-11}[
        dtype
    ]  # of what comes out
    assert np.abs(found.float().numpy() - exact).max() < step * max(1, np.abs(exact).max())


@pytest.mark.few(3)
@pytest.mark.parametrize("kernel", ["attend", "attend_few"])
@pytest.mark.parametrize("past", [0, 5, 40])
@pytest.mark.parametrize(
    ("ring", "mask"),
    [*((0, mask) for mask in MASKS), (24, "causal & within(9)"), (24, "causal & chunk(9)")],
)
@pytest.mark.parametrize("n", [1, 3, 8])
def test_a_step_of_attention(n: int, ring: int, mask: str, past: int, kernel: str) -> None:
    B, H, K, size, total = 2, 4, 2, 16, past + n
    q, k, v = normal(B, n, H, size), normal(B, total, K, size), normal(B, total, K, size)
    starts = np.array([0, min(3, past)], np.int32)
    room = ring or 64
    kept = np.zeros((2, B, room, K, size), np.float32)
    for column in range(past):
        kept[:, :, column % room] = k[:, column], v[:, column]
    begin = Tensor(np.array([past], np.int32), device="CPU").realize()
    keys, values = (
        attention.append(tensor(old), tensor(new[:, past:]), begin, ring)
        for old, new in zip(kept, (k, v), strict=True)
    )
    there = Tensor(starts, device="CPU").realize()
    found = attention.attend(
        kernel, tensor(q), keys, values, 0.3, masks.parse(mask), None, begin, there, ring
    )
    column = np.arange(total) - starts[:, None]  # of a row
    seen = visible(mask, column[:, past:], column) & (column >= 0)[:, None]
    exact = attended(q, k, v, 0.3, seen)
    apart = np.abs(found.numpy() - exact)[column[:, past:] >= 0]  # without padding
    assert apart.max() < 2e-5


# -- whole models, and what runs them --


def gpt(**settings: Any) -> Model:
    sizes = {"vocab": 101, "context": 70, "D": 48, "heads": 3, "depth": 2}
    return archdsl.compile("gpt.arch", device="CPU", **sizes, **settings)


@pytest.mark.long
def test_tinygrads_kernels_give_the_same() -> None:
    ids = RANDOM.integers(0, 101, (3, 61))
    ours, plain = (
        gpt(kernels=kernels)(tokens=ids)["logits"] for kernels in ("best", "tinygrad")
    )
    scale = float(plain.abs().max().numpy())
    assert np.abs(ours.numpy() - plain.numpy()).max() < 1e-5 * scale


@pytest.mark.long
def test_a_model_of_8_bits_is_near_its_own() -> None:
    ids = RANDOM.integers(0, 101, (2, 40))
    full, ours, plain = (
        archdsl.compile(
            "gpt2.arch", device="CPU", vocab=101, D=64, heads=2, depth=1, **settings
        )
        for settings in (
            {},
            {"quantize": "int8"},
            {"quantize": "int8", "kernels": "tinygrad"},
        )
    )
    exact, near, same = (model(tokens=ids)["logits"].numpy() for model in (full, ours, plain))
    scale = np.abs(exact).max()
    assert 1e-4 * scale < np.abs(near - exact).max() < 0.03 * scale  # measured: 0.008
    assert np.abs(near - same).max() < 1e-5 * scale
    decoder = ours.decoder(2)
    stepped = [decoder.feed(ids[:, i : i + 1])[:, 0] for i in range(40)]
    # A step has the numbers that it multiplies with weights in 16 bits.
    assert np.abs(np.stack(stepped, 1) - near).max() < 5e-5 * scale


def test_other_kernels_and_bits_are_refused() -> None:
    with pytest.raises(ArchError, match="kernels cannot be fastest"):
        gpt(kernels="fastest")
    with pytest.raises(ArchError, match="weights cannot be int4"):
        gpt(quantize="int4")


def test_what_a_limit_is_measured_by() -> None:
    numbers = np.arange(3 * 2**18, dtype=np.float32) % 7  # 3 MB
    assert np.array_equal(roofline.memory_read(numbers)(), numbers.reshape(3, -1).sum(1))
    # 10 chains of a vector go to where x is 0.999 x + 0.001.
    lanes = roofline.multiply_add(2**22)() / 10
    assert np.allclose(lanes, lanes.round(), atol=0.01)
    assert lanes.min() >= 4


PROCESSORS = {
    "AVX-512": ["--target=x86_64-none-unknown-elf", "-march=skylake-avx512"],
    "NEON": ["--target=aarch64-none-unknown-elf", "-mcpu=neoverse-n1"],
}


@pytest.mark.long
@pytest.mark.parametrize("dtype", [*HALVES, "8 bits", "4 bits"])
def test_every_kernel_compiles_for_other_processors(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[str] = []

    def noted(name: str, constants: Any) -> str:
        texts.append(source(name, constants))
        return texts[-1]

    monkeypatch.setattr("archdsl.backend.kernels.launch.source", noted)
    half = dtype if dtype in HALVES else "float32"
    weights: list[Any] = [tensor(normal(64, 64), dtype)] if dtype in HALVES else []
    for group in () if weights else (32, 16)[: int(dtype[0]) // 4]:
        weights.append(whole(64, 64, int(dtype[0]), group, True))
    heads = tensor(normal(1, 8, 2, 32), half)
    begin = Tensor(np.array([0], np.int32), device="CPU")
    # An activation knows nothing of what a weight is stored in.
    acts = (None, *ACTIVATIONS) if dtype == "float32" else (None, "gelu")
    for weight, act in itertools.product(weights, acts):
        for kernel in ("matvec", "matmul"):
            epilogue = Epilogue(act, tensor(normal(8, 64)), tensor(normal(8, 64)))
            products.linear(kernel, tensor(normal(8, 64)), weight, None, epilogue)
    products.transpose(tensor(normal(8, 64)))
    tables.embed(begin, weights[0])
    mask = masks.parse("causal & (within(3) | prefix(2))")
    for kernel in ("attend", "attend_few"):
        attention.attend(kernel, heads, heads, heads, 0.5, mask, None, begin, None, 4)
        trained = attention.attend(kernel, heads, heads, heads, 0.5, mask, trains=True)
        trained.sum().backward()
    attention.append(heads, heads, begin, 4)
    taken, rows = experts.gather_rows(tensor(normal(8, 64)), tensor(normal(8, 4)), begin)
    experts.scatter_rows(None, taken, tensor(normal(8, 4)), begin, rows)
    for kernel in ("matvec", "matmul"):
        products.linear(kernel, taken, weights[0], None, rows=rows)
    norms.norm(tensor(normal(8, 64)), False, 1e-5, None, None).sum().backward()
    for act in ACTIVATIONS if dtype == "float32" else ():
        activations.activation(act, tensor(normal(8, 64))).sum().backward()
    texts += [
        source(name, {}) for name in ("worker", "graph_runner", "roofline", "round_bfloat16")
    ]
    for name, target in PROCESSORS.items():
        for text in texts:
            flags = ["-c", "-x", "c", "-O2", "-fPIC", "-ffreestanding", "-nostdlib", "-Werror"]
            command = [ensure_compiler().path, *flags, *target, "-", "-o", os.devnull]
            ran = subprocess.run(command, input=text, text=True, capture_output=True)
            assert ran.returncode == 0, f"{name}: {ran.stderr}"


def test_other_devices_have_none() -> None:
    assert kernels_for("NULL") is None
    assert kernels_for("CPU:1") is None


def test_captured_models_run_in_several_threads_at_once() -> None:
    models = [gpt(seed=seed) for seed in range(3)]
    ids = RANDOM.integers(0, 101, (1, 64))
    alone = [model(tokens=ids)["logits"].numpy() for model in models]

    def repeated(number: int) -> Array:
        (forward,) = models[number].executable._captures
        for _ in range(30):
            out = forward.capture(**forward.inputs)["logits"]
        return copy_out(out)

    with ThreadPoolExecutor(len(models)) as pool:
        together = list(pool.map(repeated, range(len(models))))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


WORKERS = """
import archdsl
from archdsl.backend.kernels import thread_pool
from archdsl.backend.tinygrad_seam import cpu_words, memory
from tinygrad.helpers import NUM_CPU_THREADS
model = archdsl.compile("gpt.arch", device="CPU", vocab=64, context=64, D=64, heads=2, depth=1)
model(tokens=[[1, 2, 3]]), model(tokens=[[1, 2, 3]])
words = cpu_words(memory(thread_pool.tensor()))
assert words[0] == NUM_CPU_THREADS.value - 1, list(words[:4])
"""


@pytest.mark.long
def test_the_workers_outlive_a_first_capture() -> None:
    subprocess.run([sys.executable, "-c", WORKERS], check=True, timeout=100)


THREADS = """
import archdsl
model = archdsl.compile("gpt.arch", device="CPU", vocab=64, context=64, D=96, heads=3, depth=2)
for length in (1, 64):
    print(model(tokens=[list(range(length))])["logits"].numpy().tobytes().hex())
"""


@pytest.mark.long
def test_any_number_of_threads_computes_the_same() -> None:
    def computed(threads: int) -> str:
        command = [sys.executable, "-c", THREADS]
        environment = os.environ | {"NUM_CPU_THREADS": str(threads)}
        ran = subprocess.run(
            command, env=environment, check=True, timeout=200, capture_output=True, text=True
        )
        return ran.stdout

    alone = computed(1)
    assert alone
    assert computed(7) == alone


FORKED = """
import os, archdsl
model = archdsl.compile("gpt.arch", device="CPU", vocab=64, context=64, D=64, heads=2, depth=1)
given = [list(range(64))]
before = model(tokens=given)["logits"].tolist()
if (child := os.fork()) == 0:
    os._exit(0 if model(tokens=given)["logits"].tolist() == before else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


def test_a_forked_process_goes_on_alone() -> None:
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=100)
