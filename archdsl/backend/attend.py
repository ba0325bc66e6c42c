"""Attention: scores of queries and keys, made shares, and the values weighted by them."""

from __future__ import annotations

import math
from typing import Any

from tinygrad import Tensor

from archdsl.backend.context import OpCall
from archdsl.backend.functional import softmax_fp32
from archdsl.backend.kernels import attention
from archdsl.backend.kernels.products import matmul
from archdsl.backend.positions import behind, end
from archdsl.backend.tensors import make_contiguous, shape
from archdsl.passes.select_kernels import TINYGRAD


def attend(op: OpCall) -> Tensor:
    """Queries [B, T, H, h], keys [B, S, K, h] and values [B, S, K, w]: [B, T, H, w].

    In a step the keys and values are caches [B, C, K, h], the new positions in them.
    """
    if "past" in op.tensors:
        return _step(op)
    # Computed once, and not again for each product that uses them.
    q, k, v = (make_contiguous(op.tensors[name]) for name in "qkv")
    T, S, keys = shape(q)[1], shape(k)[1], op.types["k"].axes[0].size
    causal, window = op.attr["causal"], op.attr["window"]
    if (kernel := op.kernel()) == TINYGRAD:
        return _weighted(op, q, k, v, S, _seen(op, T, S))  # [B, T, H, w]
    lengths = None if causal else op.context.length(keys)
    scale, trains = op.attr["scale"], op.context.trains
    return attention.attend(kernel, q, k, v, scale, causal, window, lengths, trains=trains)


def _step(op: OpCall) -> Tensor:
    """New queries [B, n, H, h] look at caches [B, C, K, h] and [B, C, K, w]: [B, n, H, w].

    A cache of fixed size is a ring: each column has taken the place of the oldest.
    """
    q, keys, values = (op.tensors[name] for name in "qkv")
    past, starts, window = op.tensors["past"], op.tensors["left_pad"], op.attr["window"]
    ring = op.types["k"].axes[0].size.value
    if (kernel := op.kernel()) != TINYGRAD:
        first, places, scale = op.context.first_position(past), ring or 0, op.attr["scale"]
        return attention.attend(
            kernel, q, keys, values, scale, True, window, None, first, starts, places
        )
    n = shape(q)[1]
    S = end(op.context, past, n) if ring is None else ring
    seen = _seen_columns(op, past, n, starts, S, ring).unsqueeze(1)  # [B, 1, n, S]
    return _weighted(op, q, keys[:, :S], values[:, :S], S, seen)  # [B, n, H, w]


def append(op: OpCall) -> Tensor:
    """The cache [B, C, …] with the new positions [B, n, …] written in place."""
    cache, new, past = (op.tensors[name] for name in ("x", "new", "past"))
    ring = op.axes[0].size.value
    if op.kernel() != TINYGRAD:
        return attention.append(cache, new, op.context.first_position(past), ring or 0)
    at = past if ring is None else past % ring
    written = cache[:, at : at + shape(new)[1]].assign(new.cast(cache.dtype))
    Tensor.realize(written)
    kept: Tensor = cache
    return kept


def _weighted(
    op: OpCall, q: Tensor, k: Tensor, v: Tensor, S: Any, seen: Tensor | None
) -> Tensor:
    """Attention by two products, of keys that `seen` [B or 1, 1, T or 1, S] says may be looked
    at, all where None; S may be a variable of tinygrad's."""
    (batch, T, heads, size), (kv_heads, value) = shape(q), v.shape[2:]
    group = heads // kv_heads
    q = q.transpose(1, 2)  # [B, H, T, h]
    # The queries that share keys stand below one another: one product for each key head.
    q = q.reshape(batch, kv_heads, group * T, size)  # [B, K, G T, h]
    k = k.transpose(1, 2)  # [B, K, S, h]
    v = v.transpose(1, 2)  # [B, K, S, w]

    if op.context.trains:
        # Their gradients are made as they are here: products that tensor cores can compute.
        q, k, v = (each.contiguous_backward() for each in (q, k, v))
    scores = _matmul(op, "scores", q, k, transpose_b=True) * op.attr["scale"]  # [B, K, G T, S]
    scores = scores.reshape(batch, heads, T, S)  # [B, H, T, S]
    if "bias" in op.tensors:
        scores = scores + op.tensors["bias"]  # [B, H, T, S]
    if seen is not None:
        scores = seen.where(scores, -math.inf)  # [B, H, T, S]
    scores = scores.reshape(batch, kv_heads, group * T, S)  # [B, K, G T, S]
    # Made before the product with v, which would else compute them again for each feature.
    shares = softmax_fp32(scores, -1).cast(v.dtype).contiguous()  # [B, K, G T, S]
    out = _matmul(op, "values", shares, v).cast(v.dtype)  # [B, K, G T, w]
    return out.reshape(batch, heads, T, value).transpose(1, 2).contiguous()  # [B, T, H, w]


def _matmul(op: OpCall, part: str, a: Tensor, b: Tensor, transpose_b: bool = False) -> Tensor:
    """a @ b in float32, or a @ b^T."""
    if op.kernel(part) == TINYGRAD:
        return op.context.matmul(a, b, transpose_b)
    return matmul(a, b, transpose_b)


def _seen(op: OpCall, T: int, S: int) -> Tensor | None:
    """Which keys each query may attend to, [B or 1, 1, T or 1, S]; None where all."""
    if not op.attr["causal"]:
        valid = op.context.valid_mask(op.types["k"].axes[0].size)  # [B, S] or None
        return None if valid is None else valid.reshape(-1, 1, 1, S)  # [B, 1, 1, S]
    # Padding stands at the end, and so in the past of nothing but padding. That may see it:
    # in a window it would else see nothing, and have no shares.
    before = Tensor.arange(T).reshape(T, 1) - Tensor.arange(S).reshape(1, S)  # [T, S]
    seen = before >= 0  # [T, S]
    if (window := op.attr["window"]) is not None:
        seen = seen & (before < window)  # [T, S]
    return seen.reshape(1, 1, T, S)  # [1, 1, T, S]


def _seen_columns(
    op: OpCall, past: Any, n: int, starts: Tensor, S: Any, ring: int | None
) -> Tensor:
    """[B, n, S]: which columns each new token may attend to; S are the places of a ring."""
    if ring is None:
        columns: Tensor = Tensor.arange(op.types["k"].axes[0].size.at(op.context.sizes))[:S]
    else:
        # The last column that has taken each place.
        newest = past + n - 1
        age = (-Tensor.arange(ring) + newest) % ring  # [S]
        columns = -age + newest  # [S]
    before = behind(past, n, columns)  # [n, S]
    seen = before >= 0  # [n, S]
    if (window := op.attr["window"]) is not None:
        seen = seen & (before < window)  # [n, S]
    there = columns.reshape(1, 1, -1) >= starts.reshape(-1, 1, 1)  # [B, 1, S]
    # What stands in front of a row sees itself: seeing nothing it would be NaN.
    return (seen & there) | (before == 0)  # [B, n, S]
