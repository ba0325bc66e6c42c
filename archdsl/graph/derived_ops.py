"""Operators that passes insert and that no spec can name: the rows `DERIVED`.

A decoding step uses them for positions, caches and lengths.
"""

from __future__ import annotations

from archdsl.graph import positions, shapes
from archdsl.graph.signature import Kind, Op, Param

_X = Param("x", Kind.TENSOR)

_ROWS = (
    Op(
        "positions",
        (_X, Param("past", Kind.TENSOR), Param("left_pad", Kind.TENSOR)),
        positions.positions,
        "The position int[T] of each new vector of `x` in its row: its column, which is its "
        "number among the new ones and the number `past` of columns before, less the column "
        "that the row `starts` in; 0 for the padding in front of a row.",
        example="positions(x, past, left_pad)",
    ),
    Op(
        "shift",
        (_X, Param("by", Kind.INT)),
        positions.shift,
        "A whole number, and `by` more: where rows start on an axis that begins later.",
        example="shift(left_pad, 1)",
    ),
    Op(
        "append",
        (_X, Param("new", Kind.TENSOR), Param("past", Kind.TENSOR)),
        positions.append,
        "The cache `x` with the `new` vectors written in place, from column `past` on. A cache "
        "of fixed size is a ring: a column takes the place of the one so many before it.",
        example="append(cache, k, past)",
    ),
    Op(
        "last",
        (_X, Param("axis", Kind.AXIS)),
        shapes.last,
        "The last position along an axis, which is 1 long then.",
        example="last(x, T)",
    ),
    Op(
        "length",
        (_X, Param("pad", Kind.INT, 0)),
        positions.length,
        "How many positions of tokens padded with `pad` are there, for each row.",
        example="length(tokens, 0)",
    ),
)

DERIVED = {op.name: op for op in _ROWS}
