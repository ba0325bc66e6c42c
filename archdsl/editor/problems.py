"""The mistakes of a document, where an editor shows them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from archdsl.diagnostics import Diagnostic, Span
from archdsl.editor.document import Version
from archdsl.editor.places import Location, Range
from archdsl.frozen import Frozen
from archdsl.semantics.library import all_used
from archdsl.syntax import ast


class Problem(Frozen):
    """A mistake: `others` are the places of its notes. `unused` text is shown pale."""

    range: Range
    code: str
    message: str
    others: tuple[tuple[Location, str], ...]
    help: str | None

    @property
    def unused(self) -> bool:
        return self.code == "unused-name"


def problems(version: Version, diagnostics: Iterable[Diagnostic]) -> list[Problem]:
    """The mistakes of a file. One in a file that it uses is shown where it is used."""
    found = [_problem(version, each) for each in diagnostics]
    return sorted(found, key=lambda each: (each.range.start.line, each.range.start.column))


def message(diagnostic: Diagnostic) -> str:
    """A mistake in words, without places."""
    lines = [diagnostic.message]
    if diagnostic.expected is not None:
        lines.append(f"expected: {diagnostic.expected}")
    if diagnostic.found is not None:
        lines.append(f"found: {diagnostic.found}")
    lines += [note.message for note in diagnostic.notes if not note.span]
    if diagnostic.help is not None:
        lines.append(f"help: {diagnostic.help}")
    return "\n".join(lines)


def _problem(version: Version, diagnostic: Diagnostic) -> Problem:
    others = [(version.location(n.span), n.message) for n in diagnostic.notes if n.span]
    place = diagnostic.span
    if place is not None and not version.is_own(place):
        others.insert(0, (version.location(place), "the mistake is here"))
        own = [n.span for n in diagnostic.notes if n.span and version.is_own(n.span)]
        place = own[-1] if own else _use(version, Path(place.source.path))
    range = version.range(place) if place else version.lines.range(0, 0)
    help = diagnostic.help
    return Problem(range, diagnostic.code, message(diagnostic), tuple(others), help)


def _use(version: Version, path: Path) -> Span | None:
    """The line of a file that uses another, directly or through others."""
    for use, used in version.scope.uses:
        if any(each.path and each.path.samefile(path) for each in all_used(used)):
            return use.path.span
    uses = (each for each in version.file.items if isinstance(each, ast.Use))
    return next((each.path.span for each in uses), None)
