"""The paths of a `weights` block: `{i}` and `*` match parts, `{q,k}` is a list of names."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import replace

from archdsl.syntax import ast

_HOLE = re.compile(r"\{(\w+)\}|\{([\w.]+(?:,[\w.]+)+)\}|\*")


def holes(path: ast.Path) -> list[str]:
    """The holes of a path: `{i}` and `*`, but not `{a,b}`."""
    return [m[0] for m in _HOLE.finditer(path.text) if not m[2]]


def stacked_hole(rule: ast.Rule) -> str | None:
    """The name of the `{j}` on the left whose weights are stacked in one tensor, if any."""
    if all(each.name.id != "stacked" for each in rule.conversions):
        return None
    theirs = {hole for path in rule.theirs for hole in holes(path)}
    alone = [hole for hole in holes(rule.ours) if hole not in theirs and hole != "*"]
    return alone[0].strip("{}") if len(alone) == 1 else None


def pairs(rule: ast.Rule) -> tuple[ast.Rule, ...]:
    """The rules that a rule with lists of equal length on both sides stands for.

    Any other rule stands for itself.
    """
    paths = (rule.ours, *rule.theirs)
    lengths = {len(parts(path.text)) for path in paths}
    if lengths == {0} or len(lengths) > 1 or _takes_parts(rule):
        return (rule,)

    def member(path: ast.Path, number: int) -> ast.Path:
        name = parts(path.text)[number]
        text = _HOLE.sub(lambda found: name if found[2] else found[0], path.text)
        return replace(path, text=text)

    return tuple(
        replace(
            rule,
            ours=member(rule.ours, number),
            theirs=tuple(member(path, number) for path in rule.theirs),
        )
        for number in range(lengths.pop())
    )


def _takes_parts(rule: ast.Rule) -> bool:
    """Whether a list names the parts of one tensor."""
    return any(each.name.id in ("split", "concat") for each in rule.conversions)


@functools.cache
def parts(text: str) -> tuple[str, ...]:
    """The names in a path's `{q,k,v}`."""
    found = [m[2] for m in _HOLE.finditer(text) if m[2]]
    return tuple(found[0].split(",")) if found else ()


def pattern(text: str) -> str:
    """A regular expression for a path."""
    parts: list[str] = []
    end = 0
    for hole in _HOLE.finditer(text):
        parts.append(re.escape(text[end : hole.start()]))
        if hole[2]:
            parts.append(f"(?P<_part>{'|'.join(map(re.escape, hole[2].split(',')))})")
        else:
            parts.append(f"(?P<{hole[1]}>[^.]+)" if hole[1] else "(?P<_rest>.+)")
        end = hole.end()
    return "".join(parts) + re.escape(text[end:])


def fill(text: str, holes: dict[str, str]) -> tuple[str, ...]:
    """The names of a path with filled holes: one, or one for each part."""
    return tuple([form.format_map(holes) for form in _forms(text)])


@functools.cache
def _forms(text: str) -> tuple[str, ...]:
    """Format strings for the names of a path."""

    def form(part: str) -> str:
        return _HOLE.sub(lambda m: part if m[2] else f"{{{m[1] or '_rest'}}}", text)

    return tuple(form(part) for part in parts(text) or ("",))


def templates(paths: Iterable[str]) -> list[str]:
    """Paths with `{i}` for layer numbers, for suggestions."""
    return sorted({re.sub(r"\.\d+\.", ".{i}.", path) for path in paths})
