"""Position encodings: added to vectors, rotary on heads, or biases of attention scores."""

from __future__ import annotations

from math import log2
from typing import Any

import numpy as np
from tinygrad import Tensor, dtypes

from archdsl.backend.context import TILE, ExecutionContext, OpCall
from archdsl.backend.tensors import shape


def positions(op: OpCall) -> Tensor:
    """[B, n]: the position of each new token in its row; 0 for left padding."""
    new = _new_positions(op.tensors["past"], shape(op.x)[1]).reshape(1, -1)  # [1, n]
    found: Tensor = (new - op.tensors["left_pad"].reshape(-1, 1)).maximum(0)
    return found


def _new_positions(past: Any, n: int) -> Tensor:
    """[n]: the cache positions of n new tokens."""
    positions: Tensor = Tensor.arange(n) + past
    return positions


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
    return op.context.constant(key, lambda: sinusoids(context, width, layout))


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


def sinusoids(context: int, width: int, layout: str) -> np.ndarray:
    """[context, width]: sin and cos of each position, in pairs or halves, with geometric
    wavelengths from 2 pi to 10000 · 2 pi (Vaswani et al. 2017, section 3.5)."""
    rates = 10000.0 ** (-np.arange(0, width, 2) / width)  # [width / 2]
    angles = np.arange(context)[:, None] * rates  # [context, width / 2]
    axis = 2 if layout == "pairs" else 1
    both = np.stack([np.sin(angles), np.cos(angles)], axis)  # plus an axis of 2
    return both.reshape(context, width).astype(np.float32)


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
