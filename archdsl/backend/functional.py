"""Functions that several emitters share: linear projection, epilogue, activation, softmax."""

from __future__ import annotations

import math
from collections.abc import Callable

from tinygrad import Tensor, dtypes

from archdsl.backend.context import ExecutionContext, OpCall
from archdsl.backend.kernels import activations, products
from archdsl.backend.kernels.products import NO_EPILOGUE, Epilogue
from archdsl.backend.tinygrad_seam import DType
from archdsl.passes.select_kernels import TINYGRAD


def project(
    op: OpCall,
    x: Tensor,
    prefix: str = "",
    epilogue: Epilogue = NO_EPILOGUE,
    dtype: DType | None = None,
) -> Tensor:
    """epilogue(x @ weight^T + bias) of x [B, …, in], weight [out, in], bias [out]: [B, …, out].

    The result is of `dtype`, by default that of x.

    A convolution kernel [out, C, k] is read as a weight [out, C k]. Callers pass x through
    `make_contiguous`; otherwise x is computed again for each output that uses it.
    """
    weight = op.weights[f"{prefix}weight"].flatten(1)  # [out, in]
    bias = op.weights.get(f"{prefix}bias")  # [out]
    kernel, dtype = op.kernel(prefix.rstrip(".")), dtype or x.dtype
    if kernel == TINYGRAD:
        y = op.context.matmul(x, weight, transpose_b=True)  # [B, …, out]
        y = (y if bias is None else y + bias).cast(dtype)  # [B, …, out]
        return apply_epilogue(op.context, y, epilogue).cast(dtype)  # [B, …, out]
    stored = op.kernel_weight(f"{prefix}weight", weight)  # [out, in]
    if op.context.trains:  # not fused: each step has its own gradient
        y = products.linear(kernel, x, stored, bias, dtype=dtype)  # [B, …, out]
        return apply_epilogue(op.context, y, epilogue).cast(dtype)  # [B, …, out]
    rows = op.context.chosen_rows  # [B, …, out]
    return products.linear(kernel, x, stored, bias, epilogue, dtype, rows)


def apply_epilogue(context: ExecutionContext, y: Tensor, epilogue: Epilogue) -> Tensor:
    """The epilogue of a matmul result y [B, …, out] as separate operations: [B, …, out]."""
    if epilogue.act:
        y = activate(context, epilogue.act, y)  # [B, …, out]
    if epilogue.times is not None:
        y = y * epilogue.times  # [B, …, out]
    return y if epilogue.plus is None else y + epilogue.plus  # [B, …, out]


def activate(context: ExecutionContext, act: str, x: Tensor) -> Tensor:
    """An activation of x [B, …]: [B, …]."""
    if context.trains and context.target:
        return activations.activation(act, x)  # as x; its gradient is a C kernel too
    return ACTIVATIONS[act](x)  # as x


def _in_float32(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A pointwise function that computes in float32 and returns the dtype of its input."""
    return lambda x: function(x.cast(dtypes.float32)).cast(x.dtype)


ACTIVATIONS = {
    "relu": _in_float32(lambda x: x.relu()),
    "gelu": _in_float32(lambda x: x * 0.5 * (1 + (x * math.sqrt(0.5)).erf())),
    "gelu_tanh": _in_float32(lambda x: x.gelu()),
    "silu": _in_float32(lambda x: x * x.sigmoid()),
    "quick_gelu": _in_float32(lambda x: x * (1.702 * x).sigmoid()),
    "tanh": _in_float32(lambda x: x.tanh()),
    "sigmoid": _in_float32(lambda x: x.sigmoid()),
}

FUNCTIONS = {
    "exp": _in_float32(lambda x: x.exp()),
    "log": _in_float32(lambda x: x.log()),
    "sqrt": _in_float32(lambda x: x.sqrt()),
    "reciprocal": _in_float32(lambda x: x.reciprocal()),
    "abs": _in_float32(lambda x: x.abs()),
    "sin": _in_float32(lambda x: x.sin()),
    "cos": _in_float32(lambda x: x.cos()),
    # max(0, x) + log(1 + exp(-|x|)), which does not overflow.
    "softplus": _in_float32(lambda x: x.maximum(0) + (1 + (-x.abs()).exp()).log()),
}


def softmax_fp32(scores: Tensor, axis: int) -> Tensor:
    """The softmax in float32; the shape is that of the input."""
    return scores.cast(dtypes.float32).softmax(axis)
