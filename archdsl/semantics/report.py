"""Where the diagnostics of one run are gathered; the same mistake is told once."""

from __future__ import annotations

from typing import Any

from archdsl.diagnostics import ArchError, Diagnostic, Span


class Report:
    """What was found wrong. A block used twice makes its mistake once."""

    def __init__(self) -> None:
        self.mistakes = 0  # those told already are counted again
        self._found: dict[tuple[str, Span | None, str | None], Diagnostic] = {}

    def add(self, code: str, message: str, span: Span | None = None, **more: Any) -> None:
        """Tells a mistake; `more` are the other fields of a `Diagnostic`."""
        self.take([Diagnostic(code, message, span, **more)])

    def take(self, diagnostics: list[Diagnostic] | tuple[Diagnostic, ...]) -> None:
        for each in diagnostics:
            self.mistakes += 1
            # One place is told one mistake of a kind; without a place the message tells
            # them apart.
            key = (each.code, each.span, None if each.span else each.message)
            self._found.setdefault(key, each)

    @property
    def diagnostics(self) -> list[Diagnostic]:
        """In the order of the text, file by file; first what has no place in a text."""
        found = list(self._found.values())
        files = [d.span.source.path for d in found if d.span]
        return sorted(
            found,
            key=lambda d: (
                (files.index(d.span.source.path), d.span.start) if d.span else (-1, 0)
            ),
        )

    def raise_any(self) -> None:
        if self._found:
            raise ArchError(self.diagnostics)
