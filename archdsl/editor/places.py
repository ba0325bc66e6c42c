"""Places in a text as editors count them: lines from 0, columns in UTF-16 units."""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property
from itertools import accumulate
from pathlib import Path

from archdsl.frozen import Frozen


class Position(Frozen):
    line: int
    column: int


class Range(Frozen):
    """From one position up to, but not including, another."""

    start: Position
    end: Position


class Location(Frozen):
    """A range of a file."""

    path: Path
    range: Range


class Edit(Frozen):
    """A replacement of a range by a text."""

    range: Range
    text: str


class Lines:
    """Converts between offsets and positions.

    >>> lines = Lines("a = 1\\n# 𝄞 b")
    >>> lines.position(10), lines.offset(Position(1, 5))
    (Position(line=1, column=5), 10)
    """

    def __init__(self, text: str):
        self.text = text

    @cached_property
    def _starts(self) -> list[int]:
        lengths = (len(line) + 1 for line in self.text.split("\n"))
        return list(accumulate(lengths, initial=0))[:-1]

    def position(self, offset: int) -> Position:
        line = bisect_right(self._starts, offset) - 1
        return Position(line, _units(self.text[self._starts[line] : offset]))

    def offset(self, position: Position) -> int:
        """The offset of a position; one beyond its line is the end of the line."""
        if position.line >= len(self._starts):
            return len(self.text)
        start = self._starts[position.line]
        end = self.text.find("\n", start)
        line = self.text[start : None if end < 0 else end]
        if line.isascii():
            return start + min(position.column, len(line))
        units = list(accumulate(map(_units, line), initial=0))
        return start + min(bisect_right(units, position.column) - 1, len(line))

    def range(self, start: int, end: int) -> Range:
        return Range(self.position(start), self.position(end))


def _units(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2
