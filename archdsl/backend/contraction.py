"""Operators on axes by name and by data: sum, max, top, contract, take."""

from __future__ import annotations

import math

from tinygrad import Tensor, dtypes

from archdsl.backend.context import ExecutionContext, OpCall
from archdsl.backend.tensors import shape
from archdsl.graph.contraction import parse_pattern
from archdsl.graph.types import Axis


def mask_along(context: ExecutionContext, axis: Axis, at: int, rank: int) -> Tensor | None:
    """The mask of valid positions of axis number `at`, counted from the batch axis, for a
    tensor of `rank` axes; None if all are valid."""
    valid = context.valid_mask(axis.size)  # [B, n] or None
    if valid is None:
        return None
    sizes = [1] * rank
    sizes[0], sizes[at] = shape(valid)
    return valid.reshape(sizes)  # [B, 1, …, n, …, 1]


def sum_(op: OpCall) -> Tensor:
    axis = op.axis(op.x.ndim - 2)
    valid = mask_along(op.context, op.axes[axis - 1], axis, op.x.ndim)
    x = op.x if valid is None else valid.where(op.x, 0)  # as x
    kind = dtypes.int32 if op.x.dtype == dtypes.bool else dtypes.float32
    total: Tensor = x.cast(kind).sum(axis)  # [B, …] without the axis
    result: Tensor = total if kind == dtypes.int32 else total.cast(op.x.dtype)
    return result


def max_(op: OpCall) -> Tensor:
    axis = op.axis(op.x.ndim - 2)
    valid = mask_along(op.context, op.axes[axis - 1], axis, op.x.ndim)
    x = op.x if valid is None else valid.where(op.x, -math.inf)  # as x
    return x.max(axis)  # [B, …] without the axis


def top(op: OpCall) -> Tensor:
    """1 where fewer than `count` others are larger, or equal and earlier."""
    x = op.x.detach().contiguous()  # [B, …, n]
    size = shape(x)[-1]
    mine, others = x.unsqueeze(-1), x.unsqueeze(-2)  # [B, …, n, n]
    earlier = Tensor.arange(size).reshape(1, size) < Tensor.arange(size).reshape(size, 1)
    before = (others > mine) | ((others == mine) & earlier)  # [B, …, n, n]
    chosen = before.sum(-1) < op.attr["count"]  # [B, …, n]
    result: Tensor = chosen.cast(op.x.dtype).contiguous()  # as x
    return result


def contract(op: OpCall) -> Tensor:
    pattern = parse_pattern(op.attr["pattern"])
    letters = {name: chr(ord("a") + i) for i, name in enumerate(pattern.names)}
    batch = max(shape(x)[0] for x in op.tensors.values())
    operands = []
    for x, type, names in zip(
        op.tensors.values(), op.types.values(), pattern.operands, strict=True
    ):
        for at, (name, axis) in enumerate(zip(names, type.axes, strict=True), 1):
            # In all tensors: 0 times padding that is not a number would not be 0.
            summed = name in pattern.dropped
            valid = mask_along(op.context, axis, at, x.ndim) if summed else None
            x = x if valid is None else valid.where(x, 0)
        operands.append(x.expand(batch, *shape(x)[1:]))  # [B, …]
    sides = ["".join(letters[name] for name in names) for names in pattern.operands]
    result = "".join(letters[name] for name in pattern.result)
    formula = f"{','.join(f'Z{side}' for side in sides)}->Z{result}"
    if not op.context.tensor_cores:
        operands = [x.cast(dtypes.float32) for x in operands]
    y: Tensor = Tensor.einsum(formula, *operands, dtype=dtypes.float32)  # [B, …]
    return y.cast(op.x.dtype)  # [B, …]


def take(op: OpCall) -> Tensor:
    x, index = op.x, op.tensors["index"]  # [B, …] each
    if op.attr["pattern"] is None:
        size, rest = shape(x)[1], shape(x)[2:]
        flat = index.reshape(shape(index)[0], -1, *[1] * len(rest))  # [B, n, 1, …]
        flat = flat.expand(-1, -1, *rest)  # [B, n, …]
        found = x.expand(shape(index)[0], size, *rest).gather(1, flat)  # [B, n, …]
        return found.reshape(*shape(index), *rest)  # [B, …]
    pattern = parse_pattern(op.attr["pattern"])
    table, ids = pattern.operands
    (along,) = pattern.dropped
    sizes = dict(zip(table, shape(x)[1:], strict=True))
    sizes |= dict(zip(ids, shape(index)[1:], strict=True))
    batch = max(shape(x)[0], shape(index)[0])
    kept = pattern.result
    x = _spread(x, table, (along, *kept), sizes | {n: 1 for n in kept if n not in table})
    index = _spread(index, ids, kept, sizes | {n: 1 for n in kept if n not in ids})
    x = x.expand(batch, sizes[along], *(sizes[n] for n in kept))  # [B, N, …]
    index = index.expand(batch, *(sizes[n] for n in kept))  # [B, …]
    result: Tensor = x.gather(1, index.unsqueeze(1)).squeeze(1)  # [B, …]
    return result


def _spread(
    x: Tensor, names: tuple[str, ...], order: tuple[str, ...], sizes: dict[str, int]
) -> Tensor:
    """x with its axes in this order, and axes of size 1 for the names that it lacks."""
    own = [name for name in order if name in names]
    x = x.permute(0, *(names.index(name) + 1 for name in own))
    return x.reshape(x.shape[0], *(sizes[name] for name in order))
