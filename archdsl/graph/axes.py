"""The pattern of `reshape`: axes by name, split and merged with brackets.

    T (heads size) -> heads T size

Each side lists axes; brackets group axes that form one axis of the tensor, and `1` is an axis
of size 1. The notation is that of einops (Rogozhnikov 2022).
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from math import prod

from archdsl.diagnostics import listing
from archdsl.graph.signature import Mismatch, Site
from archdsl.graph.types import Axis, Size, Type

_TOKEN = re.compile(r"\s*(?:(?P<name>[A-Za-z_]\w*|1\b)|(?P<mark>[()]))")


@lru_cache
def parse_pattern(
    pattern: str,
) -> tuple[tuple[tuple[str, ...], ...], tuple[tuple[str, ...], ...]]:
    """Parses a pattern into the groups of names on each side.

    >>> parse_pattern("T (h d) -> h T d")
    ((('T',), ('h', 'd')), (('h',), ('T',), ('d',)))
    >>> parse_pattern("N -> N 1")
    ((('N',),), (('N',), ()))
    """
    sides = pattern.split("->")
    if len(sides) != 2:
        raise _pattern_error("a pattern has two sides with `->` between them", pattern)
    left, right = (_parse_side(side, pattern) for side in sides)
    before, after = ([n for group in side for n in group] for side in (left, right))
    for names in (before, after):
        if len(set(names)) < len(names):
            raise _pattern_error("a name appears twice on one side", pattern)
    if set(before) != set(after):
        odd = sorted(set(before) ^ set(after))
        raise _pattern_error(f"{listing(odd, 'and')} must appear on both sides", pattern)
    return left, right


def _parse_side(text: str, pattern: str) -> tuple[tuple[str, ...], ...]:
    groups: list[tuple[str, ...]] = []
    inside: list[str] | None = None
    position = 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _pattern_error(
                f"`{text[position:].strip()[0]}` is not allowed in a pattern", pattern
            )
        position = match.end()
        if match["name"] and inside is None:
            groups.append(() if match["name"] == "1" else (match["name"],))
        elif match["name"] == "1":
            raise _pattern_error("`1` is an axis of its own, without brackets", pattern)
        elif match["name"] and inside is not None:
            inside.append(match["name"])
        elif match["mark"] == "(" and inside is None:
            inside = []
        elif match["mark"] == ")" and inside == []:
            raise _pattern_error("the brackets are empty", pattern)
        elif match["mark"] == ")" and inside:
            groups.append(tuple(inside))
            inside = None
        else:
            raise _pattern_error("the brackets do not match", pattern)
    if inside is not None:
        raise _pattern_error("the brackets do not match", pattern)
    return tuple(groups)


def solve_sizes(pattern: str, axes: tuple[Axis, ...], given: dict[str, int]) -> dict[str, Size]:
    """Computes the size of every name in a pattern for a tensor with these axes."""
    left, _ = parse_pattern(pattern)
    if len(left) != len(axes):
        raise Mismatch(
            "axis",
            "the pattern has another number of axes than the tensor",
            "pattern",
            expected=f"{len(axes)} before `->`, for [{', '.join(map(str, axes))}]",
            found=f'"{pattern}"',
        )
    if unknown := sorted(set(given) - {n for group in left for n in group}):
        raise Mismatch(
            "unknown-argument",
            f"the pattern has no {listing(unknown)}",
            "sizes",
            found=f'"{pattern}"',
        )
    sizes: dict[str, Size] = {}
    for group, axis in zip(left, axes, strict=True):
        if not group and axis.size.value != 1:
            raise _pattern_error(f"`1` stands for an axis of size {axis.size}", pattern)
        if len(group) == 1 and group[0] not in given:
            sizes[group[0]] = axis.size
            continue
        total = axis.size.value
        if total is None:
            raise _pattern_error(f"the varying axis {axis.size} cannot be split", pattern)
        free = [n for n in group if n not in given]
        known = prod(given[n] for n in group if n in given)
        if len(free) > 1:
            raise _pattern_error(
                f"give the sizes of all but one of {listing(group, 'and')}", pattern
            )
        if (total % known) if free else (total != known):
            raise Mismatch(
                "divisibility",
                f"an axis of {total} does not split into {' x '.join(group)}",
                "pattern",
                found=", ".join(f"{n} = {given[n]}" for n in group if n in given),
                bound=(axis,),
            )
        sizes |= {n: Size.of(given.get(n, total // known)) for n in group}
    return sizes


def reshape(site: Site) -> Type:
    """The type rule of `reshape`."""
    pattern = site.attr["pattern"]
    left, right = parse_pattern(pattern)
    sizes = solve_sizes(pattern, site.x.axes, dict(site.attr["sizes"]))
    whole = {
        group[0]: axis for group, axis in zip(left, site.x.axes, strict=True) if len(group) == 1
    }
    origin = {
        name: axis.origin
        for group, axis in zip(left, site.x.axes, strict=True)
        for name in group
    }
    axes = []
    for group in right:
        if len(group) > 1 and any(sizes[name].value is None for name in group):
            raise _pattern_error("a varying axis cannot be merged with another", pattern)
        if len(group) != 1:
            axes.append(Axis(None, prod((sizes[name] for name in group), start=Size.of(1))))
        elif group[0] in whole:
            axes.append(replace(whole[group[0]], name=group[0]))
        else:
            axes.append(Axis(group[0], sizes[group[0]], (), origin[group[0]]))
    return replace(site.x, axes=tuple(axes))


def _pattern_error(message: str, pattern: str) -> Mismatch:
    return Mismatch("axis", message, "pattern", found=f'"{pattern}"')
