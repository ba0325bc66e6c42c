"""Definitions and uses of the name at a place, and a new name for it."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import NoReturn

from archdsl.diagnostics import Span, fail
from archdsl.editor.cursor import around, definition
from archdsl.editor.document import Document, Version
from archdsl.editor.places import Edit, Location, Position, Range
from archdsl.editor.users import users
from archdsl.semantics.library import find
from archdsl.syntax import ast


def find_definition(version: Version, position: Position) -> Location | None:
    """Where the name at a place is defined, or the file that a `use` names."""
    nodes = around(version, position)
    match nodes[:2]:
        case [ast.String() as path, ast.Use()]:
            found = find(path.value, version.path.parent)
            start = Range(Position(0, 0), Position(0, 0))
            return Location(found, start) if found else None
    defined = definition(version, nodes)
    return version.location(defined) if defined else None


def find_references(version: Version, position: Position, declared: bool) -> list[Location]:
    """All uses of the name at a place: in this file, in those that it uses, and in those of its
    folder that use it."""
    defined = definition(version, around(version, position))
    if defined is None:
        return []
    found = [each for each in version.references.uses(defined) if declared or each != defined]
    elsewhere = [v.location(each) for v, spans in users(version, defined) for each in spans]
    return [*(version.location(each) for each in found), *elsewhere]


def find_renamed(version: Version, position: Position) -> Range | None:
    """The name at a place if it can be renamed: it is defined in this file."""
    nodes = around(version, position)
    defined = definition(version, nodes)
    if defined is None or not version.is_own(defined) or not isinstance(nodes[0], ast.Name):
        return None
    return version.range(nodes[0].span)


def rename(document: Document, position: Position, new: str) -> dict[Path, list[Edit]]:
    """The edits, by file, that give the name at a place another name.

    Raises `ArchError` if the name cannot be renamed, or if the new one would change what a
    file means.
    """
    version = document.version
    nodes = around(version, position)
    defined = definition(version, nodes)
    if defined is None or not isinstance(nodes[0], ast.Name):
        fail("argument-value", "there is no name that can be renamed here")
    if not version.is_own(defined):
        path = Path(defined.source.path).name
        fail("argument-value", f"`{defined.text}` is defined in {path}: rename it there")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z_0-9]*", new):
        help = "names consist of a to z, A to Z, digits and `_`"
        fail("argument-value", f"`{new}` cannot be a name", help=help)
    uses = version.references.uses(defined)
    spans = sorted({version.span_of(each) for each in uses}, key=lambda span: span.start)
    renamed = version.text
    for span in reversed(spans):
        renamed = renamed[: span.start] + new + renamed[span.end :]
    other = Document(document.path, renamed)
    if _mistakes(other) != _mistakes(document) or _shape(other) != _shape(document):
        _refuse(defined, new, document.path)
    edits = {document.path: [Edit(version.range(span), new) for span in spans]}
    for user, found in users(version, defined):
        if re.search(rf"\b{new}\b", user.text):
            _refuse(defined, new, user.path)
        edits[user.path] = [Edit(user.range(span), new) for span in found]
    return edits


def _refuse(defined: Span, new: str, path: Path) -> NoReturn:
    what = f"with the name `{new}` for `{defined.text}`, {path.name} would have another meaning"
    fail("argument-value", what, help="choose a name that is not used there")


def _mistakes(document: Document) -> Counter[str]:
    """The codes of all mistakes of a file."""
    *_, last = document.check()
    return Counter(each.code for each in last)


def _shape(document: Document) -> list[int]:
    """Which name each name of a file stands for, by their numbers in the text."""
    version, references = document.version, document.version.references
    own = [each for each in references if version.is_own(each)]
    own.sort(key=lambda span: version.span_of(span).start)
    numbers = {use: number for number, use in enumerate(own)}
    return [numbers.get(references.definition(use), -1) for use in own]  # type: ignore[arg-type]
