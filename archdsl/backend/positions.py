"""Position encodings: added to vectors, rotary on heads, or biases of attention scores."""

from __future__ import annotations

from math import log2
from typing import Any

import numpy as np
from tinygrad import Tensor, dtypes

from archdsl.backend.context import TILE, ExecutionContext, OpCall
from archdsl.backend.tensors import shape
from archdsl.graph.types import Size

_LONGEST = 1 << 17  # positions of a table of sines; more are computed when they are needed


def positions(op: OpCall) -> Tensor:
    """[B, n]: the position of each vector in its row; 0 for left padding."""
    context, size = op.context, Size.read(op.attr["size"])
    if "past" not in op.tensors:
        n = size.at(context.sizes)
        all: Tensor = Tensor.arange(n)  # [n]
        if n == 1:  # tinygrad folds it to a constant, which it cannot pass to a kernel
            all = context.constant(("one position",), lambda: np.zeros(1, np.int32))
        return all.reshape(1, -1).expand(context.program.batch, -1)  # [B, n]
    (axis,) = size.vars
    new = Tensor.arange(context.sizes[axis]) + op.tensors["past"]  # [n]
    found: Tensor = (new.reshape(1, -1) - op.tensors["left_pad"].reshape(-1, 1)).maximum(0)
    return found  # [B, n]


def renumber(op: OpCall) -> Tensor:
    times, plus, by, modulo = (op.attr[n] for n in ("times", "plus", "by", "modulo"))
    x = op.x if (times, plus) == (1, 0) else op.x * times + plus  # as x
    x = x if by == 1 else x // by  # as x
    return x if modulo is None else x % modulo  # as x


def prefixed(op: OpCall) -> Tensor:
    """x [B, …, n, …] with the vectors of `prefix` [B, …, k, …] at the positions 0 to k - 1."""
    axis = op.axis(0)
    x, prefix = (op.tensors[name].transpose(1, axis) for name in ("x", "prefix"))
    at, count = op.tensors["at"], shape(prefix)[1]  # [B, n]
    (batch, n), rest = shape(at), shape(x)[2:]
    prefix = prefix.cast(x.dtype).expand(batch, count, *rest)  # [B, k, …]
    one = [1] * len(rest)
    rows = at.clip(0, count - 1).reshape(batch, n, *one).expand(batch, n, *rest)  # [B, n, …]
    inside: Tensor = (at < count).reshape(batch, n, *one)  # [B, n, …]
    return inside.where(prefix.gather(1, rows), x).transpose(1, axis)  # as x


def valid(op: OpCall) -> Tensor:
    """[B, n]: whether each new token is not left padding."""
    new = Tensor.arange(shape(op.x)[1]) + op.tensors["past"]  # [n]
    found: Tensor = new.reshape(1, -1) >= op.tensors["left_pad"].reshape(-1, 1)
    return found


def begin(op: OpCall) -> Tensor:
    """The state [B, …] of earlier steps, or the start [B, …] in the first step."""
    state, start = op.x, op.tensors["start"]
    first = (Tensor.arange(1) + op.tensors["past"]) == 0  # [1]
    first = first.reshape([1] * state.ndim)  # [1, …]
    # Computed before the state is overwritten.
    found: Tensor = first.where(start.cast(state.dtype), state).contiguous().realize()
    return found  # [B, …]


def repeated_positions(n: int, times: int) -> Tensor:
    """[times n]: 0 to n - 1, again and again."""
    positions = Tensor.arange(times * n)
    found: Tensor = positions if times == 1 else positions % n
    return found


def distance_behind(past: Any, n: int, positions: Tensor, times: int = 1) -> Tensor:
    """[times n, S]: the distance from each of the cache positions [S] to each new token; the
    tokens are repeated."""
    new = repeated_positions(n, times) + past  # [times n]
    distance: Tensor = new.reshape(-1, 1) - positions.reshape(1, -1)
    return distance


def end_position(context: ExecutionContext, past: Any, n: int) -> Any:
    """The number of cache positions in use after n new tokens.

    With tensor cores it is rounded up to whole tiles; the mask hides the positions after the
    new tokens, like the future.
    """
    count = past + n
    return -(-count // TILE) * TILE if context.tensor_cores else count


def posenc(op: OpCall) -> Tensor:
    if "at" in op.tensors:
        rows = encodings(op)[op.tensors["at"]]  # [B, n, D]
    else:
        rows = encodings(op)[: shape(op.x)[1]]  # [T, D]
    return op.x + rows.cast(op.x.dtype)  # [B, T, D]


def encodings(op: OpCall) -> Tensor:
    """[context, D]: the encoding of each position; of an image [T, D]."""
    if op.attr["grid"] is not None:
        return _resized(op)  # [T, D]
    if op.attr["kind"] == "learned":
        return op.weights["weight"]  # [context, D]
    context, width, layout = op.attr["context"], shape(op.x)[-1], op.attr["layout"]
    key = ("sinusoidal", context, width, layout)
    return op.context.constant(key, lambda: sinusoids(np.arange(context), width, layout))


def sinusoid(op: OpCall) -> Tensor:
    below, settings = op.types["x"].below, tuple(v for _, v in sorted(op.attr.items()))
    width, layout, theta, closed, start = (
        op.attr[name] for name in ("dim", "layout", "theta", "closed", "start")
    )
    if below is not None and below <= _LONGEST:
        key = ("sinusoid", below, *settings)
        numbers = np.arange(below)
        table = op.context.constant(
            key, lambda: sinusoids(numbers, width, layout, theta, closed, start)
        )
        return table[op.x].cast(op.context.program.dtype)  # [B, …, D]
    rates = op.context.constant(
        ("rates", width, theta, closed),
        lambda: sinusoid_rates(width, theta, closed).astype(np.float32),
    )
    angles = op.x.cast(dtypes.float32).unsqueeze(-1) * rates  # [B, …, D / 2]
    both = (angles.sin(), angles.cos()) if start == "sine" else (angles.cos(), angles.sin())
    found = both[0].stack(both[1], dim=-1 if layout == "pairs" else -2)  # plus an axis of 2
    return found.flatten(-2).cast(op.context.program.dtype)  # [B, …, D]


def _resized(op: OpCall) -> Tensor:
    """[T, D]: the learned encodings of a grid of patches, interpolated to another grid."""
    table, grid, rows = op.weights["weight"], op.attr["grid"], op.attr["rows"]
    before, (_, T, width) = shape(table)[0] - grid**2, shape(op.x)
    columns = (T - before) // rows
    if (rows, columns) == (grid, grid):
        return table  # [T, D]
    down, across = (
        op.context.constant(("cubic", grid, n), lambda n=n: cubic(grid, n))  # type: ignore[misc]
        for n in (rows, columns)
    )  # [rows, grid], [columns, grid]
    patches = table[before:].cast(dtypes.float32).reshape(grid, grid * width)
    patches = (down @ patches).reshape(rows, grid, width)  # [rows, grid, D]
    patches = (across @ patches).reshape(rows * columns, width)  # [rows columns, D]
    return table[:before].cat(patches.cast(table.dtype))  # [T, D]


def cubic(before: int, after: int) -> np.ndarray:
    """[after, before]: the weights of the old points for each new one, by cubic convolution
    with a = -0.75, as in PyTorch. Beyond the edge, the last point is repeated."""
    place = (np.arange(after) + 0.5) * before / after - 0.5  # [after]
    least = np.floor(place).astype(int)  # [after]
    found = np.zeros((after, before))  # [after, before]
    for step in range(-1, 3):
        far = np.abs(place - (least + step))  # [after]
        near = (1.25 * far - 2.25) * far**2 + 1  # [after], where far <= 1
        weight = np.where(far <= 1, near, ((-0.75 * far + 3.75) * far - 6) * far + 3)  # [after]
        np.add.at(found, (np.arange(after), np.clip(least + step, 0, before - 1)), weight)
    return found.astype(np.float32)


def sinusoids(
    numbers: np.ndarray,
    width: int,
    layout: str,
    theta: float = 10000.0,
    closed: bool = False,
    start: str = "sine",
) -> np.ndarray:
    """[n, width]: sin and cos of n numbers, in pairs or halves, with geometric wavelengths from
    2 pi to theta · 2 pi (Vaswani et al. 2017, section 3.5)."""
    angles = numbers[:, None] * sinusoid_rates(width, theta, closed)  # [n, width / 2]
    both = (
        [np.sin(angles), np.cos(angles)]
        if start == "sine"
        else [np.cos(angles), np.sin(angles)]
    )
    found = np.stack(both, 2 if layout == "pairs" else 1)  # plus an axis of 2
    return found.reshape(len(numbers), width).astype(np.float32)


def sinusoid_rates(width: int, theta: float, closed: bool) -> np.ndarray:
    """[width / 2]: the angle for each 1; `closed` ends with 1 / theta."""
    steps = np.arange(width // 2) / (width // 2 - closed)  # [width / 2]
    rates: np.ndarray = theta**-steps  # [width / 2]
    return rates


# -- biases of attention scores --


def alibi(op: OpCall) -> Tensor:
    # Always in float32: bfloat16 cannot distinguish positions above 256.
    batch, T, _ = shape(op.x)
    heads = op.attr["heads"]
    per_head = op.context.constant(("alibi", heads), lambda: slopes(heads))  # [H]
    if "past" in op.tensors:
        bias = per_head.reshape(1, heads, 1, 1) * -_distances(op)  # [1, H, n, C]
        return bias[..., : end_position(op.context, op.tensors["past"], T)]  # [1, H, n, S]
    ahead = Tensor.arange(T).reshape(1, T) - Tensor.arange(T).reshape(T, 1)  # [T, T]
    bias = per_head.reshape(1, heads, 1, 1) * ahead  # [1, H, T, T]
    return bias.expand(batch, heads, T, T)  # [B, H, T, T]


def slopes(heads: int) -> np.ndarray:
    """[heads]: the slope of each head (Press et al. 2021, section 3).

    For a power of two, the geometric sequence with first value and ratio 2 ** (-8 / heads).
    Otherwise the sequence of the largest smaller power of two, followed by every other slope of
    the sequence of twice as many heads, as in the authors' code.
    """
    power = 2 ** int(log2(heads))
    first, doubled = (2.0 ** (-8 * np.arange(1, n + 1) / n) for n in (power, 2 * power))
    return np.concatenate([first, doubled[::2]])[:heads].astype(np.float32)


def relative_bias(op: OpCall) -> Tensor:
    batch, T, _ = shape(op.x)
    bound = op.context.bound(op.axes[0].size)
    heads = op.attr["heads"]
    if "past" in op.tensors:
        near = (bound - 1 - _distances(op)).clip(0, 2 * bound - 2)  # [n, C]
        bias = op.weights["weight"][bucket_table(op, bound)[near]]  # [n, C, H]
        bias = bias.permute(2, 0, 1).unsqueeze(0)  # [1, H, n, C]
        return bias[..., : end_position(op.context, op.tensors["past"], T)]  # [1, H, n, S]
    table = bucket_table(op, bound)[bound - T : bound + T - 1]  # [2 T - 1]
    bias = op.weights["weight"][table].transpose(0, 1).contiguous()  # [H, 2 T - 1]
    # Row i starts at T - 1 - i: rows of length 2 T, read as rows of 2 T - 1, shift by one.
    rows = bias.pad((None, (0, 1))).reshape(heads, 1, 2 * T).expand(heads, T, 2 * T)
    rows = rows.flatten(1)[:, T - 1 : -1]  # [H, T (2 T - 1)]
    rows = rows.reshape(heads, T, 2 * T - 1)[:, :, :T]  # [H, T, T]
    return rows.unsqueeze(0).expand(batch, heads, T, T)  # [B, H, T, T]


def _distances(op: OpCall) -> Tensor:
    """[n, C]: the distance from each cache position to each new token."""
    positions = Tensor.arange(op.types["cache_positions"].axes[0].size.at(op.context.sizes))
    return distance_behind(op.tensors["past"], shape(op.x)[1], positions)


def bucket_table(op: OpCall, bound: int) -> Tensor:
    """[2 bound - 1]: the bucket of each distance, on the device."""
    count, distance, causal = (op.attr[name] for name in ("buckets", "distance", "causal"))
    key = ("relative_bias", bound, count, distance, causal)
    return op.context.constant(key, lambda: buckets(bound, count, distance, causal))


def buckets(bound: int, count: int, distance: int, causal: bool) -> np.ndarray:
    """[2 bound - 1]: the bucket of a key 1 - bound to bound - 1 positions after the query
    (Raffel et al. 2019, section 2.1, with the logarithm of the authors' code)."""
    behind = np.arange(1 - bound, bound)  # [2 bound - 1]
    side = np.zeros_like(behind)  # [2 bound - 1]
    if not causal:
        count //= 2
        side = count * (behind > 0)  # [2 bound - 1]
    away = np.maximum(-behind, 0) if causal else abs(behind)  # [2 bound - 1]
    exact = count // 2
    steps = np.log(np.maximum(away, exact) / exact) / np.log(distance / exact)
    far = np.minimum(exact + (steps * (count - exact)).astype(int), count - 1)
    return (side + np.where(away < exact, away, far)).astype(np.int32)
