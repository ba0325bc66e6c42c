"""Checks the values given to a model against the types of its inputs, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archdsl.diagnostics import ArchError, Diagnostic, did_you_mean, listing
from archdsl.graph.nodes import Graph, Input
from archdsl.graph.types import Size

# The dtype of the array of an input, by that of its type.
ARRAY_DTYPES = {
    "int": np.dtype(np.int32),
    "float": np.dtype(np.float32),
    "bool": np.dtype(np.bool_),
}
_INT32 = (-(2**31), 2**31 - 1)


def check(
    graph: Graph, given: Mapping[str, Any], labels: bool = False, rows: int = 1
) -> dict[str, NDArray[Any]]:
    """The inputs of a graph as arrays of int32, float32 or bool, batch axis first.

    A value is an array, a tinygrad tensor or nested lists, of shape [B, …] with the axes of its
    input's type. Inputs that are not given have their default; if none is given, the batch has
    `rows`. Raises `ArchError` (code `input`) with every mistake: an unknown or missing
    name, a wrong dtype, rank or size, numbers outside of a bound, padding that is not at the
    end, two inputs whose lengths along one axis differ, NaN and infinity.
    """
    wanted = {i.name: i for i in (*graph.inputs, *(graph.labels if labels else ()))}
    problems = _names(graph, wanted, given)
    arrays: dict[str, NDArray[Any]] = {}
    sizes: dict[str, tuple[int, str]] = {}
    for name, each in wanted.items():
        if name not in given:
            continue
        try:
            found = _value(graph, each, _array(given[name]), sizes)
        except ValueError as error:
            help = f"pad shorter rows with {each.pad}" if each.pad is not None else None
            message = f"`{name}` is not an array of numbers"
            found = Diagnostic("input", message, each.span, _type(each), str(error), help=help)
        except MemoryError as error:
            message, help = f"`{name}` does not fit into memory", "give fewer rows"
            found = Diagnostic("input", message, each.span, None, str(error), help=help)
        if isinstance(found, Diagnostic):
            problems.append(found)
        else:
            arrays[name] = found
    problems += _lengths(graph, wanted, arrays)
    if problems:
        raise ArchError(problems)
    known = {"": rows} | {name: size for name, (size, _) in sizes.items()}
    absent = (each for each in wanted.values() if each.name not in given)
    return arrays | {each.name: filled(each, known) for each in absent}


def filled(each: Input, sizes: Mapping[str, int]) -> NDArray[Any]:
    """An input that has its default everywhere. `sizes` has the batch as ""."""
    shape = (sizes[""], *(axis.size.at(sizes) for axis in each.type.axes))
    return np.full(shape, each.default or 0, ARRAY_DTYPES[each.type.dtype])


def _names(
    graph: Graph, wanted: Mapping[str, Input], given: Mapping[str, Any]
) -> list[Diagnostic]:
    problems = []
    for name in given:
        if name not in wanted:
            label = any(i.name == name for i in graph.labels)
            help = "labels are for `model.loss` only" if label else did_you_mean(name, wanted)
            message = f"`{graph.name}` has no input `{name}`"
            problems.append(
                Diagnostic("input", message, expected=listing(wanted, "and"), help=help)
            )
    for name, each in wanted.items():
        if name not in given and each.default is None:
            message = f"the input `{name}` is missing"
            problems.append(Diagnostic("input", message, each.span, expected=_type(each)))
    return problems


def _array(value: Any) -> NDArray[Any]:
    """The value as an array. Raises ValueError with the reason if it cannot be one."""
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise ValueError("a masked array with masked elements")
    try:
        if hasattr(value, "cpu"):  # PyTorch, whose bfloat16 NumPy does not have
            value = value.detach().cpu()
            value = value.float() if value.is_floating_point() else value
        if hasattr(value, "numpy") and not isinstance(value, np.ndarray):
            value = value.numpy()
        return np.asarray(value)
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(value, list | tuple) and isinstance(error, ValueError):
            raise ValueError("a list whose rows have different lengths") from error
        raise ValueError(f"{type(value).__name__}: {error!s:.80}") from error


def _value(
    graph: Graph, each: Input, array: NDArray[Any], sizes: dict[str, tuple[int, str]]
) -> NDArray[Any] | Diagnostic:
    def mistake(message: str, found: str, help: str | None = None) -> Diagnostic:
        message = f"`{each.name}`: {message}"
        return Diagnostic("input", message, each.span, _type(each), found, help=help)

    shape = f"shape {list(array.shape)}"
    if 0 in array.shape:
        return mistake("it is empty", shape)
    kinds = {"int": "iu", "float": "fiu", "bool": "b"}[each.type.dtype]
    if array.dtype.kind not in kinds:
        return mistake(f"{each.type.dtype} values are needed", f"dtype {array.dtype}")
    if array.ndim != len(each.type.axes) + 1:
        help = None
        if array.ndim == len(each.type.axes):
            help = "the batch axis comes first: give `x[None]` for a batch of one"
        return mistake(f"{len(each.type.axes) + 1} axes are needed", shape, help)
    problem = _sizes(graph, each, array.shape, sizes)
    if problem:
        return mistake(problem, shape)
    if each.type.dtype == "float":
        with np.errstate(over="ignore"):  # too large becomes infinite, which is reported
            array = np.ascontiguousarray(array, dtype=np.float32)
        if not np.isfinite(array).all():
            place = np.argwhere(~np.isfinite(array))[0].tolist()
            return mistake("all numbers must be finite", f"{array[tuple(place)]} at {place}")
        return array
    if each.type.dtype == "bool":
        return array.astype(np.bool_)
    least, most = _INT32 if each.type.below is None else (0, each.type.below - 1)
    beyond = np.argwhere((array < least) | (array > most))
    if len(beyond):
        place = beyond[0].tolist()
        number = array[tuple(place)]
        return mistake(f"numbers must be {least} to {most}", f"{number} at {place}, {shape}")
    if each.pad is not None:
        problem = _padding(array, each.pad)
        if problem:
            return mistake(problem, f"{each.pad} before other numbers")
    return array.astype(np.int32)


def _sizes(
    graph: Graph, each: Input, shape: Sequence[int], sizes: dict[str, tuple[int, str]]
) -> str | None:
    """What is wrong with the sizes of an input's axes, if anything; varying sizes are noted."""
    batch = sizes.setdefault("", (shape[0], each.name))
    if batch[0] != shape[0]:
        return f"the batch is {shape[0]}, and `{batch[1]}` has {batch[0]}"
    varying = {v.name: v for v in graph.varying}
    for index, (axis, size) in enumerate(zip(each.type.axes, shape[1:], strict=True), 1):
        # The first input with axis `T` fixes its size; `T + 1` follows from it.
        name = next((name for name in axis.size.vars if axis.size == Size.of(name)), None)
        if name is None:
            known = {name: size for name, (size, _) in sizes.items()}
            if axis.size.vars <= known.keys() and size != axis.size.at(known):
                value = f" = {axis.size.at(known)}" if axis.size.vars else ""
                return f"axis {index} must be {axis}{value}"
            continue
        if not varying[name].least <= size <= varying[name].bound:
            between = f"{varying[name].least} to {varying[name].bound}"
            return f"axis {index} is `{name}`, which is {between}"
        before = sizes.setdefault(name, (size, each.name))
        if before[0] != size:
            return f"`{name}` is {size} here and {before[0]} in `{before[1]}`"
    return None


def _padding(array: NDArray[Any], pad: int) -> str | None:
    """What is wrong with the padding of tokens [B, T], if anything."""
    there = array != pad
    if not there[:, 0].all():
        row = int(np.argmin(there[:, 0]))
        return f"row {row} begins with padding, which is only allowed at the end"
    after_padding = there[:, 1:] & ~there[:, :-1]
    if after_padding.any():
        row = int(np.argmax(after_padding.any(axis=1)))
        return f"row {row} has padding before its end"
    return None


def _lengths(
    graph: Graph, wanted: Mapping[str, Input], arrays: Mapping[str, NDArray[Any]]
) -> list[Diagnostic]:
    """Inputs that are padded along the same axis to different lengths, or are too short."""
    problems = []
    for axis in graph.varying:
        padded = [i for i in wanted.values() if i.pad is not None and i.name in arrays]
        for each in (i for i in padded if axis.name in i.type.vars):
            counts = (arrays[each.name] != each.pad).sum(1)
            if counts.min() < axis.least:
                row = int(counts.argmin())
                message = f"`{each.name}` is too short along `{axis.name}`"
                expected = f"length {axis.least} or more"
                found = f"length {counts[row]} in row {row}"
                problems.append(Diagnostic("input", message, each.span, expected, found))
        for first, other in pairwise(i for i in padded if axis.name in i.type.vars):
            lengths = [(arrays[i.name] != i.pad).sum(1) for i in (first, other)]
            differing = np.flatnonzero(lengths[0] != lengths[1])
            if len(differing):
                row = int(differing[0])
                names = f"`{other.name}` and `{first.name}`"
                message = f"{names} have different lengths along `{axis.name}`"
                expected, found = (f"length {n[row]} in row {row}" for n in lengths)
                problems.append(Diagnostic("input", message, other.span, expected, found))
    return problems


def _type(each: Input) -> str:
    axes = ", ".join(["B", *map(str, each.type.axes)])
    below = f" < {each.type.below}" if each.type.below is not None else ""
    return f"{each.type.dtype}[{axes}]{below}"
