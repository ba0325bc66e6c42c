"""Operators of attention, positions and features against their formulas, written in NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import archdsl
from archdsl.backend.positions import slopes
from archdsl.model import Model
from tests.reference.agreement import apart

Array = NDArray[Any]
RANDOM = np.random.default_rng(0)


def normal(*shape: int) -> Array:
    return RANDOM.standard_normal(shape).astype(np.float32)


def model(lines: str, dtype: str = "float32") -> Model:
    """A model of these lines, with the output `y`."""
    return archdsl.compile(archdsl.parse(f"model M() {{\n{lines}\n}}"), dtype=dtype)


def test_the_last_position_is_no_padding() -> None:
    tokens = np.array([[3, 4, 5, 1], [2, 7, 0, 0], [2, 0, 0, 0]])
    found = model("""
        input tokens: int[T <= 9] < 11 pad 0
        x = tokens -> embed(11, 3)
        output whole: float[T, 3] = x
        output last: float[3] = x -> at_end
        output other: float[3] = x -> at_end(tokens, 1)
    """)(tokens=tokens)
    whole = found["whole"].numpy()
    assert (found["last"].numpy() == whole[[0, 1, 2], [3, 1, 0]]).all()
    assert (found["other"].numpy() == whole[[0, 1, 2], [2, 1, 0]]).all()


def filled(found: Model, weights: dict[str, Array], folder: Path) -> Model:
    np.savez(folder / "weights.npz", **weights)
    found.load(folder / "weights.npz")
    return found


# -- attention --


def attended(q: Array, k: Array, v: Array, seen: Array, bias: Any = 0.0) -> Array:
    """[T, H, w] of one example, each head by itself."""
    out = np.zeros((*q.shape[:2], v.shape[2]))
    for head in range(q.shape[1]):
        shared = head // (q.shape[1] // k.shape[1])
        scores = q[:, head] @ k[:, shared].T / np.sqrt(q.shape[2])
        scores = scores + (bias if np.isscalar(bias) else bias[head])
        shares = np.where(seen, np.exp(scores - scores.max()), 0)
        out[:, head] = shares / shares.sum(1, keepdims=True) @ v[:, shared]
    return out


@pytest.mark.parametrize(
    ("settings", "window"), [("causal", None), ("causal, 3", 3), ("causal, 1", 1)]
)
def test_attend_to_the_past(settings: str, window: int | None) -> None:
    q, k, v = normal(2, 7, 4, 6), normal(2, 7, 2, 6), normal(2, 7, 2, 5)
    found = model(f"""
        input q: float[T <= 9, 4, 6]
        input k: float[T, 2, 6]
        input v: float[T, 2, 5]
        output y: float[T, 4, 5] = attend(q, k, v, {settings})
    """)(q=q, k=k, v=v)["y"]
    behind = np.arange(7)[:, None] - np.arange(7)
    seen = (behind >= 0) & (behind < (window or 7))
    right = [attended(*example, seen) for example in zip(q, k, v, strict=True)]
    assert apart(found, right) < 1e-6


def test_attend_to_a_padded_memory_with_a_bias() -> None:
    q, k, v, bias = (
        normal(2, 5, 3, 4),
        normal(2, 6, 3, 4),
        normal(2, 6, 3, 4),
        normal(2, 3, 5, 6),
    )
    tokens = np.array([[1, 2, 3, 0, 0, 0], [1, 2, 3, 4, 5, 6]])
    found = model("""
        input q: float[T <= 9, 3, 4]
        input tokens: int[S <= 8] < 9 pad 0
        input k: float[S, 3, 4]
        input v: float[S, 3, 4]
        input b: float[3, T, S]
        output y: float[T, 3, 4] = attend(q, k, v, bias = b, scale = 0.5)
    """)(q=q, k=k, v=v, b=bias, tokens=tokens)["y"]
    right = [
        attended(*each, row != 0, extra)
        for *each, row, extra in zip(q, k, v, tokens, bias, strict=True)
    ]
    assert apart(found, right) < 1e-6


def test_a_window_over_padding_alone_spoils_nothing() -> None:
    x = normal(1, 8, 2, 4)
    tokens = np.array([[1, 2, 3, 0, 0, 0, 0, 0]])
    found = model("""
        input tokens: int[T <= 8] < 9 pad 0
        input x: float[T, 2, 4]
        h = attend(x, x, x, causal, 2)
        output y: float[T, 2, 4] = attend(h, h, h, causal, 2)
        output all: float[T, 2, 4] = attend(h, h, h)
    """)(x=x, tokens=tokens)
    behind = np.arange(3)[:, None] - np.arange(3)
    seen = (behind >= 0) & (behind < 2)
    h = attended(*[x[0, :3]] * 3, seen)
    assert apart(found["y"].numpy()[0, :3], attended(h, h, h, seen)) < 1e-6
    assert apart(found["all"].numpy()[0, :3], attended(h, h, h, seen | True)) < 1e-6
    assert np.isfinite(found["y"].numpy()).all()


# -- positions --


def rotated(x: Array, rates: Array) -> Array:
    """[T, …, h] by Su et al. 2021, equation 13: pairs as complex numbers, rotated."""
    turned = x[..., ::2] + 1j * x[..., 1::2]
    angles = np.arange(len(x))[:, None] * rates
    turned = turned * np.exp(1j * angles).reshape(len(x), *[1] * (x.ndim - 2), -1)
    return np.stack([turned.real, turned.imag], -1).reshape(x.shape)


def halves(x: Array) -> Array:
    """Reorders pairs into halves."""
    return np.concatenate([x[..., ::2], x[..., 1::2]], -1)


RATES = 10000.0 ** (-np.arange(3) / 3)


@pytest.mark.parametrize("shape", [(11, 2, 6), (11, 6)])
def test_rotary_in_both_layouts(shape: tuple[int, ...]) -> None:
    x = normal(*shape)
    dims = ", ".join(map(str, shape[1:]))
    found = model(f"""
        input x: float[T <= 16, {dims}]
        input z: float[T, {dims}]
        output y: float[T, {dims}] = x -> rotary(pairs)
        output h: float[T, {dims}] = z -> rotary
    """)(x=x[None], z=halves(x)[None])
    right = rotated(x.astype(np.float64), RATES)
    assert apart(found["y"].numpy()[0], right) < 1e-6
    assert apart(found["h"].numpy()[0], halves(right)) < 1e-6


def test_rotary_of_some_features_scaled() -> None:
    x = normal(11, 2, 8)
    found = model("""
        input x: float[T <= 16, 2, 8]
        output y: float[T, 2, 8] = x -> rotary(100, pairs, 6, linear, factor = 4)
    """)(x=x[None])["y"].numpy()[0]
    right = rotated(x[..., :6].astype(np.float64), 100.0 ** (-np.arange(3) / 3) / 4)
    assert apart(found, np.concatenate([right, x[..., 6:]], -1)) < 1e-6


def test_slopes_of_alibi() -> None:
    """Press et al. 2021, section 3, for 8 heads; the authors' program for 12."""
    assert slopes(8).tolist() == [2.0**-i for i in range(1, 9)]
    assert slopes(1).tolist() == [2.0**-8]
    more = [2.0 ** -(i / 2) for i in (1, 3, 5, 7)]
    assert np.allclose(slopes(12), [2.0**-i for i in range(1, 9)] + more, rtol=1e-7)
    assert len(slopes(7)) == 7


def test_alibi() -> None:
    found = model("""
        input x: float[T <= 9, 2]
        output y: float[3, T, T] = x -> alibi(3)
    """)(x=normal(2, 4, 2))["y"].numpy()
    distance = np.arange(4)[:, None] - np.arange(4)
    right = -slopes(3)[:, None, None] * distance
    assert found.shape == (2, 3, 4, 4)
    assert apart(found, np.stack([right, right])) == 0


def test_sines_and_cosines_in_halves() -> None:
    zeros = np.zeros((1, 5, 6), np.float32)
    found = model("""
        input x: float[T <= 9, 6]
        output y: float[T, 6] = x -> posenc(sinusoidal)
        output h: float[T, 6] = x -> posenc(sinusoidal, halves)
    """)(x=zeros)
    angles = np.arange(5)[:, None] * RATES
    assert (
        apart(found["h"].numpy()[0], np.concatenate([np.sin(angles), np.cos(angles)], 1)) < 1e-7
    )
    assert (halves(found["y"].numpy()) == found["h"].numpy()).all()


# -- products --


def test_conv1d(tmp_path: Path) -> None:
    x, kernel, bias = normal(2, 9, 4), normal(6, 4, 3), normal(6)
    padded = np.pad(x, ((0, 0), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, 3, 1)  # [B, T, C, 3]
    right = np.einsum("btck,dck->btd", windows, kernel) + bias
    weights = {"conv1d.weight": kernel, "conv1d.bias": bias}
    varying = model("""
        input x: float[T <= 16, 4]
        output y: float[T, 6] = x -> conv1d(6, 3, padding = 1)
    """)
    assert apart(filled(varying, weights, tmp_path)(x=x)["y"], right) < 1e-6
    strided = model("""
        input x: float[T <= 9, 4]
        output y: float[(T + 1) // 2, 6] = x -> conv1d(6, 3, 2, 1)
    """)
    ours = filled(strided, weights, tmp_path)
    assert apart(ours(x=x)["y"], right[:, ::2]) < 1e-6
    assert apart(ours(x=x[:, :8])["y"], right[:, :8:2]) < 1e-6


@pytest.mark.parametrize(("groups", "dilation"), [(1, 1), (2, 3), (4, 1)])
def test_a_causal_conv1d_in_groups(groups: int, dilation: int, tmp_path: Path) -> None:
    x, kernel, bias = normal(2, 9, 4), normal(8, 4 // groups, 3), normal(8)
    right = np.zeros((2, 9, 8)) + bias
    for place, output in np.ndindex(9, 8):
        first = output // (8 // groups) * (4 // groups)
        for i in range(3):
            at = place - (2 - i) * dilation
            if at >= 0:
                seen = x[:, at, first : first + 4 // groups]
                right[:, place, output] += seen @ kernel[output, :, i]
    weights = {"conv1d.weight": kernel, "conv1d.bias": bias}
    ours = model(f"""
        input x: float[T <= 16, 4]
        output y: float[T, 8] =
          x -> conv1d(8, 3, causal, groups = {groups}, dilation = {dilation})
    """)
    assert apart(filled(ours, weights, tmp_path)(x=x)["y"], right) < 1e-6


@pytest.mark.parametrize(("stride", "padding"), [(2, 1), (3, 0)])
def test_patches_that_overlap(stride: int, padding: int) -> None:
    x = normal(2, 3, 9, 12)
    padded = np.pad(x, ((0, 0), (0, 0), *[(padding, padding)] * 2))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    right = windows[:, :, ::stride, ::stride].transpose(0, 2, 3, 1, 4, 5).reshape(2, -1, 27)
    found = model(f"""
        input x: float[3, 9, 12]
        output y: float[{right.shape[1]}, 27] = x -> patches(3, {stride}, {padding})
    """)(x=x)["y"].numpy()
    assert (found == right).all()


def test_delay() -> None:
    x = normal(2, 4, 3)
    found = model("""
        input x: float[T <= 5, 3]
        output y: float[T, 3] = x -> delay(1)
        output z: float[T, 3] = x -> delay(5)
        weight a: float[1, 3]
        output w: float[T, 3] = concat(a, x, T) -> delay(1, padded = false)
    """)(x=x)
    assert (found["y"].numpy() == np.pad(x[:, :-1], ((0, 0), (1, 0), (0, 0)))).all()
    assert not found["z"].numpy().any()
    assert (found["w"].numpy()[:, 1:] == x[:, :-1]).all()


def test_padding_is_zero_for_a_conv1d(tmp_path: Path) -> None:
    lines = """
        input tokens: int[T <= 9] < 9 pad 0
        output y: float[T, 4] = tokens -> embed(9, 4) -> conv1d(4, 3, padding = 1)
    """
    table, kernel, bias = normal(9, 4), normal(4, 4, 3), normal(4)
    weights = {"embed.weight": table, "conv1d.weight": kernel, "conv1d.bias": bias}
    ours = filled(model(lines), weights, tmp_path)
    alone = ours(tokens=[[3, 5, 7]])["y"].numpy()
    beside = ours(tokens=[[3, 5, 7, 0, 0], [1, 2, 3, 4, 5]])["y"].numpy()
    assert apart(beside[:1, :3], alone) < 1e-6


def test_a_stride_shortens_each_row_of_a_ragged_axis() -> None:
    lines = """
        input tokens: int[5 <= T <= 40] < 9 pad 0
        x = tokens -> embed(9, 4) -> conv1d(4, 3, stride = 2) -> c: conv1d(4, 2, stride = 2)
        output y: float[(T - 1) // 4, 4] = x -> conv1d(4, 3, padding = 1)
        output m: float[4] = y -> mean
    """
    ours = model(lines)
    tokens = RANDOM.integers(1, 9, (2, 23))
    tokens[0, 12:] = 0
    found = ours(tokens=tokens)
    for row, (length, count) in enumerate([(12, 2), (23, 5)]):
        alone = ours(tokens=tokens[row : row + 1, :length])
        assert alone["y"].shape == (1, count, 4)
        assert apart(found["y"].numpy()[row, :count], alone["y"].numpy()[0]) < 1e-6
        assert apart(found["m"].numpy()[row], alone["m"].numpy()[0]) < 1e-6


# -- features --


def test_l2_norm() -> None:
    x = normal(2, 5, 4)
    x[0, 0] = 0
    x[0, 1] *= 1e-4 / np.linalg.norm(x[0, 1])
    found = model("""
        input x: float[T <= 9, 4]
        output y: float[T, 4] = x -> norm(l2, 1e-3)
    """)
    assert not found.weights
    lengths = np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-3)
    assert apart(found(x=x)["y"], x / lengths) < 1e-6


def test_products_of_two_tensors() -> None:
    a, b = normal(2, 3, 4), normal(2, 3, 4)
    found = model("""
        input a: float[T <= 9, 4]
        input b: float[T, 4]
        output y: float[T, 4] = multiply(a, b)
        output gate: float[T, 4] = a -> sigmoid
    """)(a=a, b=b)
    assert apart(found["y"], a * b) == 0
    assert apart(found["gate"], 1 / (1 + np.exp(-a))) < 1e-6


def test_the_first_position_of_a_token() -> None:
    x = normal(4, 5, 3)
    tokens = np.array([[1, 2, 7, 7, 3], [7, 1, 1, 7, 1], [1, 1, 1, 1, 7], [1, 2, 3, 4, 5]])
    found = model("""
        input tokens: int[T <= 9] < 9
        input x: float[T, 3]
        output y: float[3] = x -> at(tokens, 7)
    """)(x=x, tokens=tokens)["y"].numpy()
    assert (found == x[np.arange(4), [2, 0, 4, 0]]).all()


# -- halves --


BIASED = """
    b = x -> relative_bias(2)
    c = x -> alibi(2)
    h = x -> reshape("T (H h) -> T H h", H = 2)
    output y: float[T, 2, 2] = attend(h, h, h, bias = b + c)
"""


@pytest.mark.few(2)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    "chain",
    [
        "rotary",
        "rotary(pairs, size = 2)",
        "norm(l2)",
        "mixture(x -> top(2), linear(4))",
        "conv1d(4, 3, padding = 1)",
        "exp",
        "softplus",
        "sigmoid",
        BIASED,
    ],
)
def test_in_half_numbers_too(chain: str, dtype: str, tmp_path: Path) -> None:
    output = chain if chain is BIASED else f"output y: float[T, 4] = x -> {chain}"
    lines = "input x: float[T <= 9, 4]\n" + output
    x = normal(2, 5, 4)
    full, half = model(lines), model(lines, dtype)
    full.save(tmp_path / "weights.npz")
    half.load(tmp_path / "weights.npz")
    bits = {"float16": 10, "bfloat16": 7}[dtype]
    assert apart(half(x=x)["y"], full(x=x)["y"]) < 4 * 2.0**-bits


# -- positions --


def test_positions_are_numbers() -> None:
    y = model("""
        input x: float[T <= 9, 2]
        output y: int[T] = 30 - (positions(T) * 5 + 4) // 3
    """)(x=normal(2, 7, 2))["y"]
    assert (y.numpy() == 30 - (np.arange(7) * 5 + 4) // 3).all()
    assert y.shape == (2, 7)


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        ("int < 50", ""),
        ("float", "closed = true, start = cosine, layout = halves"),
        ("int", ""),
    ],
)
def test_sinusoids_of_numbers(given: str, settings: str) -> None:
    steps = np.array([0, 3, 49]) if given != "float" else np.array([0.0, 2.5, 49.25])
    found = model(f"""
        input step: {given.replace("int", "int[3]").replace("float", "float[3]")}
        output y: float[3, 6] = step -> sinusoid(6, theta = 500.0, {settings})
    """)(step=steps[None].astype(np.float32 if given == "float" else np.int32))["y"]
    angles = steps[:, None] * 500.0 ** -(np.arange(3) / (2 if settings else 3))
    sine, cosine = np.sin(angles), np.cos(angles)
    right = np.stack([sine, cosine], 2).reshape(3, 6)
    right = np.concatenate([cosine, sine], 1) if settings else right
    assert apart(found, right[None]) < 1e-5


def test_a_table_of_the_distances_in_a_grid(tmp_path: Path) -> None:
    found = archdsl.compile(
        archdsl.parse("""
            use "blocks.arch"
            model M() {
              input x: float[3, 6, 6]
              bias = bias: grid_bias(2, 3, heads = 3)
              output y: float[3, 6, 6] = x + bias
            }
        """)
    )
    table = normal(3 * 5, 3)
    y = filled(found, {"bias.table.weight": table}, tmp_path)(x=np.zeros((1, 3, 6, 6)))["y"]
    row, column = np.divmod(np.arange(6), 3)
    down, across = row[:, None] - row + 1, column[:, None] - column + 2
    assert apart(y, table[down * 5 + across].transpose(2, 0, 1)[None]) == 0
