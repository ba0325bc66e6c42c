"""Examples that are records, such as pairs of texts: tokens on disk, padded in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archdsl.cache import key_of
from archdsl.diagnostics import fail
from archdsl.frozen import Frozen
from archdsl.graph.nodes import Graph, Input
from archdsl.graph.types import Size, Varying
from archdsl.training import token_file

LEAST = 8  # positions of the shortest batch
_BLOCK = 1024  # examples that are written at once

Values = Mapping[str, NDArray[Any]]  # of an example: [n] or [] by input


class Column(Frozen):
    """The values of an input in all examples.

    `numbers` [all values]: example i has those from `starts[i]` to `starts[i + 1]`. `axis` is
    the varying axis along which they differ in number, `fill` what pads them, if anything can.
    """

    each: Input
    numbers: NDArray[Any]
    starts: NDArray[np.int64]
    axis: str | None
    fill: int | None

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.starts)


class RecordRows:
    """Examples whose values are stored in columns. A batch is padded to one of a few lengths,
    so that few programs are compiled."""

    def __init__(self, columns: Sequence[Column], graph: Graph, checksum: str):
        self.columns = columns
        self.fingerprint = key_of("rows", checksum)
        self.axes = {each.name: each for each in graph.varying}
        longest: dict[str, int] = {}
        for column in columns:
            if column.axis is not None:
                most = int(column.lengths.max())
                longest[column.axis] = max(most, longest.get(column.axis, 0))
        exact = {each.axis for each in columns if each.fill is None}
        self.steps = {
            name: [length] if name in exact else _lengths(length, self.axes[name])
            for name, length in longest.items()
        }

    def __len__(self) -> int:
        return len(self.columns[0].starts) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[n]: the larger, the more positions an example needs in a batch, then by itself."""
        varying = [(c.lengths, self.steps[c.axis]) for c in self.columns if c.axis is not None]
        zeros = np.zeros(len(self), np.int64)
        places = [np.searchsorted(steps, lengths) for lengths, steps in varying]
        own = sum((lengths for lengths, _ in varying), zeros)
        found: NDArray[np.int64] = np.max([zeros, *places], axis=0) * (own.max() + 1) + own
        return found

    def batch(self, numbers: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """The rows of `numbers` [B], each [B] or [B, length], padded at the end."""
        sizes = self._sizes(numbers)
        found = {}
        for column in self.columns:
            kind, starts = column.each.type.dtype, column.starts[numbers]  # [B]
            lengths = column.starts[numbers + 1] - starts  # [B]
            dtype = {"int": np.int32, "float": np.float32, "bool": np.bool_}[kind]
            width = sizes[column.axis] if column.axis else int(lengths.max())
            rows: NDArray[Any] = np.full((len(numbers), width), column.fill or 0, dtype)
            for row, start, length in zip(rows, starts, lengths, strict=True):
                row[:length] = column.numbers[start : start + length]
            found[column.each.name] = rows if column.each.type.axes else rows[:, 0]
        return found

    def _sizes(self, numbers: NDArray[np.int64]) -> dict[str, int]:
        """The length of each axis in a batch: all axes have the same place in their steps."""
        place = 0
        for column in self.columns:
            if column.axis is not None:
                most = (column.starts[numbers + 1] - column.starts[numbers]).max()
                place = max(place, int(np.searchsorted(self.steps[column.axis], most)))
        return {name: steps[min(place, len(steps) - 1)] for name, steps in self.steps.items()}

    def describe(self) -> str:
        lengths = [
            f"`{c.each.name}` of {c.lengths.min()} to {c.lengths.max()}"
            for c in self.columns
            if c.axis is not None
        ]
        return f"{len(self):,} examples" + (f", {', '.join(lengths)}" if lengths else "")


def _lengths(longest: int, axis: Varying) -> list[int]:
    """The lengths of batches for an axis, rising: the longest, its half, and so on.

    >>> _lengths(100, Varying("T", 512))
    [13, 26, 52, 104]
    """
    found = [min(-(-longest // LEAST) * LEAST, axis.bound)]
    while found[0] // 2 > LEAST and found[0] // 2 >= axis.least:
        found.insert(0, -(-found[0] // 2))
    return found


def varying_axis(each: Input) -> str | None:
    """The varying axis of an input of records; None if it has a fixed size, or no axis.

    Raises `ArchError` (`input`) for an input that a record cannot have.
    """
    match each.type.axes:
        case ():
            return None
        case (axis,) if axis.size.value is not None:
            return None
        case (axis,):
            name = next(iter(axis.size.vars))
            if axis.size == Size.of(name):
                return name
    fail(
        "input",
        f"`{each.name}` cannot be a field of a record",
        each.span,
        expected="a number, or a list of numbers or a text along one axis",
        found=str(each.type),
        help="give arrays: a file .npz",
    )


def stored_rows(
    graph: Graph,
    inputs: Sequence[Input],
    fills: Mapping[str, int | None],
    key: str,
    examples: Callable[[], Iterable[tuple[str, Values]]],
    kinds: Mapping[str, type[np.generic]],
) -> RecordRows:
    """The columns of examples, from the cache or written to it.

    `fills` are the numbers that pad each input; None if it cannot be padded. `examples` gives
    the place and the values of each; `kinds` are the types of the stored numbers.
    """
    paths = {each.name: token_file.place_of(key_of(key, each.name)) for each in inputs}
    found = _read(paths)
    if found is None:
        _write(graph, inputs, paths, examples(), kinds)
        found = _read(paths)
    if found is None or not len(next(iter(found.values()))[1].numbers) - 1:
        fail("input", "there are no examples in the data", help="give a file that is not empty")
    columns = []
    for each in inputs:
        numbers, starts = found[each.name]
        fill = fills.get(each.name)
        axis = varying_axis(each)
        columns.append(Column(each, numbers.numbers, starts.numbers, axis, fill))
        if fill is None and axis and len(np.unique(np.diff(starts.numbers))) > 1:
            lengths = np.diff(starts.numbers)
            fail(
                "input",
                f"examples have different lengths, but `{each.name}` has no padding",
                each.span,
                found=f"{lengths.min()} to {lengths.max()} positions",
                help=f"write `pad 0` at `{each.name}` in the spec, if 0 is no token of a text",
            )
    checksum = key_of(*(part.checksum for each in inputs for part in found[each.name]))
    return RecordRows(columns, graph, checksum)


_Paired = dict[str, tuple[token_file.Stored, token_file.Stored]]


def _read(paths: Mapping[str, Path]) -> _Paired | None:
    found = {}
    for name, path in paths.items():
        both = [token_file.read(path.with_suffix(each)) for each in (".tokens", ".starts")]
        if both[0] is None or both[1] is None:
            return None
        found[name] = (both[0], both[1])
    return found


def _write(
    graph: Graph,
    inputs: Sequence[Input],
    paths: Mapping[str, Path],
    examples: Iterable[tuple[str, Values]],
    kinds: Mapping[str, type[np.generic]],
) -> None:
    """Writes the numbers and the starts of each column, example by example."""
    with ExitStack() as stack:
        add = {
            name: tuple(
                stack.enter_context(token_file.writing(path.with_suffix(suffix), kind))
                for suffix, kind in ((".tokens", kinds[name]), (".starts", np.int64))
            )
            for name, path in paths.items()
        }
        ends = dict.fromkeys(paths, 0)
        for _, starts in add.values():
            starts(np.zeros(1))
        axes = {each.name: varying_axis(each) for each in inputs}
        examples = iter(examples)
        while block := [*islice(examples, _BLOCK)]:
            for place, values in block:
                _check_lengths(graph, inputs, axes, place, values)
            for each in inputs:
                numbers, starts = add[each.name]
                rows = [values[each.name].reshape(-1) for _, values in block]  # [n] each
                _check_range(each, [place for place, _ in block], rows)
                numbers(np.concatenate(rows))
                lengths = np.array([len(row) for row in rows])  # [block]
                starts(ends[each.name] + lengths.cumsum())
                ends[each.name] += int(lengths.sum())


def _check_lengths(
    graph: Graph,
    inputs: Sequence[Input],
    axes: Mapping[str, str | None],
    place: str,
    values: Values,
) -> None:
    """Reports values of an example that are too many or too few."""
    varying = {each.name: each for each in graph.varying}
    sizes: dict[str, tuple[int, str]] = {}
    for each in inputs:
        row, axis = values[each.name], axes[each.name]
        expected = None
        if axis is None:
            size = each.type.axes[0].size.value if each.type.axes else 1
            expected = None if row.size == size else f"{size} numbers"
        else:
            least, bound = varying[axis].least, varying[axis].bound
            if not least <= len(row) <= bound:
                expected = f"{least} to {bound}, for the axis `{axis}`"
            length, other = sizes.setdefault(axis, (len(row), each.name))
            if length != len(row):
                expected = f"{length}, as `{other}` has"
        if expected is not None:
            fail(
                "input",
                f"{place}: `{each.name}` has a wrong length",
                each.span,
                expected=expected,
                found=f"{row.size}",
                help="shorten the example, leave it out, or allow more in the spec",
            )


def _check_range(each: Input, places: Sequence[str], rows: Sequence[NDArray[Any]]) -> None:
    """Reports a number that an input does not have."""
    below = each.type.below
    if below is None:
        return
    whole = np.concatenate(rows)
    if not whole.size or 0 <= whole.min() <= whole.max() < below:
        return
    for place, row in zip(places, rows, strict=True):
        if row.size and not 0 <= row.min() <= row.max() < below:
            fail(
                "input",
                f"{place}: a number of `{each.name}` is out of range",
                each.span,
                expected=f"0 to {below - 1}",
                found=f"{row.min()} to {row.max()}",
            )
