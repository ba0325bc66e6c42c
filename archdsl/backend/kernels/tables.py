"""Embedding lookup on the CPU, and its gradient."""

from __future__ import annotations

from math import prod

from tinygrad import Tensor, UOp, dtypes

from archdsl.backend.kernels.launch import launch, stored_weight
from archdsl.backend.quantized import Quantized
from archdsl.backend.tensors import in_buffer, shape
from archdsl.backend.tinygrad_seam import NUM_CPU_THREADS

_TILE = 4096  # numbers


def embed(tokens: Tensor, table: Tensor | Quantized) -> Tensor:
    """Looks up the rows of a table [rows, D] for tokens [B, …]: [B, …, D] in float32.

    A quantized table has no gradient.
    """
    # Positions may be constants, which have no buffer and no device.
    tokens = in_buffer(tokens.cast(dtypes.int32), "CPU")
    (rows, D), M = shape(table), prod(shape(tokens))
    constants, parts = stored_weight("table", table)
    constants |= {"M": M, "D": D, "ROWS": rows, "TILE_SIZE": max(1, _TILE // D)}
    y = Tensor.empty(M, D, device=tokens.device)
    inputs = {"tokens": tokens, **parts}
    (y,) = launch("embed", constants, {"y": y}, inputs, gradient=_gradient)
    return y.reshape(*tokens.shape, D)


def _gradient(gradient: UOp, call: UOp) -> tuple[UOp | None, ...]:
    tokens, table = (Tensor(uop) for uop in call.src[2:4])
    (rows, D), M = shape(table), prod(shape(tokens))
    run = -(-rows // (4 * NUM_CPU_THREADS.value))
    constants = {"M": M, "D": D, "ROWS": rows, "TILE_SIZE": run}
    out = Tensor.empty(rows, D, device=table.device)
    inputs = {"tokens": tokens, "dy": Tensor(gradient)}
    (out,) = launch("embed_gradient", constants, {"table": out}, inputs)
    return None, None, out.cast(table.dtype).uop, None
