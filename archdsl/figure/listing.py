"""The text of a spec -> HTML: numbered lines, with the classes of words."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from archdsl.diagnostics import Source
from archdsl.graph.ops import CALLED
from archdsl.semantics.binding import MASKS
from archdsl.syntax.highlight import words

_OPERATORS = {*CALLED, *MASKS}


def listing(source: Source) -> str:
    """The lines of a text, each an element `<li>` with its number as `data-line`."""
    lines = "".join(_pieces(source.text)).removesuffix("\n").split("\n")
    return "\n".join(
        f'<li tabindex="-1" data-line="{number}"><code>{line}</code></li>'
        for number, line in enumerate(lines, 1)
    )


def _pieces(text: str) -> Iterator[str]:
    """The text with its words in elements; no word is longer than a line."""
    end, is_step = 0, False  # whether a name would be a step, as after an arrow
    for start, stop, which in words(text):
        word, is_label = text[start:stop], text.startswith(":", stop)
        called = which == "call" or (which == "name" and is_step and not is_label)
        name = "operator" if called and word in _OPERATORS else which
        yield escape(text[end:start])
        plain = name in ("name", "sign")
        yield escape(word) if plain else f'<i class="{name}">{escape(word)}</i>'
        end, is_step = stop, word in ("->", "{") or (is_step and (is_label or word == ":"))
    yield escape(text[end:])
