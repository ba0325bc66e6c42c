"""The diagnostics of one run; each mistake is reported once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from archdsl.diagnostics import MOST, ArchError, Diagnostic, Note, Span, first_ones

# Mistakes that the value of a parameter may cause.
_OF_SIZES = {"divisibility", "shape-mismatch", "argument-value", "arithmetic", "element-bound"}


def _texts(diagnostic: Diagnostic) -> set[str]:
    return {note.message for note in diagnostic.notes}


class Report:
    """Collects diagnostics. A mistake in a block that is called twice counts once."""

    def __init__(self) -> None:
        self.outside: tuple[Note, ...] = ()  # the few parameters that were set from outside
        self.mistakes = 0  # includes repeated ones
        self._found: dict[tuple[str, Span | None, str | None], Diagnostic] = {}

    def add(self, code: str, message: str, span: Span | None = None, **more: Any) -> None:
        """Adds a diagnostic; `more` are the other fields of `Diagnostic`."""
        self.extend([Diagnostic(code, message, span, **more)])

    def extend(self, diagnostics: Iterable[Diagnostic]) -> None:
        """Adds diagnostics; raises `ArchError` with all of them if there are `MOST`."""
        for each in diagnostics:
            self.mistakes += 1
            if each.code in _OF_SIZES and not any(
                n.message in _texts(each) for n in self.outside
            ):
                each = replace(each, notes=(*each.notes, *self.outside))
            # At most one diagnostic for a code and a place. Without a place, the message
            # distinguishes them.
            key = (each.code, each.span, None if each.span else each.message)
            self._found.setdefault(key, each)
            if len(self._found) >= MOST:
                raise ArchError(first_ones(self.diagnostics))

    @property
    def diagnostics(self) -> list[Diagnostic]:
        """The diagnostics sorted by file and position; those without a position come first."""
        found = list(self._found.values())
        files: dict[str, int] = {}
        for each in found:
            if each.span:
                files.setdefault(each.span.source.path, len(files))
        return sorted(
            found,
            key=lambda d: (files[d.span.source.path], d.span.start) if d.span else (-1, 0),
        )

    def raise_any(self) -> None:
        """Raises `ArchError` if there are diagnostics."""
        if self._found:
            raise ArchError(self.diagnostics)
