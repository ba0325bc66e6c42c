"""The table EMIT: the function that computes each operator with tinygrad.

Matrix products, positions and attention are in separate modules. `context.py` explains the
shapes in the comments. Softmax, norms and losses are computed in float32 for all weights.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from tinygrad import Tensor, dtypes

from archdsl.backend.attend import append, attend
from archdsl.backend.context import OpCall
from archdsl.backend.contraction import contract, mask_along, max_, sum_, take, top
from archdsl.backend.convolution import conv1d, extend, store
from archdsl.backend.dropout import dropout
from archdsl.backend.functional import ACTIVATIONS, FUNCTIONS, activate, project, softmax_fp32
from archdsl.backend.kernels import norms, tables
from archdsl.backend.losses import LOSSES, value_of
from archdsl.backend.positions import (
    alibi,
    begin,
    posenc,
    positions,
    prefixed,
    relative_bias,
    renumber,
    sinusoid,
    valid,
)
from archdsl.backend.products import linear
from archdsl.backend.rotary import rotary
from archdsl.backend.scores import masked, mix, scores
from archdsl.backend.tensors import make_contiguous, shape
from archdsl.graph import axes
from archdsl.graph.elementwise import is_larger
from archdsl.passes.select_kernels import TINYGRAD

# -- tokens and vectors --


def embed(op: OpCall) -> Tensor:
    table = op.weights["weight"]  # [vocab, D]
    if op.kernel() != TINYGRAD:
        rows_of = tables.embed(op.x, op.kernel_weight("weight", table))  # [B, …, D]
        return rows_of.cast(table.dtype)  # [B, …, D]
    return table[op.x]  # [B, …, D]


def unembed(op: OpCall) -> Tensor:
    x = make_contiguous(op.x)
    return project(op, x, epilogue=op.epilogue, dtype=op.dtype)  # [B, …, vocab]


# -- norms --


def norm(op: OpCall) -> Tensor:
    kind = op.attr["kind"]
    if op.kernel() != TINYGRAD:
        weight, bias = (op.weights.get(name) for name in ("weight", "bias"))
        y = norms.norm(op.x, kind == "rms", op.attr["eps"], weight, bias)  # [B, …, D]
        return y.cast(op.dtype)  # [B, …, D]
    x: Tensor = op.x.cast(dtypes.float32)  # [B, …, D]
    if op.attr["kind"] == "layer":
        x = x - x.mean(-1, keepdim=True)  # [B, …, D]
    if op.attr["kind"] == "l2":
        length = x.square().sum(-1, keepdim=True)  # [B, …, 1], squared
        x = x * length.maximum(op.attr["eps"] ** 2).rsqrt()  # [B, …, D]
    else:
        x = x * (x.square().mean(-1, keepdim=True) + op.attr["eps"]).rsqrt()  # [B, …, D]
    if "weight" in op.weights:
        x = x * op.weights["weight"]  # [B, …, D]
    if "bias" in op.weights:
        x = x + op.weights["bias"]  # [B, …, D]
    return x.cast(op.dtype).contiguous()  # [B, …, D]


# -- elementwise --


_COMPARISONS: dict[str, Callable[[Any, Any], Tensor]] = {
    "equal": operator.eq,
    "unequal": operator.ne,
    "less": operator.lt,
    "at_most": operator.le,
    "more": operator.gt,
    "at_least": operator.ge,
}


def _pair(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[OpCall], Tensor]:
    """An elementwise function of two tensors, of which one may lack axes of the other."""

    def emit(op: OpCall) -> Tensor:
        x, other = op.x, op.tensors["other"]
        along = op.attr.get("along")
        if along is not None and is_larger(op.types["x"], op.types["other"]):
            other = _spread(other, along, x.ndim)
        elif along is not None:
            x = _spread(x, along, other.ndim)
        return function(x, other)  # as the larger one

    return emit


def _spread(x: Tensor, along: tuple[int, ...], ndim: int) -> Tensor:
    """x [B, …] with its axes at the places `along` of a larger tensor, 1 for the others."""
    order = sorted(range(len(along)), key=lambda i: along[i])
    x = x.permute(0, *(i + 1 for i in order))  # [B, …]
    sizes: list[Any] = [x.shape[0], *[1] * (ndim - 1)]
    for size, i in zip(x.shape[1:], sorted(along), strict=True):
        sizes[i + 1] = size
    return x.reshape(sizes)  # [B, …, 1, …]


def compare(op: OpCall) -> Tensor:
    function, to = _COMPARISONS[op.attr["kind"]], op.attr["to"]
    if to is None:
        return _pair(function)(op)
    whole = not op.x.is_floating_point() and to == int(to)
    return function(op.x, int(to) if whole else to)  # as x


def weight(op: OpCall) -> Tensor:
    return op.weights[""].unsqueeze(0)  # [1, …]


# -- images, and named positions --


def patches(op: OpCall) -> Tensor:
    p, padding = op.attr["patch"], op.attr["padding"]
    x = op.x.pad((None, None, (padding, padding), (padding, padding)))  # [B, C, H, W]
    batch, channels, height, width = shape(x)
    if op.attr["stride"] in (None, p):
        x = x[:, :, : height // p * p, : width // p * p]
        x = x.reshape(batch, channels, height // p, p, width // p, p)  # [B, C, H/p, p, W/p, p]
        x = x.permute(0, 2, 4, 1, 3, 5)  # [B, H/p, W/p, C, p, p]
    else:
        stride = op.attr["stride"]
        x = x.unfold(2, p, stride).unfold(3, p, stride)  # [B, C, H/stride, W/stride, p, p]
        x = x.permute(0, 2, 3, 1, 4, 5)  # [B, H/stride, W/stride, C, p, p]
    return x.reshape(batch, -1, channels * p * p).contiguous()  # [B, M, C p p]


def readout(op: OpCall) -> Tensor:
    return op.x[:, op.axes[0].marks.index(op.attr["name"])]  # [B, D]


def last(op: OpCall) -> Tensor:
    axis = op.axis(0)
    where: list[slice] = [slice(None)] * op.x.ndim
    where[axis] = slice(shape(op.x)[axis] - 1, shape(op.x)[axis])
    return op.x[tuple(where)]  # [B, …, 1, …]


def at(op: OpCall) -> Tensor:
    tokens, token = op.tensors["tokens"], op.attr.get("token")
    found = tokens if token is None else tokens == token  # [B, T]
    # The first match, or the first of the largest; position 0 if there is no match.
    return _select(op.x, found.cast(dtypes.int32).argmax(1))


def at_end(op: OpCall) -> Tensor:
    padding = op.attr.get("padding")
    kept = op.context.valid_mask(op.axes[0].size)  # [B, T] or None
    if padding is not None:
        text = op.tensors["tokens"] != padding
        kept = text if kept is None else text & kept
    if kept is None:
        return op.x[:, -1]  # [B, D]
    positions = Tensor.arange(shape(op.x)[1]).reshape(1, -1)  # [1, T]
    return _select(op.x, (positions * kept).argmax(1))


def _select(x: Tensor, index: Tensor) -> Tensor:
    """The vectors of x [B, T, D] at these positions [B]: [B, D]."""
    index = index.reshape(-1, 1, 1).expand(-1, 1, x.shape[2])  # [B, 1, D]
    return x.gather(1, index).squeeze(1)


# -- general shapes --


def _mask_along(op: OpCall, axis: int) -> Tensor | None:
    """The mask of valid positions along an axis, broadcast to x; None if all are valid."""
    return mask_along(op.context, op.axes[axis - 1], axis, op.x.ndim)


def mean(op: OpCall) -> Tensor:
    axis = op.axis(max(op.x.ndim - 3, 0))
    valid = _mask_along(op, axis)  # [B, …, n, …] or None
    if valid is None:
        return op.x.cast(op.float_dtype).mean(axis)  # [B, …] without the axis
    total = valid.where(op.x, 0).cast(dtypes.float32).sum(axis)  # [B, …] without the axis
    return (total / valid.cast(dtypes.float32).sum(axis)).cast(op.float_dtype)


def softmax(op: OpCall) -> Tensor:
    if op.attr["mask"] is not None or "sink" in op.tensors:
        return masked(op)  # as x
    axis = op.axis(op.x.ndim - 2)
    valid = _mask_along(op, axis)  # [B, …, n, …] or None
    x = op.x if valid is None else valid.where(op.x, -math.inf)  # as x
    return softmax_fp32(x, axis).cast(op.x.dtype)  # as x


def concat(op: OpCall) -> Tensor:
    other = op.tensors["other"]
    batch = max(op.x.shape[0], other.shape[0])  # a value without inputs has a batch of one
    x, other = (each.expand(batch, *each.shape[1:]) for each in (op.x, other))
    if (along := op.attr.get("along")) is not None:
        ndim = max(x.ndim, other.ndim)
        x, other = (
            each
            if each.ndim == ndim
            else _spread(each, (*along, ndim - 2), ndim).expand(*like.shape[:-1], -1)
            for each, like in ((x, other), (other, x))
        )
    return x.cat(other, dim=op.axis(x.ndim - 2))  # one axis longer


def reshape(op: OpCall) -> Tensor:
    pattern = op.attr["pattern"]
    left, right = axes.parse_pattern(pattern)
    solved = axes.solve_sizes(pattern, op.axes, dict(op.attr["sizes"]))
    sizes = {name: size.at(op.context.sizes) for name, size in solved.items()}
    before = [name for group in left for name in group]
    after = [name for group in right for name in group]
    x = op.x.reshape(-1, *(sizes[n] for n in before))  # [B, every name]
    x = x.permute(0, *(before.index(n) + 1 for n in after))  # [B, every name]
    return x.reshape(x.shape[0], *(math.prod(sizes[n] for n in g) for g in right))


def slice_(op: OpCall) -> Tensor:
    where: list[slice] = [slice(None)] * op.x.ndim
    where[op.axis(0)] = slice(op.attr["start"], op.attr["stop"])
    return op.x[tuple(where)]  # one axis shorter


def delay(op: OpCall) -> Tensor:
    by, rest = op.attr["by"], [None] * (op.x.ndim - 2)
    x = op.x.pad((None, (by, 0), *rest)) if op.attr["padded"] else op.x  # [B, T + by, …]
    return x[:, : shape(x)[1] - by]  # [B, T, …]


def _scale(op: OpCall) -> Tensor:
    whole = dtypes.is_int(op.x.dtype)
    y: Tensor = (op.x.cast(dtypes.float32) if whole else op.x) * op.attr["by"]  # as x
    if whole:
        y = y.cast(dtypes.float32 if op.wide else op.context.program.dtype)
    return y


EMIT: dict[str, Callable[[OpCall], Tensor]] = {
    "embed": embed,
    "unembed": unembed,
    "positions": positions,
    "renumber": renumber,
    "sinusoid": sinusoid,
    "posenc": posenc,
    "rotary": rotary,
    "alibi": alibi,
    "relative_bias": relative_bias,
    "norm": norm,
    "linear": linear,
    "attend": attend,
    "conv1d": conv1d,
    "patches": patches,
    "readout": readout,
    "at": at,
    "at_end": at_end,
    "mean": mean,
    "scores": scores,
    "softmax": softmax,
    "mix": mix,
    "sum": sum_,
    "max": max_,
    "top": top,
    "contract": contract,
    "take": take,
    "add": _pair(operator.add),
    "subtract": _pair(operator.sub),
    "multiply": _pair(operator.mul),
    "divide": _pair(operator.truediv),
    "compare": compare,
    "scale": _scale,
    "shift": lambda op: op.x + op.attr["by"],
    "weight": weight,
    "concat": concat,
    "reshape": reshape,
    "slice": slice_,
    "delay": delay,
    "dropout": dropout,
    "prefixed": prefixed,
    "valid": valid,
    "begin": begin,
    "append": append,
    "extend": extend,
    "store": store,
    "last": last,
    "length": lambda op: op.x.ne(op.attr["pad"]).sum(1).cast(dtypes.int32).contiguous(),
    **{name: value_of(loss) for name, loss in LOSSES.items()},
    **{name: lambda op, act=name: activate(op.context, act, op.x) for name in ACTIVATIONS},  # type: ignore[misc]
    **{name: lambda op, function=each: function(op.x) for name, each in FUNCTIONS.items()},  # type: ignore[misc]
}
