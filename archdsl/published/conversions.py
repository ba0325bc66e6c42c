"""Conversions between a checkpoint's tensors and a model's weights, in both directions.

A conversion only moves numbers, so it is exact in any dtype and can be undone; `plus` and
`weight_norm`, which calculate in float32, are the exceptions. The shapes of
the model's weights determine those of the checkpoint. `CONVERSIONS` has a row for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from archdsl.diagnostics import fail
from archdsl.frozen import Frozen

if TYPE_CHECKING:  # numpy is slow to import, and checking a model does not need it
    from numpy.typing import NDArray

T = TypeVar("T")
Shape: TypeAlias = tuple[int, ...]
Shapes: TypeAlias = tuple[Shape, ...]
Numbers: TypeAlias = tuple[Any, ...]
Arrays: TypeAlias = "list[NDArray[Any]]"
# Arrays on one side of a conversion, and the shapes on the other side.
Step: TypeAlias = "Callable[[Arrays, Conversion, Shapes], Arrays]"


class ConversionError(Exception):
    """Raised if a conversion cannot produce tensors of these shapes."""


class Conversion(Frozen):
    """One conversion from a checkpoint's tensors to weights, such as `shaped(1, 1, D)`.

    `parts` is how many names those of `LISTED` have in braces; 0: all that are given.
    """

    name: str
    numbers: Numbers = ()
    parts: int = 0

    def before(self, after: Shapes, count: int) -> Shapes:
        """The shapes of the `count` tensors that are converted to the shapes `after`."""
        return CONVERSIONS[self.name].before(after, count, self)

    def apply(self, arrays: Arrays, after: Shapes) -> Arrays:
        """Converts arrays to the shapes `after`."""
        return CONVERSIONS[self.name].apply(arrays, self, after)

    def undo(self, arrays: Arrays, before: Shapes) -> Arrays:
        """Converts arrays back to the shapes `before`."""
        return CONVERSIONS[self.name].undo(arrays, self, before)

    @property
    def by_rows(self) -> bool:
        """Whether it only moves whole rows."""
        return CONVERSIONS[self.name].by_rows

    @property
    def calculates(self) -> bool:
        """Whether it changes the numbers."""
        return CONVERSIONS[self.name].calculates


class Row(Frozen):
    """A row of the table of conversions.

    `numbers` is how many arguments it may take (None: one or more) and `written` an example of
    them. `before` computes the shapes before the conversion from those after it. `by_rows` is
    whether it only moves whole rows, `calculates` whether it changes the numbers.
    """

    numbers: tuple[int, ...] | None
    written: str
    before: Callable[[Shapes, int, Conversion], Shapes]
    apply: Step
    undo: Step
    by_rows: bool = False
    calculates: bool = False


# -- the shapes before a conversion, from those after it --


def _before_transpose(after: Shapes, count: int, step: Conversion) -> Shapes:
    if any(len(shape) != 2 for shape in after):
        raise ConversionError("`transpose` needs a matrix")
    return tuple((columns, rows) for rows, columns in after)


def _before_split(after: Shapes, count: int, step: Conversion) -> Shapes:
    groups = step.numbers[0] if step.numbers else 1
    found = []
    for parts in _several(after, step.parts or len(after)):
        first, *others = parts
        if not first or any(shape[1:] != first[1:] for shape in others):
            raise ConversionError(
                "the parts of a `split` must have equal sizes on all axes but the first"
            )
        if any(shape[0] % groups for shape in parts):
            raise ConversionError(f"the rows of a part cannot be divided into {groups} groups")
        found.append((sum(shape[0] for shape in parts), *first[1:]))
    return tuple(found)


def _before_concat(after: Shapes, count: int, step: Conversion) -> Shapes:
    groups = step.numbers[0] if step.numbers else 1
    parts = step.parts or count
    if any(not shape or shape[0] % (parts * groups) for shape in after):
        raise ConversionError(
            f"the first axis cannot be divided into {parts * groups} equal parts"
        )
    return tuple((shape[0] // parts, *shape[1:]) for shape in after for _ in range(parts))


def _before_stacked(after: Shapes, count: int, step: Conversion) -> Shapes:
    if len(set(after)) > 1:
        raise ConversionError("the parts of a `stacked` tensor must have equal shapes")
    return ((len(after), *after[0]),)


def _before_shaped(after: Shapes, count: int, step: Conversion) -> Shapes:
    if any(prod(shape) != prod(step.numbers) for shape in after):
        raise ConversionError(
            f"{list(after[0])} and {list(step.numbers)} have different numbers of elements"
        )
    return (step.numbers,) * len(after)


def _before_halves(after: Shapes, count: int, step: Conversion) -> Shapes:
    (heads,) = step.numbers
    if any(not shape or shape[0] % (2 * heads) for shape in after):
        raise ConversionError(f"the rows cannot be divided into {heads} heads of pairs")
    return after


def _before_without(after: Shapes, count: int, step: Conversion) -> Shapes:
    part, parts = step.numbers
    if not part <= parts > 1:
        raise ConversionError(f"there is no part {part} of {parts} to leave out")
    if any(not shape or shape[0] % (parts - 1) for shape in after):
        raise ConversionError(f"the rows cannot be divided into {parts - 1} equal parts")
    return tuple((shape[0] // (parts - 1) * parts, *shape[1:]) for shape in after)


def _before_weight_norm(after: Shapes, count: int, step: Conversion) -> Shapes:
    (axis,) = step.numbers
    if (step.parts or count) != 2:
        raise ConversionError("`weight_norm` needs two tensors, such as `{weight_g,weight_v}`")
    found: list[Shape] = []
    for shape in after:
        if type(axis) is not int or not 0 <= axis < len(shape):
            raise ConversionError(f"`weight_norm` needs one of the {len(shape)} axes, from 0")
        found += [tuple(n if i == axis else 1 for i, n in enumerate(shape)), shape]
    return tuple(found)


# -- arrays --


def _transpose(arrays: Arrays, step: Conversion, shapes: Shapes) -> Arrays:
    return [array.T for array in arrays]


def _split(arrays: Arrays, step: Conversion, shapes: Shapes) -> Arrays:
    """The rows of a tensor are groups; each has its share of each part, in their order."""
    groups = step.numbers[0] if step.numbers else 1
    found: Arrays = []
    several = _several(shapes, len(shapes) // len(arrays))
    for array, parts in zip(arrays, several, strict=True):
        rows = array.reshape(groups, -1, *array.shape[1:])
        ends = accumulate((shape[0] // groups for shape in parts), initial=0)
        pieces = (rows[:, start:end] for start, end in pairwise(ends))
        found += [
            piece.reshape(shape[0], *array.shape[1:])
            for piece, shape in zip(pieces, parts, strict=True)
        ]
    return found


def _join(arrays: Arrays, step: Conversion, shapes: Shapes) -> Arrays:
    import numpy as np

    groups = step.numbers[0] if step.numbers else 1
    found: Arrays = []
    for parts, shape in zip(_several(arrays, len(arrays) // len(shapes)), shapes, strict=True):
        rows = [part.reshape(groups, -1, *part.shape[1:]) for part in parts]
        found.append(np.concatenate(rows, axis=1).reshape(shape[0], *parts[0].shape[1:]))
    return found


def _several(each: Sequence[T], count: int) -> Iterator[Sequence[T]]:
    """The elements in groups of `count`."""
    return (each[start : start + count] for start in range(0, len(each), count))


def _unstack(arrays: Arrays, step: Conversion, shapes: Shapes) -> Arrays:
    return list(arrays[0])


def _stack(arrays: Arrays, step: Conversion, shapes: Shapes) -> Arrays:
    import numpy as np

    return [np.stack(arrays)]


def _reshape(arrays: Arrays, step: Conversion, shapes: Shapes) -> Arrays:
    return [array.reshape(shape) for array, shape in zip(arrays, shapes, strict=True)]


def _halves(arrays: Arrays, step: Conversion, shapes: Shapes) -> Arrays:
    """Rows (head, pair, 2) become (head, 2, pair)."""
    (heads,) = step.numbers
    return [
        a.reshape(heads, -1, 2, *a.shape[1:]).swapaxes(1, 2).reshape(a.shape) for a in arrays
    ]


def _pairs(arrays: Arrays, step: Conversion, shapes: Shapes) -> Arrays:
    """Rows (head, 2, pair) become (head, pair, 2)."""
    (heads,) = step.numbers
    return [
        a.reshape(heads, 2, -1, *a.shape[1:]).swapaxes(1, 2).reshape(a.shape) for a in arrays
    ]


def _without(arrays: Arrays, step: Conversion, shapes: Shapes) -> Arrays:
    """Drops the rows of one part, which must be exactly zero."""
    import numpy as np

    part, parts = step.numbers
    results = []
    for array in arrays:
        rows = np.split(np.ascontiguousarray(array), parts)
        if rows.pop(part - 1).view(np.uint8).any():
            fail(
                "checkpoint",
                f"part {part} of {parts} of a tensor {list(array.shape)} is not in the model",
                expected="zeros",
                found="other numbers",
            )
        results.append(np.concatenate(rows))
    return results


def _with_zeros(arrays: Arrays, step: Conversion, shapes: Shapes) -> Arrays:
    import numpy as np

    part, parts = step.numbers
    rows = [np.split(array, parts - 1) for array in arrays]
    return [np.concatenate([*r[: part - 1], np.zeros_like(r[0]), *r[part - 1 :]]) for r in rows]


def _plus(arrays: Arrays, step: Conversion, shapes: Shapes) -> Arrays:
    return [array + array.dtype.type(step.numbers[0]) for array in arrays]


def _minus(arrays: Arrays, step: Conversion, shapes: Shapes) -> Arrays:
    return [array - array.dtype.type(step.numbers[0]) for array in arrays]


def _norm(array: NDArray[Any], axis: int) -> NDArray[Any]:
    """The norm over all axes but one, of size 1 along the others: [1, …, n, …, 1]."""
    import numpy as np

    others = tuple(i for i in range(array.ndim) if i != axis)
    squares = np.square(array, dtype=np.float64).sum(others, keepdims=True)
    found: NDArray[Any] = np.sqrt(squares).astype(array.dtype)
    return found


def _weight_norm(arrays: Arrays, step: Conversion, shapes: Shapes) -> Arrays:
    """v * g / |v| (Salimans and Kingma 2016), for each g and v."""
    import numpy as np

    found: Arrays = []
    for g, v in _several(arrays, 2):
        norm = _norm(v, step.numbers[0])
        found.append(v * np.divide(g, norm, out=np.zeros_like(norm), where=norm != 0))
    return found


def _norm_and_weight(arrays: Arrays, step: Conversion, shapes: Shapes) -> Arrays:
    return [part for array in arrays for part in (_norm(array, step.numbers[0]), array)]


def _same(after: Shapes, count: int, step: Conversion) -> Shapes:
    return after


CONVERSIONS: dict[str, Row] = {
    "transpose": Row((0,), "", _before_transpose, _transpose, _transpose),
    "split": Row((0, 1), "(heads)", _before_split, _split, _join, by_rows=True),
    "concat": Row((0, 1), "(heads)", _before_concat, _join, _split),
    "stacked": Row((0,), "", _before_stacked, _unstack, _stack, by_rows=True),
    "shaped": Row(None, "(1, 1, D)", _before_shaped, _reshape, _reshape),
    "halves": Row((1,), "(heads)", _before_halves, _halves, _pairs, by_rows=True),
    "without": Row((2,), "(2, 3)", _before_without, _without, _with_zeros),
    "plus": Row((1,), "(1)", _same, _plus, _minus, calculates=True),
    "weight_norm": Row(
        (1,), "(0)", _before_weight_norm, _weight_norm, _norm_and_weight, calculates=True
    ),
}

# A list on the right names the tensors that become one weight.
JOINED = ("concat", "weight_norm")
LISTED = ("split", *JOINED)
