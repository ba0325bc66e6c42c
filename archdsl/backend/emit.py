"""Graph to tinygrad: one function for each operator, in one table.

Tensors here have the batch axis first, B. Each line that makes one says its shape, in the
letters of the papers: T positions of the sequence, S of the memory, D features, H heads,
K heads of keys and values, G queries that share each of them, h features of a head.
Softmax, norms and losses are computed in float32 whatever the weights are.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tinygrad import Tensor, dtypes

from archdsl.graph import axes
from archdsl.graph.nodes import Graph
from archdsl.graph.types import Axis, Size, Type

# Devices whose products of half numbers sum in float32 by hardware.
TENSOR_CORES = frozenset({"CUDA", "NV", "AMD", "HIP", "METAL"})

# tinygrad's settings for making kernels of these tensors. TC_OPT: sizes that are no multiple
# of a tensor core's are filled up. SPLIT_REDUCEOP: a lookup in a large table, a sum until
# tinygrad sees that it is none, is not cut into partial sums before.
OPTIONS = {"TC_OPT": 2, "SPLIT_REDUCEOP": 0}


@dataclass
class Run:
    """What one forward pass has beside its values: weights, sizes, and true lengths."""

    graph: Graph
    weights: Mapping[str, Tensor]
    constants: dict[tuple[object, ...], Tensor]
    device: str
    sizes: dict[str, int] = field(default_factory=dict)
    lengths: dict[str, Tensor] = field(default_factory=dict)
    types: dict[str, Type] = field(default_factory=dict)

    def valid(self, size: Size) -> Tensor | None:
        """[B, n] True where a position of an axis is there, or None where all are.

        Padding stands at the end, so an axis made longer or shorter at its front is there up
        to its own length.
        """
        if not size.vars & self.lengths.keys():
            return None
        sizes: dict[str, Any] = self.sizes | self.lengths
        length: Any = size.at(sizes)  # [B]
        positions = Tensor.arange(size.at(self.sizes))  # [n]
        there: Tensor = positions.reshape(1, -1) < length.reshape(-1, 1)  # [B, n]
        return there

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        """a @ b in float32, of operands in the weights' dtype."""
        if self.device.split(":")[0] in TENSOR_CORES:
            return a.matmul(b, dtype=dtypes.float32)
        # Without tensor cores each product of two halves would be rounded before the sum.
        return a.cast(dtypes.float32) @ b.cast(dtypes.float32)

    def constant(self, key: tuple[object, ...], make: Callable[[], np.ndarray]) -> Tensor:
        """A table that depends on sizes alone, made once for a model."""
        if key not in self.constants:
            self.constants[key] = Tensor(make(), device=self.device).realize()
        return self.constants[key]


@dataclass(frozen=True)
class Use:
    """One use of an operator: its tensors, their types, its weights and its attributes."""

    tensors: Mapping[str, Tensor]
    types: Mapping[str, Type]
    weights: Mapping[str, Tensor]
    attr: Mapping[str, Any]
    run: Run

    @property
    def x(self) -> Tensor:
        return next(iter(self.tensors.values()))

    @property
    def axes(self) -> tuple[Axis, ...]:
        return next(iter(self.types.values())).axes

    def axis(self, default: int) -> int:
        """The axis meant, counted with the batch axis."""
        index = self.attr["axis"]
        return (default if index is None else index) + 1


def shape(x: Tensor) -> tuple[int, ...]:
    return tuple(int(size) for size in x.shape)


def _product(use: Use, x: Tensor, prefix: str = "") -> Tensor:
    """x [B, …, in] times a weight [out, in], and its bias where it has one: [B, …, out].

    The callers make x contiguous: computed once, and not again for each output that uses it.
    """
    out = use.run.matmul(x, use.weights[f"{prefix}weight"].T)  # [B, …, out]
    if f"{prefix}bias" in use.weights:
        out = out + use.weights[f"{prefix}bias"]  # [B, …, out]
    return out.cast(x.dtype)  # [B, …, out]


def _softmax(scores: Tensor, axis: int) -> Tensor:
    """The softmax in float32, of its input's shape."""
    return scores.cast(dtypes.float32).softmax(axis)


# -- tokens and vectors --


def embed(use: Use) -> Tensor:
    table = use.weights["weight"]  # [vocab, D]
    return table[use.x]  # [B, …, D]


def unembed(use: Use) -> Tensor:
    return _product(use, use.x.contiguous())  # [B, …, vocab]


def posenc(use: Use) -> Tensor:
    _, length, width = shape(use.x)
    if use.attr["kind"] == "learned":
        return use.x + use.weights["weight"][:length]  # [B, T, D]
    context = use.attr["context"]
    table = use.run.constant(("sinusoidal", context, width), lambda: sinusoids(context, width))
    return use.x + table[:length].cast(use.x.dtype)  # [B, T, D]


def sinusoids(context: int, width: int) -> np.ndarray:
    """[context, width]: sin and cos in turn of the position at geometric wavelengths from
    2 pi to 10000 · 2 pi (Vaswani et al. 2017, section 3.5)."""
    rates = 10000.0 ** (-np.arange(0, width, 2) / width)  # [width / 2]
    angles = np.arange(context)[:, None] * rates  # [context, width / 2]
    both = np.stack([np.sin(angles), np.cos(angles)], axis=-1)  # [context, width / 2, 2]
    return both.reshape(context, width).astype(np.float32)


# -- norms and products --


def norm(use: Use) -> Tensor:
    x: Tensor = use.x.cast(dtypes.float32)  # [B, …, D]
    if use.attr["kind"] == "layer":
        x = x - x.mean(-1, keepdim=True)  # [B, …, D]
    x = x * (x.square().mean(-1, keepdim=True) + use.attr["eps"]).rsqrt()  # [B, …, D]
    if "weight" in use.weights:
        x = x * use.weights["weight"]  # [B, …, D]
    if "bias" in use.weights:
        x = x + use.weights["bias"]  # [B, …, D]
    return x.cast(use.x.dtype).contiguous()  # [B, …, D]


def linear(use: Use) -> Tensor:
    return _product(use, use.x.contiguous())  # [B, …, dim]


def mlp(use: Use) -> Tensor:
    x, sizes = use.x, use.attr["sizes"]
    activation = ACTIVATIONS[use.attr["act"]]
    for i in range(len(sizes)):
        x = activation(x) if i else x  # [B, …, sizes[i - 1]]
        x = _product(use, x.contiguous(), f"{i}.")  # [B, …, sizes[i]]
    return x  # [B, …, sizes[-1]]


def _single(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A pointwise function computed in float32, its result in the dtype that came in."""
    return lambda x: function(x.cast(dtypes.float32)).cast(x.dtype)


ACTIVATIONS = {
    "relu": _single(lambda x: x.relu()),
    "gelu": _single(lambda x: x * 0.5 * (1 + (x * math.sqrt(0.5)).erf())),
    "gelu_tanh": _single(lambda x: x.gelu()),
    "silu": _single(lambda x: x * x.sigmoid()),
    "quick_gelu": _single(lambda x: x * (1.702 * x).sigmoid()),
    "tanh": _single(lambda x: x.tanh()),
}


def attention(use: Use) -> Tensor:
    x, memory = use.x, use.tensors.get("over", use.x)  # [B, T, D], [B, S, E]
    (batch, T, _), S = shape(x), shape(memory)[1]
    heads, kv_heads, size = use.attr["heads"], use.attr["kv_heads"], use.attr["head_size"]
    group = heads // kv_heads

    x, memory = x.contiguous(), memory.contiguous()
    q = _product(use, x, "q.")  # [B, T, H h]
    k = _product(use, memory, "k.")  # [B, S, K h]
    v = _product(use, memory, "v.")  # [B, S, K h]
    q = q.reshape(batch, T, heads, size).transpose(1, 2)  # [B, H, T, h]
    # The queries that share keys stand below one another: one product for each key head.
    q = q.reshape(batch, kv_heads, group * T, size)  # [B, K, G T, h]
    k = k.reshape(batch, S, kv_heads, size).transpose(1, 2)  # [B, K, S, h]
    v = v.reshape(batch, S, kv_heads, size).transpose(1, 2)  # [B, K, S, h]

    scores = use.run.matmul(q, k.transpose(2, 3)) * use.attr["scale"]  # [B, K, G T, S]
    seen = _seen(use, T, S)  # [B or 1, 1, 1, T or 1, S], or None
    if seen is not None:
        scores = scores.reshape(batch, kv_heads, group, T, S)  # [B, K, G, T, S]
        scores = seen.where(scores, -math.inf).reshape(batch, kv_heads, group * T, S)
    # Made before the product with v, which would else compute them again for each feature.
    shares = _softmax(scores, -1).cast(x.dtype).contiguous()  # [B, K, G T, S]
    out = use.run.matmul(shares, v).cast(x.dtype)  # [B, K, G T, h]
    out = out.reshape(batch, heads, T, size).transpose(1, 2).contiguous()  # [B, T, H, h]
    return _product(use, out.reshape(batch, T, heads * size), "out.")  # [B, T, D]


def _seen(use: Use, T: int, S: int) -> Tensor | None:
    """Which keys each query may attend to, [B or 1, 1, 1, T or 1, S]; None where all."""
    keys = use.types.get("over", use.types["x"]).axes[0].size
    valid = use.run.valid(keys)  # [B, S] or None
    seen = None if valid is None else valid.reshape(-1, 1, 1, 1, S)  # [B, 1, 1, 1, S]
    if use.attr["causal"]:
        positions = Tensor.arange(S)  # [S]
        past = positions.reshape(1, S) <= positions.reshape(T, 1)  # [T, S]
        past = past.reshape(1, 1, 1, T, S)  # [1, 1, 1, T, S]
        seen = past if seen is None else seen & past  # [B or 1, 1, 1, T, S]
    return seen


# -- images, and named positions --


def patches(use: Use) -> Tensor:
    x, p = use.x, use.attr["patch"]  # [B, C, H, W]
    batch, channels, height, width = shape(x)
    x = x.reshape(batch, channels, height // p, p, width // p, p)  # [B, C, H/p, p, W/p, p]
    x = x.permute(0, 2, 4, 1, 3, 5)  # [B, H/p, W/p, C, p, p]
    return x.reshape(batch, -1, channels * p * p).contiguous()  # [B, M, C p p]


def prepend(use: Use) -> Tensor:
    token = use.weights["weight"].reshape(1, 1, -1)  # [1, 1, D]
    return token.expand(use.x.shape[0], 1, -1).cat(use.x, dim=1)  # [B, 1 + T, D]


def readout(use: Use) -> Tensor:
    return use.x[:, use.axes[0].marks.index(use.attr["name"])]  # [B, D]


def first(use: Use) -> Tensor:
    return use.x[:, 0]  # [B, D]


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
    return _softmax(x, axis).cast(use.x.dtype)  # as x


def concat(use: Use) -> Tensor:
    return use.x.cat(use.tensors["other"], dim=use.axis(use.x.ndim - 2))  # one axis longer


def reshape(use: Use) -> Tensor:
    pattern = use.attr["pattern"]
    left, right = axes.parse(pattern)
    solved = axes.solve(pattern, use.axes, dict(use.attr["sizes"]))
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
    "norm": norm,
    "linear": linear,
    "mlp": mlp,
    "attention": attention,
    "patches": patches,
    "prepend": prepend,
    "readout": readout,
    "first": first,
    "mean": mean,
    "softmax": softmax,
    "add": lambda use: use.x + use.tensors["other"],
    "scale": lambda use: use.x * use.attr["by"],
    "concat": concat,
    "reshape": reshape,
    "slice": slice_,
    "dropout": dropout,
    "next_token": next_token,
    "cross_entropy": cross_entropy,
    **{name: lambda use, f=function: f(use.x) for name, function in ACTIVATIONS.items()},  # type: ignore[misc]
}
