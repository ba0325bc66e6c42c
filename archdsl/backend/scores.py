"""Attention in parts: scores, their softmax under a mask, and sums of values."""

from __future__ import annotations

from tinygrad import Tensor

from archdsl.backend.attend import (
    masked_softmax,
    sees_some,
    visible_keys,
    visible_positions,
)
from archdsl.backend.context import OpCall
from archdsl.backend.sequences import OWN_AXES, as_rows
from archdsl.backend.tensors import make_contiguous, shape
from archdsl.graph import masks


def scores(op: OpCall) -> Tensor:
    """Queries [B, …, T, H, h] and keys [B, …, S, K, h]: [B, …, H, T, S]. In a step, S is the
    cache."""
    if before := len(op.types["q"].axes) - 3:
        found = scores(as_rows(op, before, OWN_AXES))  # [B …, H, T, S]
        return found.reshape(*shape(op.x)[: 1 + before], *found.shape[1:])
    q, k = (make_contiguous(op.tensors[name]) for name in "qk")
    (batch, T, heads, size), (_, S, kv_heads, _) = shape(q), shape(k)
    rows = heads // kv_heads * T
    q = q.transpose(1, 2).reshape(batch, kv_heads, rows, size)  # [B, K, G T, h]
    k = k.transpose(1, 2)  # [B, K, S, h]
    products = op.context.matmul(q, k, transpose_b=True) * op.attr["scale"]  # [B, K, G T, S]
    made: Tensor = products.reshape(batch, heads, T, S).cast(op.dtype).contiguous()
    return made  # [B, H, T, S]


def masked(op: OpCall) -> Tensor:
    """The softmax of scores [B, …, T, S] over the keys that each query sees."""
    lead = _lead(op)
    rows = shape(op.x)[: 1 + lead]
    one = as_rows(op, lead, {"x": op.x.ndim - 1 - lead, "sink": 1}) if lead else op
    seen = _seen(one)  # [B … or 1, T or 1, S] or None
    if seen is not None:
        own = rows if seen.shape[0] > 1 else [1] * len(rows)
        others = [1] * (op.x.ndim - 2 - len(rows))
        seen = seen.reshape(*own, *others, *seen.shape[1:])
    some, sink = sees_some(masks.parse(op.attr["mask"])), op.tensors.get("sink")
    if sink is not None:
        ones = [1] * (op.x.ndim - 4)
        sink = sink.reshape(sink.shape[0], *ones, -1, 1, 1)  # [B or 1, 1, …, H, 1, 1]
    return masked_softmax(op.x, seen, some, sink).cast(op.x.dtype)  # [B, …, T, S]


def mix(op: OpCall) -> Tensor:
    """Weights [B, …, H, T, S] and values [B, …, S, K, w]: [B, …, T, H, w]."""
    if before := len(op.types["x"].axes) - 3:
        found = mix(as_rows(op, before, {"x": 3, "v": 3}))  # [B …, T, H, w]
        return found.reshape(*shape(op.x)[: 1 + before], *found.shape[1:])
    x, v = op.x, make_contiguous(op.tensors["v"])
    if (seen := _seen(op)) is not None:
        x = seen.unsqueeze(1).where(x, 0)  # [B, H, T, S]
    (batch, heads, T, S), (_, _, kv_heads, width) = shape(x), shape(v)
    x = x.reshape(batch, kv_heads, heads // kv_heads * T, S).contiguous()  # [B, K, G T, S]
    sums = op.context.matmul(x, v.transpose(1, 2)).cast(v.dtype)  # [B, K, G T, w]
    return sums.reshape(batch, heads, T, width).transpose(1, 2).contiguous()  # [B, T, H, w]


def _seen(op: OpCall) -> Tensor | None:
    """[B or 1, T or 1, S]: the keys that each query sees; None if all."""
    mask, keys = masks.parse(op.attr["mask"]), op.axes[-1].size
    *_, T, S = shape(op.x)
    if "past" not in op.tensors:
        seen = visible_keys(op, mask, T, S, 1, keys)  # [B or 1, 1, T or 1, S]
        return None if seen is None else seen.squeeze(1)
    past, starts = op.tensors["past"], op.tensors["left_pad"]
    return visible_positions(op, mask, past, T, starts, S, None, 1, keys)  # [B, T, S]


def _lead(op: OpCall) -> int:
    """The most axes of separate sequences that a tensor of the mask has."""
    data = masks.inputs(masks.parse(op.attr["mask"]))
    own = {name: masks.OWN_AXES[name.partition("_")[0]] for name in data}
    return max((len(op.types[name].axes) - n for name, n in own.items()), default=0)
