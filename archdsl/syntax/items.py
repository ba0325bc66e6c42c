"""Parses a text that is being edited: only its changed items are parsed again."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from archdsl.diagnostics import ArchError, Diagnostic, Source, Span
from archdsl.frozen import Frozen
from archdsl.syntax import ast
from archdsl.syntax.parser import ITEM_START, check_length, parse_part, with_plain_lines


class Piece(Frozen):
    """An item of a file with the comments above it, and its place in the file.

    Its source has only its own text, so it is the same object wherever the item moves.
    """

    source: Source
    start: int
    file: ast.File | None
    mistakes: tuple[Diagnostic, ...]


class Pieces(Frozen):
    """A file in pieces. The items of those without mistakes are `file`."""

    source: Source
    pieces: tuple[Piece, ...]

    @property
    def file(self) -> ast.File:
        files = [piece.file for piece in self.pieces if piece.file]
        items = tuple(item for file in files for item in file.items)
        return ast.File(Span(self.source, 0, len(self.source.text)), items)

    @property
    def mistakes(self) -> list[Diagnostic]:
        return [each for piece in self.pieces for each in piece.mistakes]

    def at(self, offset: int) -> Piece:
        """The piece at a position of the whole text."""
        before = (each for each in reversed(self.pieces) if each.start <= offset)
        return next(before, self.pieces[0])

    def whole(self, span: Span) -> Span:
        """The span in the whole text of a span in a piece; another one as it is."""
        for piece in self.pieces:
            if piece.source is span.source:
                return Span(self.source, piece.start + span.start, piece.start + span.end)
        return span

    def within(self, offset: int) -> tuple[Source, int]:
        """The source of the piece at a position of the whole text, and the position there."""
        piece = self.at(offset)
        return piece.source, offset - piece.start


class ItemParser:
    """Parses versions of a file and keeps the items of the last one.

    >>> parser = ItemParser("a.arch")
    >>> old = parser.parse('use "b.arch"\\nmodel M() {}\\n').file.items
    >>> new = parser.parse('# A comment.\\nuse "b.arch"\\nmodel M() {}\\n').file.items
    >>> old[0] is new[0], old[1] is new[1]
    (False, True)
    """

    def __init__(self, path: str):
        self.path = path
        self._known: dict[str, Piece] = {}

    def parse(self, text: str) -> Pieces:
        """The pieces of a text; none if it is too long, which is the mistake of the first."""
        text = with_plain_lines(text)
        source = Source(self.path, text)
        try:
            check_length(source)
        except ArchError as error:
            return Pieces(source, (Piece(source, 0, None, error.diagnostics),))
        pieces = list(self._pieces(text))
        if any(a.mistakes and b.mistakes for a, b in pairwise(pieces)):
            # A line inside an item may look like the first line of another.
            whole = self._piece(text, 0)
            pieces = [whole] if whole.file else pieces
        self._known = {each.source.text: each for each in pieces}
        return Pieces(source, tuple(pieces))

    def _pieces(self, text: str) -> Iterator[Piece]:
        starts = {0, len(text)}
        for found in ITEM_START.finditer(text):
            starts.add(_with_comments(text, found.start()))
        taken: set[str] = set()
        for start, end in pairwise(sorted(starts)) if text else [(0, 0)]:
            own = text[start:end]
            # Equal items are told apart by blank lines above them.
            while own in taken:
                start, own = start - 1, f"\n{own}"
            taken.add(own)
            yield self._piece(own, start)

    def _piece(self, text: str, start: int) -> Piece:
        known = self._known.get(text)
        if known is not None:
            return Piece(known.source, start, known.file, known.mistakes)
        source = Source(self.path, text)
        found = parse_part(source, 0, len(text))
        if isinstance(found, ast.File):
            return Piece(source, start, found, ())
        return Piece(source, start, None, tuple(found))


def _with_comments(text: str, start: int) -> int:
    """The start of the comment lines directly above a line that starts here."""
    while start:
        above = text.rfind("\n", 0, start - 1) + 1
        if text[above] != "#":
            break
        start = above
    return start
