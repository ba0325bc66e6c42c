"""Operators that are products with trained matrices."""

from __future__ import annotations

import functools
import operator

from tinygrad import Tensor

from archdsl.backend.kernels.products import Finish
from archdsl.backend.tensors import made
from archdsl.backend.use import Use, product, softmax_fp32


def linear(use: Use) -> Tensor:
    return product(use, made(use.x), finish=use.finish)  # [B, …, dim]


def experts(use: Use) -> Tensor:
    x = made(use.x)  # [B, …, D]
    shares = _shares(use, product(use, x, "router."))  # [B, …, count]
    parts = (shares[..., i : i + 1] * _expert(use, x, i) for i in range(use.attr["count"]))
    return functools.reduce(operator.add, parts).cast(x.dtype)  # [B, …, D]


def _expert(use: Use, x: Tensor, i: int) -> Tensor:
    up = product(use, x, f"{i}.up.")  # [B, …, hidden]
    gated = Finish(use.attr["act"], times=up)
    hidden = product(use, x, f"{i}.gate.", gated)  # [B, …, hidden]
    return product(use, made(hidden), f"{i}.down.")  # [B, …, D]


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
    return product(use, made(x), finish=use.finish)  # [B, T', dim]
