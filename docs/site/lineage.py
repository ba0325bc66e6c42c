"""The parents of the specs: what a spec is built from, or what it resembles most.

The first of these rules that finds a spec which is not younger decides:

1. its file uses blocks of the other one;
2. the comment at its start names the other one;
3. of all older specs, the figure of the other one differs in the fewest boxes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from archdsl.figure.differences import differing
from docs.site.specs import Spec


class Parent(NamedTuple):
    """The file of a parent, and why it is one."""

    file: str
    why: str


def parents(specs: Iterable[Spec]) -> dict[str, list[Parent]]:
    """The parents of each spec with a model, by the names of files.

    A spec without older ones has none.
    """
    known = {each.file: each for each in specs if each.models}
    return {file: parents_of(each, known) for file, each in known.items()}


def parents_of(spec: Spec, known: dict[str, Spec]) -> list[Parent]:
    older = [each for each in known.values() if _is_older(each, spec)]
    rules: list[tuple[str, Callable[[Spec], bool]]] = [
        ("it uses blocks of its file", lambda other: other.file in spec.uses),
        ("its comment names it", lambda other: names(spec, other)),
    ]
    for why, rule in rules:
        if found := [other for other in older if rule(other)]:
            return [Parent(other.file, why) for other in found]
    nearest = min(
        older, key=lambda other: (distance(spec, other), -(other.year or 0)), default=None
    )
    why = "of all older specs, it looks most alike"
    return [Parent(nearest.file, why)] if nearest else []


def _is_older(other: Spec, spec: Spec) -> bool:
    """Whether `other` can be a parent. In one year, a spec is older than those that use it."""
    if other.year is None or other.file == spec.file:
        return False
    if spec.year is None or other.year < spec.year:
        return True
    return other.year == spec.year and other.file in spec.uses


def names(spec: Spec, other: Spec) -> bool:
    """Whether the comment of a spec names another one.

    >>> from docs.site.specs import Spec
    >>> spec = lambda text: Spec("", "", text, (), (), ())
    >>> bert = spec("BERT: a bidirectional encoder.")
    >>> names(spec("RoBERTa: BERT without segments."), bert)
    True
    >>> names(spec("ModernBERT: an encoder."), bert)
    False
    """
    return bool(re.search(rf"(?<![\w-]){re.escape(other.title)}(?![\w-])", spec.comment))


def distance(spec: Spec, other: Spec) -> int:
    """The boxes that only one of the two figures has; a model of each is compared."""
    left, right = differing(other.models[0].figure, spec.models[0].figure)
    return len(left) + len(right)
