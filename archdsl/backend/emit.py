"""Graph to tinygrad: one function for each operator, in one table.

Products, positions and attention have modules of their own; `use.py` says how the shapes
beside the lines are to be read. Softmax, norms and losses are computed in float32 whatever
the weights are.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable

from tinygrad import Tensor, dtypes

from archdsl.backend.attend import append, attend
from archdsl.backend.kernels import norms, tables
from archdsl.backend.positions import alibi, posenc, positions, relative_bias, rotary
from archdsl.backend.products import conv1d, experts, linear
from archdsl.backend.tensors import made, shape
from archdsl.backend.use import ACTIVATIONS, Use, activated, product, softmax_fp32
from archdsl.graph import axes
from archdsl.passes.select_kernels import TINYGRAD

# -- tokens and vectors --


def embed(use: Use) -> Tensor:
    table = use.weights["weight"]  # [vocab, D]
    if use.kernel() != TINYGRAD:
        rows_of = tables.embed(use.x, use.stored("weight", table))  # [B, …, D]
        return rows_of.cast(table.dtype)  # [B, …, D]
    return table[use.x]  # [B, …, D]


def unembed(use: Use) -> Tensor:
    return product(use, made(use.x), finish=use.finish)  # [B, …, vocab]


# -- norms, and what is trained for each feature --


def norm(use: Use) -> Tensor:
    kind = use.attr["kind"]
    if use.kernel() != TINYGRAD:
        weight, bias = (use.weights.get(name) for name in ("weight", "bias"))
        return norms.norm(use.x, kind == "rms", use.attr["eps"], weight, bias)  # [B, …, D]
    x: Tensor = use.x.cast(dtypes.float32)  # [B, …, D]
    if use.attr["kind"] == "layer":
        x = x - x.mean(-1, keepdim=True)  # [B, …, D]
    if use.attr["kind"] == "l2":
        length = x.square().sum(-1, keepdim=True)  # [B, …, 1], squared
        x = x * length.maximum(use.attr["eps"] ** 2).rsqrt()  # [B, …, D]
    else:
        x = x * (x.square().mean(-1, keepdim=True) + use.attr["eps"]).rsqrt()  # [B, …, D]
    if "weight" in use.weights:
        x = x * use.weights["weight"]  # [B, …, D]
    if "bias" in use.weights:
        x = x + use.weights["bias"]  # [B, …, D]
    return x.cast(use.x.dtype).contiguous()  # [B, …, D]


def logit_scale(use: Use) -> Tensor:
    factor = use.weights["weight"].cast(dtypes.float32).exp()  # []
    return (use.x.cast(dtypes.float32) * factor).cast(use.x.dtype)  # as x


def dot(use: Use) -> Tensor:
    x, other = (t.cast(dtypes.float32) for t in use.tensors.values())  # [B, …, D] each
    sums: Tensor = (x * other).sum(-1)  # [B, …]
    return sums.cast(use.x.dtype)  # [B, …]


# -- images, and named positions --


def patches(use: Use) -> Tensor:
    x, p = use.x, use.attr["patch"]  # [B, C, H, W]
    batch, channels, height, width = shape(x)
    x = x.reshape(batch, channels, height // p, p, width // p, p)  # [B, C, H/p, p, W/p, p]
    x = x.permute(0, 2, 4, 1, 3, 5)  # [B, H/p, W/p, C, p, p]
    return x.reshape(batch, -1, channels * p * p).contiguous()  # [B, M, C p p]


def prepend(use: Use) -> Tensor:
    token = use.weights["weight"].reshape(1, 1, -1)  # [1, 1, D]
    if "at" in use.tensors:
        # A step has columns for what is prepended: position 0 is this one.
        here: Tensor = use.tensors["at"].unsqueeze(-1) == 0  # [B, n, 1]
        return here.where(token, use.x)  # [B, n, D]
    return token.expand(use.x.shape[0], 1, -1).cat(use.x, dim=1)  # [B, 1 + T, D]


def readout(use: Use) -> Tensor:
    return use.x[:, use.axes[0].marks.index(use.attr["name"])]  # [B, D]


def first(use: Use) -> Tensor:
    return use.x[:, 0]  # [B, D]


def last(use: Use) -> Tensor:
    axis = use.axis(0)
    where: list[slice] = [slice(None)] * use.x.ndim
    where[axis] = slice(shape(use.x)[axis] - 1, shape(use.x)[axis])
    return use.x[tuple(where)]  # [B, …, 1, …]


def at(use: Use) -> Tensor:
    found = use.tensors["tokens"] == use.attr["token"]  # [B, T]
    # The first of the largest: the first position of all where nothing is found.
    index = found.cast(dtypes.int32).argmax(1)  # [B]
    index = index.reshape(-1, 1, 1).expand(-1, 1, use.x.shape[2])  # [B, 1, D]
    return use.x.gather(1, index).squeeze(1)  # [B, D]


# -- general shapes --


def _along(use: Use, axis: int) -> Tensor | None:
    """Which positions along an axis are there, broadcast against x; None where all."""
    valid = use.run.valid(use.axes[axis - 1].size)  # [B, n] or None
    if valid is None:
        return None
    sizes = [1] * use.x.ndim
    sizes[0], sizes[axis] = shape(valid)
    return valid.reshape(sizes)  # [B, 1, …, n, …, 1]


def mean(use: Use) -> Tensor:
    axis = use.axis(max(use.x.ndim - 3, 0))
    valid = _along(use, axis)  # [B, …, n, …] or None
    if valid is None:
        return use.x.mean(axis)  # [B, …] without the axis
    total = valid.where(use.x, 0).cast(dtypes.float32).sum(axis)  # [B, …] without the axis
    return (total / valid.cast(dtypes.float32).sum(axis)).cast(use.x.dtype)


def softmax(use: Use) -> Tensor:
    axis = use.axis(use.x.ndim - 2)
    valid = _along(use, axis)  # [B, …, n, …] or None
    x = use.x if valid is None else valid.where(use.x, -math.inf)  # as x
    return softmax_fp32(x, axis).cast(use.x.dtype)  # as x


def concat(use: Use) -> Tensor:
    return use.x.cat(use.tensors["other"], dim=use.axis(use.x.ndim - 2))  # one axis longer


def reshape(use: Use) -> Tensor:
    pattern = use.attr["pattern"]
    left, right = axes.parse_pattern(pattern)
    solved = axes.solve_sizes(pattern, use.axes, dict(use.attr["sizes"]))
    sizes = {name: size.at(use.run.sizes) for name, size in solved.items()}
    before = [name for group in left for name in group]
    after = [name for group in right for name in group]
    x = use.x.reshape(-1, *(sizes[n] for n in before))  # [B, every name]
    x = x.permute(0, *(before.index(n) + 1 for n in after))  # [B, every name]
    return x.reshape(x.shape[0], *(math.prod(sizes[n] for n in g) for g in right))


def slice_(use: Use) -> Tensor:
    where: list[slice] = [slice(None)] * use.x.ndim
    where[use.axis(0)] = slice(use.attr["start"], use.attr["stop"])
    return use.x[tuple(where)]  # one axis shorter


def dropout(use: Use) -> Tensor:
    return use.x.dropout(use.attr["rate"])  # as x; tinygrad's TRAINING decides


# -- losses --


def _cross_entropy(logits: Tensor, wanted: Tensor, counted: Tensor | None) -> Tensor:
    """The mean of -log p over what is counted: []. `wanted` has the shape of logits but the
    last axis."""
    log_p = logits.cast(dtypes.float32).log_softmax(-1)  # [B, …, classes]
    losses = -log_p.gather(-1, wanted.unsqueeze(-1)).squeeze(-1)  # [B, …]
    if counted is None:
        return losses.mean()  # []
    counted = counted.expand(losses.shape)  # [B, …]
    return counted.where(losses, 0).sum() / counted.sum()  # []


def next_token(use: Use) -> Tensor:
    logits, tokens = use.tensors["logits"], use.tensors["tokens"]  # [B, T, vocab], [B, T]
    valid = use.run.valid(use.types["tokens"].axes[0].size)  # [B, T] or None
    counted = None if valid is None else valid[:, 1:]  # [B, T - 1] or None
    return _cross_entropy(logits[:, :-1], tokens[:, 1:], counted)  # []


def cross_entropy(use: Use) -> Tensor:
    label = use.tensors["label"]  # [B, …]
    masks = (_along(use, axis) for axis in range(1, label.ndim))
    there = [mask.squeeze(-1) for mask in masks if mask is not None]  # [B, 1, …, n, …, 1] each
    counted = functools.reduce(operator.and_, there) if there else None  # [B, …] or None
    return _cross_entropy(use.tensors["logits"], label, counted)  # []


EMIT: dict[str, Callable[[Use], Tensor]] = {
    "embed": embed,
    "unembed": unembed,
    "posenc": posenc,
    "rotary": rotary,
    "alibi": alibi,
    "relative_bias": relative_bias,
    "norm": norm,
    "linear": linear,
    "attend": attend,
    "experts": experts,
    "conv1d": conv1d,
    "patches": patches,
    "prepend": prepend,
    "readout": readout,
    "first": first,
    "at": at,
    "mean": mean,
    "softmax": softmax,
    "add": lambda use: use.x + use.tensors["other"],
    "multiply": lambda use: use.x * use.tensors["other"],
    "dot": dot,
    "scale": lambda use: use.x * use.attr["by"],
    "logit_scale": logit_scale,
    "layer_scale": lambda use: use.x * use.weights["weight"],
    "add_bias": lambda use: use.x + use.weights["weight"],
    "concat": concat,
    "reshape": reshape,
    "slice": slice_,
    "dropout": dropout,
    "positions": positions,
    "shift": lambda use: use.x + use.attr["by"],
    "append": append,
    "last": last,
    "length": lambda use: use.x.ne(use.attr["pad"]).sum(1).cast(dtypes.int32).contiguous(),
    "next_token": next_token,
    "cross_entropy": cross_entropy,
    **{name: lambda use, act=name: activated(use.run, act, use.x) for name in ACTIVATIONS},  # type: ignore[misc]
}
