"""Operators that multiply by weight matrices: linear, experts."""

from __future__ import annotations

import functools
import operator

from tinygrad import Tensor

from archdsl.backend.context import OpCall
from archdsl.backend.functional import project, softmax_fp32
from archdsl.backend.kernels.products import Epilogue
from archdsl.backend.tensors import make_contiguous


def linear(op: OpCall) -> Tensor:
    return project(
        op, make_contiguous(op.x), epilogue=op.epilogue, dtype=op.dtype
    )  # [B, …, dim]


def experts(op: OpCall) -> Tensor:
    x = make_contiguous(op.x)  # [B, …, D]
    weights = _expert_weights(op, project(op, x, "router."))  # [B, …, count]
    parts = (weights[..., i : i + 1] * _expert(op, x, i) for i in range(op.attr["count"]))
    return functools.reduce(operator.add, parts).cast(op.dtype)  # [B, …, D]


def _expert(op: OpCall, x: Tensor, i: int) -> Tensor:
    up = project(op, x, f"{i}.up.")  # [B, …, hidden]
    gated = Epilogue(op.attr["act"], times=up)
    hidden = project(op, x, f"{i}.gate.", gated)  # [B, …, hidden]
    return project(op, make_contiguous(hidden), f"{i}.down.")  # [B, …, D]


def _expert_weights(op: OpCall, logits: Tensor) -> Tensor:
    """The weight of each expert: the `top` largest probabilities, normalized; 0 for the others.

    Of equal probabilities, the first is chosen.
    """
    p = softmax_fp32(logits, -1).contiguous()  # [B, …, count]
    mine, others = p.unsqueeze(-1), p.unsqueeze(-2)  # [B, …, count, count]
    count = op.attr["count"]
    earlier = Tensor.arange(count).reshape(1, count) < Tensor.arange(count).reshape(count, 1)
    before = (others > mine) | ((others == mine) & earlier)  # [B, …, count, count]
    chosen = before.sum(-1) < op.attr["top"]  # [B, …, count]
    top: Tensor = chosen.where(p, 0)  # [B, …, count]
    return (top / top.sum(-1, keepdim=True)).contiguous()  # [B, …, count]
