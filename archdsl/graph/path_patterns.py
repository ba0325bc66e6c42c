"""Patterns of paths: the weights to freeze, and the layers that an adapter changes.

A pattern has parts between dots, as a path does, and matches a path and all below it: `embed`
matches `embed.weight`. In a part, `*` stands for any characters, and `0-5` for the numbers from
0 to 5. The part `**` stands for any number of parts: `**.q` matches `h.3.attention.q.weight`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from archdsl.diagnostics import did_you_mean, fail

_NUMBERS = re.compile(r"([0-9]{1,9})-([0-9]{1,9})")


def matches(pattern: str, path: str, below: bool = True) -> bool:
    """Whether a pattern matches a path, or, with `below`, a path above it.

    >>> matches("h.0-5.*", "h.5.up.weight"), matches("h.0-5", "h.6.up.weight")
    (True, False)
    >>> matches("h.*.attention", "h.3.attention.q"), matches("**.q", "h.3.attention.q.weight")
    (True, True)
    """
    return _match(pattern.split("."), path.split("."), below)


def _match(pattern: Sequence[str], path: Sequence[str], below: bool) -> bool:
    if not pattern:
        return below or not path
    first, rest = pattern[0], pattern[1:]
    if first == "**":
        return any(_match(rest, path[start:], below) for start in range(len(path) + 1))
    return bool(path) and _match_part(first, path[0]) and _match(rest, path[1:], below)


def _match_part(pattern: str, part: str) -> bool:
    if numbers := _NUMBERS.fullmatch(pattern):
        return part.isdecimal() and int(numbers[1]) <= int(part) <= int(numbers[2])
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), part) is not None


def select(patterns: Iterable[str], paths: Sequence[str], what: str) -> frozenset[str]:
    """The paths that any of the patterns match. `what` names the paths in messages.

    Raises `ArchError` for a pattern that matches nothing.

    >>> sorted(select(["h.*.up"], ["embed.weight", "h.0.up.weight", "h.1.up.weight"], "weight"))
    ['h.0.up.weight', 'h.1.up.weight']
    """
    found: set[str] = set()
    for pattern in patterns:
        matched = [path for path in paths if matches(pattern, path)]
        if not matched:
            known = _templates(paths)
            fail(
                "argument-value",
                f"no {what} matches `{pattern}`",
                expected="a path or a pattern, such as "
                + ", ".join(f"`{p}`" for p in known[:3]),
                help=did_you_mean(pattern, known),
            )
        found.update(matched)
    return frozenset(found)


def _templates(paths: Iterable[str]) -> list[str]:
    """The paths and those above them, with `*` for numbers: the shortest first."""
    found: dict[str, None] = {}
    for path in paths:
        parts = ["*" if part.isdecimal() else part for part in path.split(".")]
        found |= {".".join(parts[:end]): None for end in range(1, len(parts) + 1)}
    return sorted(
        (each for each in found if not each.endswith(".*")), key=lambda e: e.count(".")
    )
