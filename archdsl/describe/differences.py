"""The features in which two models differ."""

from __future__ import annotations

from collections.abc import Iterator

from archdsl.describe.compare import difference, operators
from archdsl.describe.features import NONE, features
from archdsl.graph.nodes import Graph

_ENDS = ("input ", "output ")


def differences(left: Graph, right: Graph) -> dict[str, tuple[str, str]]:
    """Each difference by name, with its values in both models; inputs and outputs first."""
    return dict(_differences(left, right))


def _differences(left: Graph, right: Graph) -> Iterator[tuple[str, tuple[str, str]]]:
    first = difference(left, right)
    if first is None:
        return
    ours, theirs = features(left), features(right)
    feature_differs = False
    for name in sorted(dict.fromkeys((*ours, *theirs)), key=_rank):
        # A missing input or output is a difference. Another feature that only one model
        # reports may still hold for the other.
        absent = NONE if _rank(name) < len(_ENDS) else None
        a, b = ours.get(name, absent), theirs.get(name, absent)
        if a and b and a != b:
            feature_differs = True
            yield name, (a, b)
    more, fewer = operators(left, right)
    if more or fewer:
        yield "operators", (f"{more or 'no'} more", f"{fewer or 'no'} more")
    if not feature_differs:
        yield "the graphs differ in", first


def _rank(name: str) -> int:
    """Sorts inputs and outputs before the other features."""
    return next((i for i, end in enumerate(_ENDS) if name.startswith(end)), len(_ENDS))
