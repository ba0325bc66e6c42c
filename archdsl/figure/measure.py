"""The widths of texts, by the advances of Helvetica, and their lines.

Arial, Liberation Sans and Nimbus Sans have the same advances.
"""

from __future__ import annotations

# The characters with each advance, in thousandths of the size of the font.
_ADVANCES = {
    191: "'",
    222: "ijl",
    260: "|",
    278: " !,./:;I[\\]ft",
    333: "()`r-",
    334: "{}",
    355: '"',
    389: "*",
    469: "^",
    500: "Jcksvxyz",
    556: "#$0123456789?L_abdeghnopqu–",
    584: "+<=>~×÷−",
    611: "FTZ",
    667: "&ABEKPSVXY",
    722: "CDHNRUw",
    778: "GOQ",
    833: "Mm",
    889: "%",
    944: "W",
}
_WIDTH = {character: width for width, each in _ADVANCES.items() for character in each}
_OTHER = 1000


def width(text: str, size: float) -> float:
    """The width of a text in a font of a size, in the unit of the size.

    >>> width("Norm", 10)
    24.44
    """
    return sum(_WIDTH.get(character, _OTHER) for character in text) * size / 1000


def wrap(text: str, size: float, most: float) -> tuple[str, ...]:
    """The lines of a text: one if it fits, else two or more of similar widths.

    >>> wrap("Masked Multi-Head Attention", 10, 100)
    ('Masked Multi-Head', 'Attention')
    """
    words = text.split()
    if width(text, size) <= most or len(words) == 1:
        return (text,)
    cuts = [(" ".join(words[:i]), " ".join(words[i:])) for i in range(1, len(words))]
    first, rest = min(cuts, key=lambda cut: max(width(part, size) for part in cut))
    return (*wrap(first, size, most), *wrap(rest, size, most))
