"""Attention: softmax(q k^T) v for whole sequences and for decoding steps."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from tinygrad import Tensor, dtypes

from archdsl.backend.band import Band, band
from archdsl.backend.context import OpCall
from archdsl.backend.functional import softmax_fp32
from archdsl.backend.kernels import attention
from archdsl.backend.kernels.products import matmul
from archdsl.backend.positions import end_position, repeated_positions
from archdsl.backend.sequences import OWN_AXES, as_rows, for_rows
from archdsl.backend.tensors import make_contiguous, shape
from archdsl.graph import masks
from archdsl.graph.masks import Mask
from archdsl.graph.types import Size
from archdsl.passes.select_kernels import TINYGRAD


def attend(op: OpCall) -> Tensor:
    """Queries [B, …, T, H, h], keys [B, …, S, K, h], values [B, …, S, K, w]: [B, …, T, H, w].

    In a decoding step the keys and values are caches [B, C, K, h] that include the new tokens.
    """
    if "past" in op.tensors:
        return _step(op)
    if before := len(op.types["q"].axes) - 3:
        rows = shape(op.tensors["q"])[: 1 + before]
        found = attend(as_rows(op, before, OWN_AXES))  # [B …, T, H, w]
        return found.reshape(*rows, *found.shape[1:])  # [B, …, T, H, w]
    # Computed once, not again in each matmul that uses them.
    q, k, v = (make_contiguous(op.tensors[name]) for name in "qkv")
    T, S = shape(q)[1], shape(k)[1]
    mask, sink = masks.parse(op.attr["mask"]), op.tensors.get("sink")
    if (kernel := op.kernel()) == TINYGRAD:
        if (near := band(mask, T)) and T == S and "bias" not in op.tensors:
            return _attend_in_band(op, q, k, v, mask, near)  # [B, T, H, w]
        seen = visible_keys(
            op, mask, T, S, _group(q, k), op.types["k"].axes[0].size
        )  # [B or 1, 1, G T or 1, S]
        return _attend_by_matmuls(op, q, k, v, S, seen, sees_some(mask))  # [B, T, H, w]
    padded = masks.ahead(mask) != 0
    lengths = op.context.length(op.types["k"].axes[0].size) if padded else None
    if lengths is not None:
        lengths = for_rows(lengths, shape(k)[0])  # [B …]
    return attention.attend(
        kernel,
        q,
        k,
        v,
        op.attr["scale"],
        mask,
        lengths,
        softcap=op.attr["softcap"],
        sink=sink,
        trains=op.context.trains,
    )


def _attend_in_band(
    op: OpCall, q: Tensor, k: Tensor, v: Tensor, mask: Mask, near: Band
) -> Tensor:
    """Attention in blocks of queries and the keys near them: [B, T, H, w]."""
    batch, T = shape(q)[:2]
    valid = _valid_keys(op, mask, op.types["k"].axes[0].size, batch)
    data = {name: op.tensors[name] for name in masks.inputs(mask)}
    seen = near.visible(mask, batch, _group(q, k), data, valid)  # [B N, 1, G C, W]
    q, k, v = make_contiguous(near.queries(q)), near.keys(k), near.keys(v)
    if (sink := op.tensors.get("sink")) is not None:
        op = replace(op, tensors={**op.tensors, "sink": for_rows(sink, shape(q)[0])})
    found = _attend_by_matmuls(op, q, k, v, near.width, seen, sees_some(mask))
    return found.reshape(batch, -1, *found.shape[2:])[:, :T]


def sees_some(mask: Mask) -> bool:
    """Whether each query surely sees a key; padding may differ."""
    return mask == masks.EVERYTHING or (masks.ahead(mask) == 0 and masks.sees_itself(mask))


def _step(op: OpCall) -> Tensor:
    """New queries [B, n, H, h] over caches [B, C, K, h] and [B, C, K, w]: [B, n, H, w].

    A cache of fixed size is a sliding-window cache: a new token overwrites the oldest.
    """
    q, keys, values = (op.tensors[name] for name in "qkv")
    past, starts, mask = (
        op.tensors["past"],
        op.tensors["left_pad"],
        masks.parse(op.attr["mask"]),
    )
    ring = op.types["k"].axes[0].size.value
    if (kernel := op.kernel()) != TINYGRAD:
        return attention.attend(
            kernel,
            q,
            keys,
            values,
            op.attr["scale"],
            mask,
            None,
            op.context.first_position(past),
            starts,
            ring or 0,
            op.attr["softcap"],
            op.tensors.get("sink"),
        )
    n = shape(q)[1]
    S = end_position(op.context, past, n) if ring is None else ring
    seen = visible_positions(
        op, mask, past, n, starts, S, ring, _group(q, keys), op.types["k"].axes[0].size
    )
    seen = seen.unsqueeze(1)  # [B, 1, G n, S]
    some = sees_some(mask)
    return _attend_by_matmuls(op, q, keys[:, :S], values[:, :S], S, seen, some)  # [B, n, H, w]


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
    op: OpCall, q: Tensor, k: Tensor, v: Tensor, S: Any, seen: Tensor | None, some: bool
) -> Tensor:
    """Attention by two matmuls: [B, T, H, w].

    The queries that share a key head are stacked: one matmul per key head, of G T rows. `seen`
    [B or 1, 1, G T or 1, S] is the mask of visible keys; None means all. Unless each query sees
    `some`, one that sees none gives 0. S may be a tinygrad
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
    if (cap := op.attr["softcap"]) is not None:
        scores = (scores / cap).tanh() * cap  # [B, K, G T, S]
    if "bias" in op.tensors:
        # A reshape of a realized tensor leaves the matmul as it is.
        scores = scores if group == 1 else scores.contiguous()  # [B, K, G T, S]
        scores = scores.reshape(batch, heads, T, S) + op.tensors["bias"]  # [B, H, T, S]
        scores = scores.reshape(batch, kv_heads, group * T, S)  # [B, K, G T, S]
    sink = op.tensors.get("sink")
    if sink is not None:
        sink = sink.reshape(-1, kv_heads, group, 1)  # [B or 1, K, G, 1]
        sink = sink.expand(sink.shape[0], kv_heads, group, T)
        sink = sink.reshape(-1, kv_heads, group * T, 1)  # [B or 1, K, G T, 1]
    # Realized before the matmul with v, which would otherwise recompute them per feature.
    weights = masked_softmax(scores, seen, some, sink)  # [B, K, G T, S]
    probabilities = weights.cast(v.dtype).contiguous()  # [B, K, G T, S]
    out = _matmul(op, "values", probabilities, v).cast(v.dtype)  # [B, K, G T, w]
    return out.reshape(batch, heads, T, value).transpose(1, 2).contiguous()  # [B, T, H, w]


def _matmul(op: OpCall, part: str, a: Tensor, b: Tensor, transpose_b: bool = False) -> Tensor:
    """a @ b, or a @ b^T, in float32."""
    if op.kernel(part) == TINYGRAD:
        return op.context.matmul(a, b, transpose_b)
    return matmul(a, b, transpose_b)


def masked_softmax(
    scores: Tensor, seen: Tensor | None, some: bool, sink: Tensor | None = None
) -> Tensor:
    """The softmax of scores […, S] over the seen keys, in float32; 0 if there are none.

    `sink` […, 1] is the score of a key that has no value.
    """
    if sink is not None:
        scores = scores.cast(dtypes.float32)
        if seen is not None:
            scores = seen.where(scores, -math.inf)  # […, S]
        top = scores.max(-1, keepdim=True).maximum(sink).detach()  # […, 1]
        exponentials = (scores - top).exp()  # […, S]
        total = exponentials.sum(-1, keepdim=True) + (sink.cast(dtypes.float32) - top).exp()
        found: Tensor = exponentials / total  # […, S]
        return found
    if seen is None:
        return softmax_fp32(scores, -1)
    if some:
        return softmax_fp32(seen.where(scores, -math.inf), -1)
    # A softmax over nothing is NaN, also in its gradient.
    any = seen.max(-1, keepdim=True)  # […, 1]
    hidden = seen.where(scores, any.where(-math.inf, 0.0))  # […, S]
    return any.where(softmax_fp32(hidden, -1), 0.0)


def visible_keys(
    op: OpCall, mask: Mask, T: int, S: int, group: int, keys: Size
) -> Tensor | None:
    """The mask of keys that each query sees, [B or 1, 1, G T or 1, S]; None if all."""
    valid = _valid_keys(op, mask, keys, shape(op.x)[0])
    if valid is not None:
        valid = valid.reshape(-1, 1, 1, S)  # [B, 1, 1, S]
    if mask == masks.EVERYTHING:
        return valid
    i = repeated_positions(T, group).reshape(1, 1, -1, 1)  # [1, 1, G T, 1]
    j = Tensor.arange(S).reshape(1, 1, 1, S)  # [1, 1, 1, S]
    seen = _pairs(op, mask, i, j, group)  # [B or 1, 1, G T, S]
    return seen if valid is None else seen & valid


def _valid_keys(op: OpCall, mask: Mask, keys: Size, rows: int) -> Tensor | None:
    """[B, S]: which keys are no padding; None if all are, or if none sees what is."""
    # In a causal mask only padding sees padding, which is at the end.
    valid = op.context.valid_mask(keys) if masks.ahead(mask) != 0 else None
    return None if valid is None else for_rows(valid, rows)


def _pairs(op: OpCall, mask: Mask, i: Tensor, j: Tensor, group: int) -> Tensor:
    """[…, G T, S]: which keys j the queries i see; tensors of the mask are repeated for the
    queries that share a key head."""

    def data(name: str) -> Tensor:
        value: Tensor = op.tensors[name]
        match name.partition("_")[0]:
            case "row":
                value = value.repeat(1, group).unsqueeze(-1)  # [B, G T, 1]
            case "column":
                value = value[:, :S].unsqueeze(1)  # [B, 1, S]
            case _:
                value = value.repeat(1, group, 1)  # [B, G T, S]
        return value.unsqueeze(1) if i.ndim == 4 else value  # […, G T or 1, S or 1]

    T, S = i.shape[-2] // group, j.shape[-1]
    values = {name: data(name) for name in masks.inputs(mask)}
    found = masks.visible(mask, i, j, values, lambda: Tensor.ones(1, dtype=dtypes.bool))
    pairs: Tensor = found.expand(*found.shape[:-2], T * group, S)  # […, G T, S]
    return pairs


def visible_positions(
    op: OpCall,
    mask: Mask,
    past: Any,
    n: int,
    starts: Tensor,
    S: Any,
    ring: int | None,
    group: int,
    keys: Size,
) -> Tensor:
    """[B, G n, S]: the mask of cache positions that each new token sees."""
    if ring is None:
        positions: Tensor = Tensor.arange(keys.at(op.context.sizes))[:S]
    else:
        # The newest token at each place of a sliding-window cache.
        newest = past + n - 1
        age = (-Tensor.arange(ring) + newest) % ring  # [S]
        positions = -age + newest  # [S]
    i = (repeated_positions(n, group) + past).reshape(1, -1, 1)  # [1, G n, 1]
    j = positions.reshape(1, 1, -1)  # [1, 1, S]
    first = starts.reshape(-1, 1, 1)  # [B, 1, 1]
    valid = j >= first  # [B, 1, S]
    if masks.ahead(mask) != 0:
        valid = valid & (j < past + n)  # [B, 1, S]
    shifts = any(atom.op in ("chunk", "prefix") for atom in masks.atoms(mask))
    places = (i - first, j - first) if shifts else (i, j)  # in the row
    seen = _pairs(op, mask, *places, group) & valid  # [B, G n, S]
    # Left padding sees itself: a softmax over nothing is NaN.
    return seen | (i == j) if sees_some(mask) else seen  # [B, G n, S]
