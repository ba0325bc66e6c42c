"""Attention: scores of queries and keys, made shares, and the values weighted by them."""

from __future__ import annotations

import math
from typing import Any

from tinygrad import Tensor

from archdsl.backend.kernels.attention import core
from archdsl.backend.tensors import made, shape
from archdsl.backend.use import Use, product, softmax_fp32
from archdsl.graph.types import Size
from archdsl.passes.kernels import TINYGRAD, Attention


def attention(use: Use) -> Tensor:
    x, memory = use.x, use.tensors.get("over", use.x)  # [B, T, D], [B, S, E]
    (batch, T, _), S = shape(x), shape(memory)[1]
    heads, kv_heads, size = use.attr["heads"], use.attr["kv_heads"], use.attr["head_size"]

    x, memory = made(x), made(memory)
    q = product(use, x, "q.").reshape(batch, T, heads, size)  # [B, T, H, h]
    k = product(use, memory, "k.").reshape(batch, S, kv_heads, size)  # [B, S, K, h]
    v = product(use, memory, "v.").reshape(batch, S, kv_heads, size)  # [B, S, K, h]
    keys = use.types.get("over", use.types["x"]).axes[0].size
    out = _attend(use, q, k, v, keys)  # [B, T, H, h]
    return product(use, out.reshape(batch, T, heads * size), "out.", use.finish)  # [B, T, D]


def attend(use: Use) -> Tensor:
    # Computed once, and not again for each product that uses them.
    q, k, v = (made(use.tensors[name]) for name in "qkv")  # as for _attend
    return _attend(use, q, k, v, use.types["k"].axes[0].size)  # [B, T, H, w]


def _attend(use: Use, q: Tensor, k: Tensor, v: Tensor, keys: Size) -> Tensor:
    """Queries [B, T, H, h], keys [B, S, K, h] and values [B, S, K, w]: [B, T, H, w].

    `keys` is the size S, which tells what of it is padding.
    """
    (batch, T, heads, size), S = shape(q), shape(k)[1]
    widest = max(size, shape(v)[-1])
    work = Attention(batch * heads, T, S, widest, "bias" in use.tensors)
    if (kernel := use.run.kernel(work)) != TINYGRAD:
        causal, window = use.attr["causal"], use.attr.get("window")
        lengths = None if causal else use.run.length(keys)
        return core(
            kernel,
            q,
            k,
            v,
            use.attr["scale"],
            causal,
            window,
            lengths,
            trains=use.run.trains,
        )
    return weighted(use, q, k, v, S, _seen(use, T, S, keys))  # [B, T, H, w]


def weighted(use: Use, q: Tensor, k: Tensor, v: Tensor, S: Any, seen: Tensor | None) -> Tensor:
    """The same, of keys that `seen` [B or 1, 1, T or 1, S] says may be looked at, all where
    None; S may be a variable of tinygrad's."""
    (batch, T, heads, size), (kv_heads, value) = shape(q), v.shape[2:]
    group = heads // kv_heads
    q = q.transpose(1, 2)  # [B, H, T, h]
    # The queries that share keys stand below one another: one product for each key head.
    q = q.reshape(batch, kv_heads, group * T, size)  # [B, K, G T, h]
    k = k.transpose(1, 2)  # [B, K, S, h]
    v = v.transpose(1, 2)  # [B, K, S, w]

    if use.run.trains:
        # Their gradients are made as they are here: products that tensor cores can compute.
        q, k, v = (each.contiguous_backward() for each in (q, k, v))
    scores = use.run.matmul(q, k, flip=True) * use.attr["scale"]  # [B, K, G T, S]
    scores = scores.reshape(batch, heads, T, S)  # [B, H, T, S]
    if "bias" in use.tensors:
        scores = scores + use.tensors["bias"]  # [B, H, T, S]
    if seen is not None:
        scores = seen.where(scores, -math.inf)  # [B, H, T, S]
    scores = scores.reshape(batch, kv_heads, group * T, S)  # [B, K, G T, S]
    # Made before the product with v, which would else compute them again for each feature.
    shares = softmax_fp32(scores, -1).cast(v.dtype).contiguous()  # [B, K, G T, S]
    out = use.run.matmul(shares, v).cast(v.dtype)  # [B, K, G T, w]
    return out.reshape(batch, heads, T, value).transpose(1, 2).contiguous()  # [B, T, H, w]


def _seen(use: Use, T: int, S: int, keys: Size) -> Tensor | None:
    """Which keys each query may attend to, [B or 1, 1, T or 1, S]; None where all."""
    if not use.attr["causal"]:
        valid = use.run.valid(keys)  # [B, S] or None
        return None if valid is None else valid.reshape(-1, 1, 1, S)  # [B, 1, 1, S]
    # Padding stands at the end, and so in the past of nothing but padding. That may see it:
    # in a window it would else see nothing, and have no shares.
    behind = Tensor.arange(T).reshape(T, 1) - Tensor.arange(S).reshape(1, S)  # [T, S]
    seen = behind >= 0  # [T, S]
    if (window := use.attr.get("window")) is not None:
        seen = seen & (behind < window)  # [T, S]
    return seen.reshape(1, 1, T, S)  # [1, 1, T, S]
