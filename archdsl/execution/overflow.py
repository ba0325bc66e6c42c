"""Names the first value of a program that is not finite, where a dtype has a small range."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from tinygrad import Tensor

from archdsl.backend import interpret
from archdsl.backend.context import ExecutionContext
from archdsl.diagnostics import fail
from archdsl.execution.ranges import LARGEST
from archdsl.graph.nodes import Apply


def all_finite(tensors: list[Tensor]) -> Tensor:
    """Whether all numbers of float32 tensors are finite: int32 []."""
    flags = [tensor.isfinite().all().reshape(1) for tensor in tensors]
    return flags[0].cat(*flags[1:]).all().cast("int32")


def report_overflow(context: ExecutionContext, inputs: Mapping[str, Any]) -> None:
    """Runs a program again, one operator at a time, and raises `ArchError` "overflow" at the
    first value that is not finite.

    Returns if there is none: only positions of padding may have been infinite.
    """
    for each in context.graph.inputs:
        if (found := _first(inputs.get(each.name))) is not None:
            _report(context, f"the input `{each.name}` is not finite in", each.span, found)

    def probe(node: Apply, path: str, value: Any) -> None:
        if (found := _first(value)) is not None:
            operator = " then ".join([node.op, *(tail.op for tail in node.tail)])
            message = f"`{operator}` at `{path}` gives a number that is not finite in"
            _report(context, message, node.span, found)

    context.probe = probe
    interpret.forward(context, inputs)


def _first(value: Any) -> str | None:
    """The first number of a float tensor that is not finite, with its place."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return None
    stored = value.contiguous().realize()  # else a kernel could keep it in float32
    numbers = stored.cast("float32").numpy()
    places = np.argwhere(~np.isfinite(numbers))
    if not len(places):
        return None
    place = places[0].tolist()
    return f"{numbers[tuple(place)]} at {place}"


def _report(context: ExecutionContext, message: str, span: Any, found: str) -> None:
    dtype = context.program.dtype
    fail(
        "overflow",
        f"{message} {dtype}",
        span,
        expected=f"numbers up to {LARGEST[dtype]:g}",
        found=found,
        help="load the model with dtype float32 or bfloat16",
    )
