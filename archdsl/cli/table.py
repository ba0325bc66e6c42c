"""Tables in plain text, at most 80 columns wide."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence

WIDTH = 80
_GAP = "  "
_CODE = re.compile(r"`[^`]*`")


def whole(text: str) -> str:
    """A text whose spaces are no places to wrap it."""
    return text.replace(" ", "\xa0")


def wrap(text: str, first: str = "", rest: str | None = None) -> list[str]:
    """Wraps a text after the indent of its first line, and of the others.

    Commands in backticks are not wrapped, because people copy them.

    >>> print("\\n".join(wrap("word " * 18, "why: ")))
    why: word word word word word word word word word word word word word word word
         word word word
    """
    lines = textwrap.wrap(
        _CODE.sub(lambda code: whole(code[0]), text),
        WIDTH,
        initial_indent=first,
        subsequent_indent=" " * len(first) if rest is None else rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace("\xa0", " ") for line in lines] or [first.rstrip()]


def records(rows: Iterable[Sequence[str]], indent: str = "  ") -> Iterator[str]:
    """Yields rows in columns; the last column is wrapped.

    >>> print("\\n".join(records([("memory", "4.2 GB"), ("flops", "12 T^2 + " * 9 + "7")])))
      memory  4.2 GB
      flops   12 T^2 + 12 T^2 + 12 T^2 + 12 T^2 + 12 T^2 + 12 T^2 + 12 T^2 + 12 T^2
              + 12 T^2 + 7
    """
    cells = list(rows)
    widths = _widths(row[:-1] for row in cells)
    for *row, last in cells:
        start = indent + "".join(
            f"{text:<{w}}{_GAP}" for text, w in zip(row, widths, strict=True)
        )
        yield from wrap(last, start)


def columns(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yields rows in columns. Columns that do not fit follow below, after the first one.

    >>> rows = [("run", "loss" * 8, "speed" * 8), ("a", "1.5", "300")]
    >>> print("\\n".join(columns(rows)))
    run  losslosslosslosslosslosslossloss  speedspeedspeedspeedspeedspeedspeedspeed
    a    1.5                               300
    >>> print("\\n".join(columns([("run", "x" * 40, "y" * 40), ("a", "1", "2")])))
    run  xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
    a    1
    <BLANKLINE>
    run  yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy
    a    2
    """
    cells = list(rows)
    widths = _widths(cells)
    for number, chosen in enumerate(_parts(widths)):
        yield from [""] if number else []
        for row in cells:
            yield _GAP.join(f"{row[i]:<{widths[i]}}" for i in (0, *chosen)).rstrip()


def _parts(widths: Sequence[int]) -> Iterator[list[int]]:
    """The columns after the first one that fit side by side, at least one."""
    part, used = list[int](), widths[0]
    for i, width in enumerate(widths[1:], 1):
        if part and used + len(_GAP) + width > WIDTH:
            yield part
            part, used = [], widths[0]
        part.append(i)
        used += len(_GAP) + width
    yield part


def _widths(rows: Iterable[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]
