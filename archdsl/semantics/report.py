"""Where the diagnostics of one run are gathered; the same mistake is told once."""

from __future__ import annotations

from archdsl.diagnostics import ArchError, Diagnostic, Note, Span


class Report:
    """Diagnostics in the order found. A block used twice makes its mistake once."""

    def __init__(self) -> None:
        self.diagnostics: list[Diagnostic] = []
        self._seen: set[tuple[str, Span | None, str | None]] = set()

    def add(
        self,
        code: str,
        message: str,
        span: Span | None = None,
        *,
        expected: str | None = None,
        found: str | None = None,
        notes: tuple[Note, ...] = (),
        help: str | None = None,
    ) -> None:
        # One place is told one mistake of a kind; without a place the message tells them apart.
        key = (code, span, None if span else message)
        if key not in self._seen:
            self._seen.add(key)
            self.diagnostics.append(
                Diagnostic(code, message, span, expected, found, notes, help)
            )

    def raise_any(self) -> None:
        if self.diagnostics:
            raise ArchError(self.diagnostics)
