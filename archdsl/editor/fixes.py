"""Quick fixes: what the help of a mistake proposes, as an edit."""

from __future__ import annotations

import re

from archdsl.editor.document import Version
from archdsl.editor.places import Edit, Position, Range
from archdsl.editor.problems import Problem
from archdsl.frozen import Frozen
from archdsl.syntax import ast


class Fix(Frozen):
    """A proposed change; `title` says what it does."""

    title: str
    edits: tuple[Edit, ...]
    problem: Problem


def fixes(version: Version, problem: Problem) -> list[Fix]:
    """The edits that the help of a mistake says in words."""
    help = problem.help or ""
    if near := re.fullmatch(r"did you mean `([\w.]+)`\?", help):
        edit = _respelt(version, problem.range, near[1])
        return [Fix(f"Replace it by `{near[1]}`", (edit,), problem)]
    if use := re.search(r'add `(use "[^"`]+")`', help):
        edit = _used(version, use[1])
        return [Fix(f"Add `{use[1]}`", (edit,), problem)]
    if help == "remove the line":
        lines = Range(
            Position(problem.range.start.line, 0), Position(problem.range.end.line + 1, 0)
        )
        return [Fix("Remove the line", (Edit(lines, ""),), problem)]
    return []


def _respelt(version: Version, range: Range, name: str) -> Edit:
    """The name in the place of a misspelt one; the name of a file keeps its quotes."""
    start, end = (version.lines.offset(each) for each in (range.start, range.end))
    quoted = version.text[start:end].startswith('"')
    return Edit(range, f'"{name}"' if quoted else name)


def _used(version: Version, line: str) -> Edit:
    """A `use` below the others, or else above the first item and its comments."""
    uses = [each for each in version.file.items if isinstance(each, ast.Use)]
    if uses:
        below = Position(version.range(uses[-1].span).end.line + 1, 0)
        return Edit(Range(below, below), f"{line}\n")
    first = version.text.find("\n\n") + 1 if version.text.startswith("#") else 0
    place = version.lines.position(first)
    return Edit(Range(place, place), f"\n{line}\n" if first else f"{line}\n\n")
