"""Products with trained matrices, and the activations that stand between them."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable

from tinygrad import Tensor, dtypes

from archdsl.backend.use import Use, product, softmax_fp32


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
    "sigmoid": _single(lambda x: x.sigmoid()),
}


def linear(use: Use) -> Tensor:
    return product(use, use.x.contiguous())  # [B, …, dim]


def mlp(use: Use) -> Tensor:
    x, sizes = use.x, use.attr["sizes"]
    activation = ACTIVATIONS[use.attr["act"]]
    for i in range(len(sizes)):
        x = activation(x) if i else x  # [B, …, sizes[i - 1]]
        x = product(use, x.contiguous(), f"{i}.")  # [B, …, sizes[i]]
    return x  # [B, …, sizes[-1]]


def experts(use: Use) -> Tensor:
    x = use.x.contiguous()  # [B, …, D]
    shares = _shares(use, product(use, x, "router."))  # [B, …, count]
    parts = (shares[..., i : i + 1] * _expert(use, x, i) for i in range(use.attr["count"]))
    return functools.reduce(operator.add, parts).cast(x.dtype)  # [B, …, D]


def _expert(use: Use, x: Tensor, i: int) -> Tensor:
    gate = ACTIVATIONS[use.attr["act"]](product(use, x, f"{i}.gate."))  # [B, …, hidden]
    hidden = gate * product(use, x, f"{i}.up.")  # [B, …, hidden]
    return product(use, hidden.contiguous(), f"{i}.down.")  # [B, …, D]


def _shares(use: Use, logits: Tensor) -> Tensor:
    """What each expert counts: 0 for all but the `top` largest, and 1 together.

    Of equal ones the first is taken.
    """
    shares = softmax_fp32(logits, -1).contiguous()  # [B, …, count]
    mine, others = shares.unsqueeze(-1), shares.unsqueeze(-2)  # [B, …, count, count]
    count = use.attr["count"]
    earlier = Tensor.arange(count).reshape(1, count) < Tensor.arange(count).reshape(count, 1)
    before = (others > mine) | ((others == mine) & earlier)  # [B, …, count, count]
    chosen = before.sum(-1) < use.attr["top"]  # [B, …, count]
    kept: Tensor = chosen.where(shares, 0)  # [B, …, count]
    return (kept / kept.sum(-1, keepdim=True)).contiguous()  # [B, …, count]


def conv1d(use: Use) -> Tensor:
    kernel, stride, padding = (use.attr[name] for name in ("kernel", "stride", "padding"))
    x = use.x.pad((None, (padding, padding), None))  # [B, T + 2 padding, C]
    x = x.unfold(1, kernel, stride).flatten(2)  # [B, T', C kernel]
    return product(use, x.contiguous())  # [B, T', dim]
