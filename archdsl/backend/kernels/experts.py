"""The rows that an expert computes, on the CPU: those whose gate is not 0."""

from __future__ import annotations

from tinygrad import Tensor, dtypes

from archdsl.backend.kernels.launch import launch
from archdsl.backend.tensors import shape

_TILE = 4096  # numbers


def gather_rows(x: Tensor, gates: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of x [M, D] that chose expert `which` [1] by its gates [M, E], and what
    `products.linear` and `scatter_rows` need: [M, D], of which only the first count, and
    [1 + M], their number and indices. There is no gradient."""
    constants = _constants(x, gates)
    y = Tensor.empty(*shape(x), device=x.device)
    rows = Tensor.empty(1 + shape(x)[0], dtype=dtypes.int32, device=x.device)
    inputs = {"x": x, "gates": gates, "which": which}
    y, rows = launch("gather_rows", constants, {"y": y, "rows": rows}, inputs)
    return y, rows


def scatter_rows(
    y: Tensor | None, part: Tensor, gates: Tensor, which: Tensor, rows: Tensor
) -> Tensor:
    """Adds the first rows of part [M, D], times their gates, to y [M, D] in place (None: 0)."""
    constants = _constants(part, gates) | {"FIRST": int(y is None)}
    y = Tensor.empty(*shape(part), device=part.device) if y is None else y
    inputs = {"part": part, "gates": gates, "which": which, "rows": rows}
    (y,) = launch("scatter_rows", constants, {"y": y}, inputs)
    return y


def _constants(x: Tensor, gates: Tensor) -> dict[str, object]:
    (M, D), E = shape(x), shape(gates)[1]
    return {"M": M, "D": D, "E": E, "TILE_SIZE": max(1, _TILE // D)}
