"""Arrays as examples: `.npz` files with an array for each input and label of a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archdsl.cache import digest, key_of
from archdsl.diagnostics import did_you_mean, fail, listing
from archdsl.execution import inputs
from archdsl.formats.npz import read_npz
from archdsl.graph.nodes import Graph
from archdsl.training.roles import Roles

ARRAYS = (".npz",)


class ArrayRows:
    """Examples that are rows of arrays, each [examples, …]."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]], origin: str):
        self.arrays, self.origin = dict(arrays), origin
        parts = (
            digest([np.ascontiguousarray(each).data]).hex() for each in self.arrays.values()
        )
        self.fingerprint = key_of("arrays", [*self.arrays], *parts)

    def __len__(self) -> int:
        return min(map(len, self.arrays.values()))

    def batch(self, numbers: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """The rows of `numbers` [B], each [B, …]."""
        return {name: array[numbers] for name, array in self.arrays.items()}

    def describe(self) -> str:
        shapes = (f"{name} {list(array.shape[1:])}" for name, array in self.arrays.items())
        return f"{len(self):,} examples of {', '.join(shapes)}"


def read_arrays(path: Path, graph: Graph, roles: Roles) -> ArrayRows:
    """The arrays of an `.npz` file: one for each input without a default, and each label.

    Raises `ArchError`: "checkpoint" if it is damaged, "input" if an array is missing, unknown,
    or does not fit its type.
    """
    arrays = {name: stored.read() for name, stored in read_npz(path).items()}
    known = [each.name for each in (*graph.inputs, *graph.labels)]
    needed = [each.name for each in (*roles.inputs, *roles.labels)]
    for name in arrays:
        if name not in known:
            fail(
                "input",
                f"{path}: `{graph.name}` has no input or label `{name}`",
                expected=listing(known, "and"),
                help=did_you_mean(name, known),
            )
    if missing := [name for name in needed if name not in arrays]:
        fail(
            "input",
            f"{path}: the array {listing(missing, 'and')} is missing",
            expected=listing(needed, "and"),
            found=listing(arrays, "and"),
        )
    counts = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len({*counts.values()}) > 1 or not all(counts.values()):
        fail(
            "input",
            f"{path}: the arrays have different numbers of examples, or none",
            expected="the same number of rows in each array",
            found=", ".join(f"{name} {count}" for name, count in counts.items()),
        )
    inputs.check(graph, {name: array[:1] for name, array in arrays.items()}, labels=True)
    return ArrayRows(arrays, str(path))
