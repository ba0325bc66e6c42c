"""Scans: a state that each position of a sequence gets from the one before it.

A scan is computed position by position, in float32. A state has the shape [B, …], or [1, …]
while it is the same for each example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from tinygrad import Tensor, dtypes

from archdsl.backend.context import ExecutionContext
from archdsl.backend.tensors import make_contiguous, shape
from archdsl.graph.nodes import Apply, Scan

_INPUTS = 16  # of a kernel that joins positions

Call = Callable[[Apply, Mapping[str, Any]], Tensor]


def scan(
    context: ExecutionContext, node: Scan, values: Mapping[str, Any], call: Call
) -> tuple[Tensor, Tensor]:
    """The value of a scan, [B, T, …], and the state that the last position passes on, [B, …].

    `call` computes an operator of the body from the values by id.
    """
    outer = {each.id: in_float32(values[each.of]) for each in node.takes}  # [B, T, …] each
    outer = {id: context.realize_layer(make_contiguous(each)) for id, each in outer.items()}
    state, valid = first_state(context, node, values), None
    if node.valid is not None:
        valid = context.realize_layer(make_contiguous(values[node.valid]))  # [B, T]
    inner, read = dict(values), []
    for i in range(positions(context, node)):
        inner |= {id: _at(context, each, i) for id, each in outer.items()}  # [B, …] each
        inner[node.carry] = state
        for each in node.body:
            inner[each.id] = call(each, inner)
        updated: Tensor = in_float32(inner[node.result])  # [B, …]
        if valid is not None:
            kept = _at(context, valid, i).reshape(-1, *[1] * (updated.ndim - 1))  # [B, 1, …]
            updated = kept.where(updated, state)  # [B, …]
        # Computed here: otherwise each position would compute all those before it again.
        updated = updated.contiguous()  # [B, …]
        value = updated if node.output == node.result else in_float32(inner[node.output])
        if not context.trains:
            value = value.contiguous()
            Tensor.realize(updated, value)
        state = updated
        read.append(value)
    batch = max(shape(each)[0] for each in read)
    return _joined([each.expand(batch, *each.shape[1:]).unsqueeze(1) for each in read]), state


def _at(context: ExecutionContext, x: Tensor, i: int) -> Tensor:
    """The value [B, …] of x [B, T, …] at a position.

    The position is a tensor, so that one kernel serves all positions.
    """
    if context.trains:
        return x[:, i]  # [B, …]
    key = ("position", i)
    position = context.constant(key, lambda: np.array([i], np.int32))  # [1]
    found: Tensor = x[:, position].squeeze(1)  # [B, …]
    return found


def _joined(parts: list[Tensor]) -> Tensor:
    """Parts [B, 1, …] along the second axis, by kernels with few inputs."""
    while len(parts) > 1:
        groups = [parts[i : i + _INPUTS] for i in range(0, len(parts), _INPUTS)]
        parts = [one[0].cat(*one[1:], dim=1).contiguous() for one in groups]
    return parts[0]


def positions(context: ExecutionContext, node: Scan) -> int:
    """The number of positions of a scan."""
    return node.along.size.at(context.sizes)


def first_state(context: ExecutionContext, node: Scan, values: Mapping[str, Any]) -> Tensor:
    """The state that the first position receives, [B, …] or [1, …]."""
    if node.start is not None:
        start: Tensor = in_float32(values[node.start])  # [B, …]
        return start
    sizes = (axis.size.at(context.sizes) for axis in node.carry_type.axes)
    return Tensor.zeros(1, *sizes, device=context.device)


def in_float32(value: Any) -> Any:
    """A float tensor in float32; other values unchanged."""
    floats = isinstance(value, Tensor) and value.is_floating_point()
    return value.cast(dtypes.float32) if floats else value
