"""The operator that multiplies by a weight matrix."""

from __future__ import annotations

from tinygrad import Tensor

from archdsl.backend.context import OpCall
from archdsl.backend.functional import project
from archdsl.backend.tensors import make_contiguous


def linear(op: OpCall) -> Tensor:
    x = make_contiguous(op.x)  # [B, …, D]
    return project(op, x, epilogue=op.epilogue, dtype=op.dtype)  # [B, …, dim]
