"""Tensors: files that nobody reads, values that no trained model has, and their dtypes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from archdsl.audit.findings import NOTE, RISKY, WRONG, Findings, some
from archdsl.audit.opened import Opened
from archdsl.audit.rotary_layout import check_layout
from archdsl.diagnostics import ArchError
from archdsl.execution.checkpoints import FLOATS, is_equal
from archdsl.execution.ranges import LARGEST, largest_magnitude
from archdsl.formats import LazyTensor
from archdsl.formats.checkpoint import unread_files
from archdsl.formats.single import read_file
from archdsl.frozen import Frozen
from archdsl.graph.cost import BYTES
from archdsl.pretrained import common_dtype
from archdsl.progress import each

_HALF = "float16"


class _Values(Frozen):
    """What an audit needs to know of the numbers of a tensor."""

    finite: bool
    constant: bool
    largest: float


def check(opened: Opened, findings: Findings) -> None:
    if opened.checkpoint is None:
        return
    if opened.is_folder:
        _check_other_files(opened, findings)
    _check_ignored(opened, findings)
    _check_values(opened, findings)
    check_layout(opened, findings)


def _check_other_files(opened: Opened, findings: Findings) -> None:
    """Weights beside those that are read."""
    assert opened.checkpoint
    read = opened.checkpoint.tensors
    for name in unread_files(opened.checkpoint):
        try:
            other, _ = read_file(opened.place / name)
        except ArchError:
            other = {}
        shared = [tensor for tensor in other if tensor in read]
        differing = [tensor for tensor in shared if not _same(other[tensor], read[tensor])]
        if differing:
            what = f"other numbers than the weights that archdsl reads: {some(differing)}"
            findings.add(RISKY, name, what, "reads the safetensors first, never this file")
        elif shared and len(shared) < len(read):
            what = "a part of the weights that archdsl reads; some loaders may read it alone"
            findings.add(RISKY, name, what, "does not read it")
        elif shared:
            what = "a copy of the weights that archdsl reads"
            findings.add(NOTE, name, what, "does not read it")
        else:
            what = "looks like weights, but has none that the model needs"
            findings.add(NOTE, name, what, "does not read it")


def _same(one: LazyTensor, other: LazyTensor) -> bool:
    alike = (one.dtype, one.shape) == (other.dtype, other.shape)
    return alike and is_equal(one.read(), other.read())


def _check_ignored(opened: Opened, findings: Findings) -> None:
    assert opened.checkpoint
    if opened.known is None or opened.analysis is None:
        return
    map = opened.analysis.maps[opened.known.title]
    unused = [name for name in opened.checkpoint.tensors if map.ignores(name)]
    if unused:
        findings.add(
            NOTE,
            f"weights: {some(unused)}",
            "stored, but computed from the config by the model",
            f"ignores it, as `{opened.known.path.name}` says",
        )


def _check_values(opened: Opened, findings: Findings) -> None:
    assert opened.checkpoint
    tensors = {n: t for n, t in opened.checkpoint.tensors.items() if t.dtype in FLOATS}
    found = dict(_values(tensors))
    broken = [name for name, values in found.items() if not values.finite]
    if broken:
        what = "NaN or infinity among its numbers, so the result of the model is NaN"
        findings.add(WRONG, f"weights: {some(broken)}", what, "loads it as it is")
    constant = [n for n, values in found.items() if values.constant and values.finite]
    if constant:
        what = "a matrix whose numbers are all equal, as one that was never trained or copied"
        findings.add(RISKY, f"weights: {some(constant)}", what, "loads it as it is")
    beyond = [name for name, values in found.items() if values.largest > LARGEST[_HALF]]
    _check_dtypes(opened, tensors, beyond, findings)


def _values(tensors: dict[str, LazyTensor]) -> Iterator[tuple[str, _Values]]:
    items = each(tensors.items(), "reading", "tensors", len(tensors))
    for name, stored in items:
        numbers = stored.read()
        largest = largest_magnitude(stored) if stored.dtype != _HALF else 0.0
        if stored.dtype == "bfloat16":  # bits
            finite = not ((numbers & 0x7F80) == 0x7F80).any()
        else:
            finite = bool(np.isfinite(numbers).all())
        # A matrix with a single row may be a vector.
        is_matrix = sum(size > 1 for size in stored.shape) > 1
        constant = is_matrix and bool((numbers == numbers.flat[0]).all())
        yield name, _Values(finite, constant, largest)


def _check_dtypes(
    opened: Opened, tensors: dict[str, LazyTensor], beyond: list[str], findings: Findings
) -> None:
    fields = opened.fields()
    declared = fields.get("dtype", fields.get("torch_dtype"))
    stored = common_dtype(tensors.values())
    if beyond:
        # Loaders that follow the config convert the numbers without a word.
        follows = declared == _HALF
        findings.add(
            WRONG if follows else RISKY,
            f"weights: {some(beyond)}",
            f"numbers beyond {LARGEST[_HALF]:g}, which float16 does not have"
            + (", the dtype of the config" if follows else ""),
            f"loads {stored}; with `--dtype float16` it warns of each",
        )
    kinds = sorted({tensor.dtype for tensor in tensors.values()})
    if len(kinds) > 1 and opened.is_folder:
        what = f"several dtypes: {', '.join(kinds)}"
        findings.add(NOTE, "weights", what, f"loads all as {stored}, which loses nothing")
    elif isinstance(declared, str) and declared in BYTES and kinds and declared != kinds[0]:
        findings.add(
            RISKY,
            opened.name("config.json", "dtype" if "dtype" in fields else "torch_dtype"),
            f"says {declared}, but the weights are {kinds[0]}; loaders that follow it round",
            f"loads {stored}, as stored",
        )
