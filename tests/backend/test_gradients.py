"""The gradients of the CPU's kernels against PyTorch's in float64; no size fits a tile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tinygrad import Tensor

import archdsl
from archdsl.backend.kernels import activations, attention, norms, products
from archdsl.graph import masks
from tests.backend.on_cpu import Array, ready, tensor
from tests.suite import some

torch = pytest.mark.reference("torch")

# Of a gradient's largest number, or of 1. What comes out in a half dtype is rounded, and so is
# the gradient that comes back.
TOLERANCE = {"float32": 1e-5, "bfloat16": 2.0**-7, "float16": 2.0**-10}


@pytest.fixture(autouse=True)
def cpu() -> None:
    ready()


def exactly(x: Tensor) -> Any:
    """The same numbers as a PyTorch tensor with a gradient."""
    import torch

    return torch.from_numpy(x.float().numpy().astype(float)).requires_grad_()


def agree(
    found: Tensor,
    ours: list[Tensor],
    right: Any,
    theirs: list[Any],
    by: Array,
    tolerance: float,
) -> None:
    """The gradients of sum(result * by)."""
    import torch

    (found * Tensor(by, device="CPU")).sum().backward()
    (right * torch.from_numpy(by.astype(float))).sum().backward()
    gradients: Any = [each.grad for each in ours]
    Tensor.realize(*gradients)
    for gradient, exact in zip(gradients, theirs, strict=True):
        expected = exact.grad.numpy()
        assert gradient.shape == expected.shape
        distance = np.abs(gradient.float().numpy() - expected).max()
        assert distance <= tolerance * max(1, np.abs(expected).max())


# -- attention --


ATTENTIONS = [
    (sizes, how)
    for sizes in (
        (2, 1, 1, 4, 2, 16, 16),
        (1, 7, 7, 4, 1, 64, 64),
        (2, 50, 50, 6, 3, 20, 44),
        (1, 151, 151, 2, 2, 33, 8),
        (2, 9, 131, 4, 2, 40, 24),
        (1, 100, 5, 2, 1, 7, 9),
    )
    for how in ("all", "padded", "causal", "window")
    if sizes[1] == sizes[2] or how in ("all", "padded")
]


@torch
@pytest.mark.parametrize(
    ("kernel", "dtype"),
    [
        ("attend", "float32"),
        ("attend", "bfloat16"),
        ("attend", "float16"),
        ("attend_few", "float32"),
    ],
)
@pytest.mark.few(24)
@pytest.mark.parametrize(("sizes", "how"), ATTENTIONS)
def test_attention(sizes: tuple[int, ...], how: str, kernel: str, dtype: str) -> None:
    import torch

    B, T, S, H, K, size, value = sizes
    causal = how in ("causal", "window")
    random = np.random.default_rng(T * S)
    ours = [
        tensor(random.standard_normal(shape), each)
        for shape, each in (
            ((B, T, H, size), "float32"),
            ((B, S, K, size), dtype),
            ((B, S, K, value), dtype),
        )
    ]
    by = random.standard_normal((B, T, H, value)).astype(np.float32)
    window = 9 if how == "window" else None
    lengths = random.integers(1, S + 1, B).astype(np.int32) if how == "padded" else None
    behind = np.arange(T)[:, None] - np.arange(S)
    seen = np.ones((B, T, S), bool)
    if lengths is not None:
        seen &= np.arange(S) < lengths[:, None, None]
    if causal:
        seen &= (behind >= 0) & (behind < (window or T))

    there = None if lengths is None else Tensor(lengths, device="CPU")
    mask = masks.parse({"causal": "causal", "window": "causal & within(9)"}.get(how))
    found = attention.attend(kernel, *ours, 0.3, mask, there, trains=True)
    theirs = [exactly(each) for each in ours]
    q, k, v = (each.transpose(1, 2) for each in theirs)  # [B, H or K, T or S, …]
    right = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, torch.from_numpy(seen[:, None]), scale=0.3, enable_gqa=True
    )
    agree(found.float(), ours, right.transpose(1, 2), theirs, by, TOLERANCE[dtype])


@torch
@pytest.mark.parametrize("kernel", some(["attend", "attend_few"], "attend"))
@pytest.mark.parametrize("seeing", ["causal & (within(9) | prefix(3))", "within(20)"])
def test_attention_under_a_mask_with_a_cap_and_sinks(seeing: str, kernel: str) -> None:
    import torch

    B, T, H, K, size = 2, 70, 4, 2, 12
    random = np.random.default_rng(3)
    shapes = ((B, T, H, size), (B, T, K, size), (B, T, K, size), (1, H))
    ours = [tensor(random.standard_normal(shape)) for shape in shapes]
    by = random.standard_normal((B, T, H, size)).astype(np.float32)
    mask, i = masks.parse(seeing), np.arange(T)
    q, k, v, sink = ours
    found = attention.attend(kernel, q, k, v, 0.9, mask, softcap=2.0, sink=sink, trains=True)
    seen = masks.visible(mask, i[:, None], i[None], {}, lambda: np.array(True))
    theirs = [exactly(each) for each in ours]
    q, k, v = (each.transpose(1, 2) for each in theirs[:3])
    k, v = (each.repeat_interleave(H // K, 1) for each in (k, v))
    scores = 2 * torch.tanh(q @ k.transpose(2, 3) * (0.9 / 2))
    scores = scores.masked_fill(~torch.from_numpy(seen), -torch.inf)
    sinks = theirs[3].reshape(1, H, 1, 1).expand(B, H, T, 1)
    shares = torch.softmax(torch.cat([scores, sinks], -1), -1)[..., :-1]
    agree(found, ours, (shares @ v).transpose(1, 2), theirs, by, TOLERANCE["float32"])


# -- whole models --

MODELS = {
    "causal": """
        input tokens: int[T <= 70] < 101
        z = tokens -> embed(101, 48) -> self_attention_block(3, causal) * 2 -> norm
        output logits: float[T, 101] = z -> linear(101)
        loss next_token(logits, tokens)
    """,
    "padded": """
        input tokens: int[T <= 70] < 101 pad 0
        z = tokens -> embed(101, 48) -> self_attention_block(4) * 2 -> norm
        output logits: float[5] = z -> mean(T) -> linear(5)
        loss cross_entropy(logits, label: int < 5)
    """,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_tinygrads_kernels_give_the_same(name: str) -> None:
    random = np.random.default_rng(0)
    given: dict[str, Any] = {"tokens": random.integers(1, 101, (3, 61))}
    if name == "padded":
        given["tokens"][1, 20:] = 0
        given["label"] = [0, 4, 2]
    gradients = []
    for kernels in ("best", "tinygrad"):
        spec = archdsl.parse(f'use "blocks.arch" model M() {{{MODELS[name]}}}')
        model = archdsl.compile(spec, device="CPU", kernels=kernels)
        loss = model.loss(**given)
        loss.backward()
        found: Any = {path: weight.grad for path, weight in model.parameters.items()}
        Tensor.realize(loss, *found.values())
        gradients.append({path: gradient.numpy() for path, gradient in found.items()})
    ours, plain = gradients
    largest = max(np.abs(each).max() for each in plain.values())
    for path, right in plain.items():
        distance = np.abs(ours[path] - right).max()
        # A key's bias moves all scores of a query alike: its gradient is rounding alone.
        assert distance <= 1e-5 * np.abs(right).max() + 1e-7 * largest, path


# -- products --


@pytest.mark.few(6)
@torch
@pytest.mark.parametrize("kernel", ["matvec", "matmul"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("M", "K", "N"), [(6, 8, 65), (7, 65, 70), (64, 32, 64), (133, 130, 71), (70, 3, 150)]
)
def test_product(M: int, K: int, N: int, kernel: str, dtype: str) -> None:
    random = np.random.default_rng(M)
    x = tensor(random.standard_normal((M, K)))
    weight, bias = (tensor(random.standard_normal(sizes), dtype) for sizes in ((N, K), (N,)))
    by = random.standard_normal((M, N)).astype(np.float32)
    theirs = [exactly(each) for each in (x, weight, bias)]
    found = products.linear(kernel, x, weight, bias)
    right = theirs[0] @ theirs[1].T + theirs[2]
    agree(found, [x, weight, bias], right, theirs, by, TOLERANCE[dtype])


@torch
@pytest.mark.parametrize(("M", "K", "N"), [(9, 6, 64), (70, 65, 71)])
def test_batched_product(M: int, K: int, N: int) -> None:
    random = np.random.default_rng(M)
    a, b = (tensor(random.standard_normal((2, 3, *sizes))) for sizes in ((M, K), (K, N)))
    by = random.standard_normal((2, 3, M, N)).astype(np.float32)
    theirs = [exactly(each) for each in (a, b)]
    agree(products.matmul(a, b), [a, b], theirs[0] @ theirs[1], theirs, by, 1e-5)


@pytest.mark.parametrize(("B", "M", "N"), [(1, 1, 1), (2, 33, 70), (1, 16, 64), (3, 100, 131)])
def test_transposed(B: int, M: int, N: int) -> None:
    x = np.random.default_rng(N).standard_normal((B, M, N)).astype(np.float32)
    over, sums = products.transpose(tensor(x))
    assert np.array_equal(over.numpy(), x.transpose(0, 2, 1))
    assert np.allclose(sums.numpy(), x.astype(float).sum(1), atol=1e-5)


# -- norms --


@torch
@pytest.mark.few(12)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rms", [False, True])
@pytest.mark.parametrize("trained", ["", "gain", "gain bias"])
@pytest.mark.parametrize(("B", "T", "D"), [(1, 1, 3), (1, 5, 64), (7, 11, 130), (3, 100, 47)])
def test_norm(B: int, T: int, D: int, trained: str, rms: bool, dtype: str) -> None:
    random = np.random.default_rng(D)
    x = tensor(random.standard_normal((B, T, D)) * 3 + 1)
    weights = [tensor(random.standard_normal(D), dtype) for _ in trained.split()]
    gain, bias = [*weights, None, None][:2]
    by = random.standard_normal((B, T, D)).astype(np.float32)
    found = norms.norm(x, rms, 0.03, gain, bias)

    theirs = [exactly(each) for each in (x, *weights)]
    centred = theirs[0] if rms else theirs[0] - theirs[0].mean(-1, keepdim=True)
    right = centred / (centred.square().mean(-1, keepdim=True) + 0.03).sqrt()
    right = right * theirs[1] if gain is not None else right
    right = right + theirs[2] if bias is not None else right
    agree(found, [x, *weights], right, theirs, by, TOLERANCE[dtype])


# -- activations --

TORCH = {
    "relu": lambda f, x: f.relu(x),
    "gelu": lambda f, x: f.gelu(x),
    "gelu_tanh": lambda f, x: f.gelu(x, approximate="tanh"),
    "silu": lambda f, x: f.silu(x),
    "quick_gelu": lambda f, x: x * f.sigmoid(1.702 * x),
    "tanh": lambda f, x: f.tanh(x),
    "sigmoid": lambda f, x: f.sigmoid(x),
}


@torch
@pytest.mark.parametrize("act", TORCH)
def test_activation(act: str) -> None:
    import torch

    values = [
        *np.linspace(-9, 9, 180),
        *np.linspace(0.01, 0.5, 9),
        -1e4,
        -120,
        -88,
        88,
        120,
        1e4,
    ]
    x = tensor(np.tile(np.array(values), 101).reshape(3, -1))
    by = np.random.default_rng(0).standard_normal(x.shape).astype(np.float32)
    theirs = exactly(x)
    found = activations.activation(act, x)
    agree(
        found, [x], TORCH[act](torch.nn.functional, theirs), [theirs], by, TOLERANCE["float32"]
    )
    assert np.allclose(
        found.numpy(), TORCH[act](torch.nn.functional, theirs).detach().numpy(), atol=4e-6
    )


def test_activation_of_no_number() -> None:
    x = tensor(np.array([np.nan, 1.0]))
    for act in TORCH:
        found = activations.activation(act, x).numpy()
        assert np.isnan(found[0])
        assert np.isfinite(found[1])


BITS = """
import hashlib, numpy, archdsl
sizes = {"vocab": 211, "context": 64, "D": 48, "heads": 2, "depth": 1, "device": "CPU"}
model = archdsl.compile("gpt.arch", **sizes)
loss = model.loss(tokens=numpy.random.default_rng(0).integers(0, 211, (3, 37)))
loss.backward()
found = [loss.numpy(), *(each.grad.numpy() for each in model.parameters.values())]
print(hashlib.sha256(b"".join(each.tobytes() for each in found)).hexdigest())
"""


@pytest.mark.slow
def test_gradients_do_not_depend_on_the_number_of_threads() -> None:
    root = str(Path(archdsl.__file__).parents[1])

    def bits(threads: int) -> str:
        environment = {**os.environ, "NUM_CPU_THREADS": str(threads), "PYTHONPATH": root}
        command = [sys.executable, "-c", BITS]
        done = subprocess.run(command, env=environment, check=True, capture_output=True)
        return done.stdout.decode()

    assert bits(1) == bits(3) == bits(8)
