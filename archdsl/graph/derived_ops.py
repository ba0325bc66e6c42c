"""Operators that passes insert and that no spec can name: the rows `DERIVED`.

A decoding step uses them for positions, caches and lengths.
"""

from __future__ import annotations

from archdsl.graph import positions, shapes
from archdsl.graph.params import X, axis, integer, tensor
from archdsl.graph.signature import Op

_ROWS = (
    Op(
        "prefixed",
        (X, tensor("prefix"), tensor("at"), axis()),
        positions.prefixed,
        "Puts the vectors of `prefix` [k, D] at the positions 0 to k - 1: where the position "
        "`at` of a vector of `x` is less than k, the result is `prefix` at this position.",
        example="prefixed(x, prefix, at, T)",
    ),
    Op(
        "append",
        (X, tensor("new"), tensor("past")),
        positions.append,
        "Writes the `new` vectors into the cache `x` in place, from cache position `past` on. "
        "A cache of fixed size is a sliding window: new vectors overwrite the oldest ones.",
        example="append(cache, k, past)",
    ),
    Op(
        "extend",
        (X, tensor("new"), tensor("past"), tensor("left_pad")),
        positions.extend,
        "Puts the positions `x`, kept from earlier steps, before the `new` ones: [n + T, …]. "
        "Those before the first token of a row, or before `left_pad`, are 0.",
        example="extend(tail, x, past, left_pad)",
    ),
    Op(
        "store",
        (X, tensor("new"), tensor("past")),
        positions.store,
        "Writes the `new` value into the state `x` in place; of a sequence with more positions "
        "than `x` the last ones.",
        example="store(tail, extended, past)",
    ),
    Op(
        "valid",
        (X, tensor("past"), tensor("left_pad")),
        positions.valid,
        "Whether each new position of `x` is a token, bool[T], and not left padding.",
        example="valid(x, past, left_pad)",
    ),
    Op(
        "begin",
        (X, tensor("start"), tensor("past")),
        positions.begin,
        "The state `x` of earlier steps, or `start` in the first step of a sequence.",
        example="begin(x, start, past)",
    ),
    Op(
        "last",
        (X, axis()),
        shapes.last,
        "Selects the last position along an axis and keeps the axis, with size 1.",
        example="last(x, T)",
    ),
    Op(
        "length",
        (X, integer("pad", 0)),
        positions.length,
        "The number of positions of each row that are not `pad`.",
        example="length(tokens, 0)",
    ),
)

DERIVED = {op.name: op for op in _ROWS}
