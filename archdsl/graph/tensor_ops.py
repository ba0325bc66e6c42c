"""Operators on axes by name and by data: the rows `TENSOR_OPS`."""

from __future__ import annotations

from archdsl.graph import contraction, shapes
from archdsl.graph.params import X, axis, integer, tensor
from archdsl.graph.signature import Kind, Op, Param

TENSOR_OPS = (
    Op(
        "sum",
        (X, axis(None)),
        shapes.sum_,
        "The sum along an axis (default: the last); of bools, how many are true, a "
        "whole number. Padding of a ragged axis counts as 0.",
        example="sum(T)",
    ),
    Op(
        "max",
        (X, axis(None)),
        shapes.max_,
        "The maximum along an axis (default: the last). Padding of a ragged axis is ignored.",
        example="max(T)",
    ),
    Op(
        "top",
        (X, integer("count")),
        shapes.top,
        "1 for each of the `count` largest numbers along the last axis, and 0 for the others. "
        "Of equal numbers the first is chosen. It has no gradient: multiply by it to select.",
        example="top(2)",
    ),
    Op(
        "contract",
        (Param("pattern", Kind.TEXT), X, tensor("other", None)),
        contraction.contract,
        "The sum of products over axes (Einstein summation). The pattern names the axes of "
        "each tensor in order, then those of the result; names that the result lacks are "
        "summed over. Padding of a ragged axis counts as 0.",
        flops=contraction.contract_flops,
        example='contract("i k c, j k c -> i j c", a, b)',
    ),
    Op(
        "take",
        (X, tensor("index"), Param("pattern", Kind.TEXT, None)),
        contraction.take,
        "Selects positions of an axis by whole numbers; the table may have whole numbers too. "
        "By default the axis is the first one, and the axes of `index` replace it. A pattern "
        "such as `T R, T S -> T S` names the axes of the table, of the index and of the "
        "result: axes of the same name belong together, and the axis that the result lacks is "
        "looked up in.",
        example="take(table, ids)",
    ),
)
