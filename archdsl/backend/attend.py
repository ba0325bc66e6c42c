"""Attention: softmax(q k^T) v for whole sequences and for decoding steps."""

from __future__ import annotations

import math
from typing import Any

from tinygrad import Tensor

from archdsl.backend.context import OpCall
from archdsl.backend.functional import softmax_fp32
from archdsl.backend.kernels import attention
from archdsl.backend.kernels.products import matmul
from archdsl.backend.positions import distance_behind, end_position, repeated_positions
from archdsl.backend.tensors import make_contiguous, shape
from archdsl.passes.select_kernels import TINYGRAD


def attend(op: OpCall) -> Tensor:
    """Queries [B, T, H, h], keys [B, S, K, h] and values [B, S, K, w]: [B, T, H, w].

    In a decoding step the keys and values are caches [B, C, K, h] that include the new tokens.
    """
    if "past" in op.tensors:
        return _step(op)
    # Computed once, not again in each matmul that uses them.
    q, k, v = (make_contiguous(op.tensors[name]) for name in "qkv")
    T, S, keys = shape(q)[1], shape(k)[1], op.types["k"].axes[0].size
    causal, window = op.attr["causal"], op.attr["window"]
    if (kernel := op.kernel()) == TINYGRAD:
        seen = _visible_keys(op, T, S, _group(q, k))  # [B or 1, 1, G T or 1, S]
        return _attend_by_matmuls(op, q, k, v, S, seen)  # [B, T, H, w]
    lengths = None if causal else op.context.length(keys)
    scale, trains = op.attr["scale"], op.context.trains
    return attention.attend(kernel, q, k, v, scale, causal, window, lengths, trains=trains)


def _step(op: OpCall) -> Tensor:
    """New queries [B, n, H, h] over caches [B, C, K, h] and [B, C, K, w]: [B, n, H, w].

    A cache of fixed size is a sliding-window cache: a new token overwrites the oldest.
    """
    q, keys, values = (op.tensors[name] for name in "qkv")
    past, starts, window = op.tensors["past"], op.tensors["left_pad"], op.attr["window"]
    ring = op.types["k"].axes[0].size.value
    if (kernel := op.kernel()) != TINYGRAD:
        first, size, scale = op.context.first_position(past), ring or 0, op.attr["scale"]
        return attention.attend(
            kernel, q, keys, values, scale, True, window, None, first, starts, size
        )
    n = shape(q)[1]
    S = end_position(op.context, past, n) if ring is None else ring
    seen = _visible_positions(op, past, n, starts, S, ring, _group(q, keys))  # [B, G n, S]
    seen = seen.unsqueeze(1)  # [B, 1, G n, S]
    return _attend_by_matmuls(op, q, keys[:, :S], values[:, :S], S, seen)  # [B, n, H, w]


def append(op: OpCall) -> Tensor:
    """Writes values of new tokens [B, n, …] into the cache [B, C, …] in place."""
    cache, new, past = (op.tensors[name] for name in ("x", "new", "past"))
    ring = op.axes[0].size.value
    if op.kernel() != TINYGRAD:
        return attention.append(cache, new, op.context.first_position(past), ring or 0)
    at = past if ring is None else past % ring
    written = cache[:, at : at + shape(new)[1]].assign(new.cast(cache.dtype))
    Tensor.realize(written)
    updated: Tensor = cache
    return updated


def _group(q: Tensor, k: Tensor) -> int:
    """G: how many query heads share a key head."""
    heads, kv_heads = (int(each.shape[2]) for each in (q, k))  # k may have a variable length
    return heads // kv_heads


def _attend_by_matmuls(
    op: OpCall, q: Tensor, k: Tensor, v: Tensor, S: Any, seen: Tensor | None
) -> Tensor:
    """Attention by two matmuls: [B, T, H, w].

    The queries that share a key head are stacked: one matmul per key head, of G T rows. `seen`
    [B or 1, 1, G T or 1, S] is the mask of visible keys; None means all. S may be a tinygrad
    variable; then the scores are not reshaped, since tinygrad would index them by division, and
    such a matmul does not reach tensor cores.
    """
    (batch, T, heads, size), (kv_heads, value) = shape(q), v.shape[2:]
    group = _group(q, k)
    q = q.transpose(1, 2)  # [B, H, T, h]
    q = q.reshape(batch, kv_heads, group * T, size)  # [B, K, G T, h]
    k = k.transpose(1, 2)  # [B, K, S, h]
    v = v.transpose(1, 2)  # [B, K, S, w]

    if op.context.trains:
        # Gradients in this layout are matmuls for tensor cores.
        q, k, v = (each.contiguous_backward() for each in (q, k, v))
    scores = _matmul(op, "scores", q, k, transpose_b=True) * op.attr["scale"]  # [B, K, G T, S]
    if "bias" in op.tensors:
        # A reshape of a realized tensor leaves the matmul as it is.
        scores = scores if group == 1 else scores.contiguous()  # [B, K, G T, S]
        scores = scores.reshape(batch, heads, T, S) + op.tensors["bias"]  # [B, H, T, S]
        scores = scores.reshape(batch, kv_heads, group * T, S)  # [B, K, G T, S]
    if seen is not None:
        scores = seen.where(scores, -math.inf)  # [B, K, G T, S]
    # Realized before the matmul with v, which would otherwise recompute them per feature.
    probabilities = softmax_fp32(scores, -1).cast(v.dtype).contiguous()  # [B, K, G T, S]
    out = _matmul(op, "values", probabilities, v).cast(v.dtype)  # [B, K, G T, w]
    return out.reshape(batch, heads, T, value).transpose(1, 2).contiguous()  # [B, T, H, w]


def _matmul(op: OpCall, part: str, a: Tensor, b: Tensor, transpose_b: bool = False) -> Tensor:
    """a @ b, or a @ b^T, in float32."""
    if op.kernel(part) == TINYGRAD:
        return op.context.matmul(a, b, transpose_b)
    return matmul(a, b, transpose_b)


def _visible_keys(op: OpCall, T: int, S: int, group: int) -> Tensor | None:
    """The mask of keys that each query sees, [B or 1, 1, G T or 1, S]; None if all."""
    if not op.attr["causal"]:
        valid = op.context.valid_mask(op.types["k"].axes[0].size)  # [B, S] or None
        return None if valid is None else valid.reshape(-1, 1, 1, S)  # [B, 1, 1, S]
    # Padding is at the end, so only padding sees it. It must see something: a softmax over
    # nothing is NaN.
    queries = repeated_positions(T, group).reshape(-1, 1)  # [G T, 1]
    before = queries - Tensor.arange(S).reshape(1, S)  # [G T, S]
    seen = before >= 0  # [G T, S]
    if (window := op.attr["window"]) is not None:
        seen = seen & (before < window)  # [G T, S]
    return seen.reshape(1, 1, group * T, S)  # [1, 1, G T, S]


def _visible_positions(
    op: OpCall, past: Any, n: int, starts: Tensor, S: Any, ring: int | None, group: int
) -> Tensor:
    """[B, G n, S]: the mask of cache positions that each new token sees."""
    if ring is None:
        positions: Tensor = Tensor.arange(op.types["k"].axes[0].size.at(op.context.sizes))[:S]
    else:
        # The newest token at each place of a sliding-window cache.
        newest = past + n - 1
        age = (-Tensor.arange(ring) + newest) % ring  # [S]
        positions = -age + newest  # [S]
    before = distance_behind(past, n, positions, group)  # [G n, S]
    seen = before >= 0  # [G n, S]
    if (window := op.attr["window"]) is not None:
        seen = seen & (before < window)  # [G n, S]
    valid = positions.reshape(1, 1, -1) >= starts.reshape(-1, 1, 1)  # [B, 1, S]
    # Left padding sees itself: a softmax over nothing is NaN.
    return (seen & valid) | (before == 0)  # [B, G n, S]
