"""Activations as separate CPU kernels, for training.

Their gradients need their inputs, so they are not fused into the matmul before them.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from tinygrad import Tensor, UOp, dtypes

from archdsl.backend.kernels.launch import launch
from archdsl.backend.tensors import shape

_TILE = 16384  # numbers


def activation(act: str, x: Tensor) -> Tensor:
    """The activation of x [B, …]: [B, …], computed in float32."""
    return _pointwise(act, x.cast(dtypes.float32), None, _gradient(act)).cast(x.dtype)


def _pointwise(
    function: str,
    x: Tensor,
    dy: Tensor | None,
    gradient: Callable[[UOp, UOp], tuple[UOp | None, ...]] | None = None,
) -> Tensor:
    """A function of x [B, …], times dy [B, …] if given: [B, …]."""
    constants = {"N": prod(shape(x)), "TILE_SIZE": _TILE, "FUNCTION": function}
    y = Tensor.empty(*x.shape, device=x.device)
    inputs = {"x": x, "dy": dy}
    (y,) = launch("pointwise", constants, {"y": y}, inputs, 20 * prod(shape(x)), gradient)
    return y


def _gradient(act: str) -> Callable[[UOp, UOp], tuple[UOp | None, ...]]:
    """The gradient function for tinygrad, for each buffer of the call: y, x, thread pool."""

    def back(gradient: UOp, call: UOp) -> tuple[UOp | None, ...]:
        return None, _pointwise(f"{act}_slope", Tensor(call.src[2]), Tensor(gradient)).uop, None

    return back
