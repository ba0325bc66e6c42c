"""Numbers, formulas and tables for people, as HTML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from html import escape


def seconds(number: float) -> str:
    """A time with a fitting unit.

    >>> seconds(0.0123), seconds(2.5), seconds(0.0000042)
    ('12.3 ms', '2.5 s', '4.2 µs')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number / 1e-6:.3g} µs"


def formula(text: str) -> str:
    """A formula in the varying axes as HTML.

    >>> formula("36864 T^2 + 247_064_064 T")
    '36,864 <i>T</i><sup>2</sup> + 247,064,064 <i>T</i>'
    """
    text = re.sub(r"\d[\d_]*", lambda n: f"{int(n[0].replace('_', '')):,}", escape(text))
    text = re.sub(r"\^([\d,]+)", r"<sup>\1</sup>", text)
    return re.sub(r"(?<![\w<&/])([A-Za-z]\w*)(?![\w>;])", r"<i>\1</i>", text)


def sizes_at(sizes: Mapping[str, int]) -> str:
    """Sizes of axes as HTML, such as `S = 512, T = 512`."""
    return ", ".join(f"<i>{escape(name)}</i> = {size:,}" for name, size in sizes.items())


def table(
    heads: Iterable[str], rows: Iterable[Iterable[str]], numbers: frozenset[int] = frozenset()
) -> str:
    """A table of HTML; the columns `numbers` are set to the right."""

    def cells(tag: str, texts: Iterable[str]) -> str:
        return "".join(
            f"<{tag}{' class=number' if i in numbers else ''}>{text}</{tag}>"
            for i, text in enumerate(texts)
        )

    body = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table><thead><tr>{cells("th", heads)}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )
