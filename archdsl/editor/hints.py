"""Inlay hints: the type of each edge, where the text does not say it."""

from __future__ import annotations

from collections.abc import Iterator

from archdsl.editor.document import Document
from archdsl.editor.hover import value_type
from archdsl.editor.places import Position
from archdsl.frozen import Frozen
from archdsl.semantics.blocks import names_of
from archdsl.semantics.values import Several, Tensor
from archdsl.syntax import ast


class Hint(Frozen):
    """A text that is shown behind a position."""

    position: Position
    text: str


def hints(document: Document, first: int, last: int) -> list[Hint]:
    """The hints on the lines from `first` to `last`. Sizes are those of the first model."""
    found = (hint for item in document.version.file.items for hint in _of(document, item))
    return [each for each in found if first <= each.position.line <= last]


def _of(document: Document, item: ast.Item) -> Iterator[Hint]:
    if not isinstance(item, ast.Block | ast.Model):
        return
    for each in item.body.statements:
        if isinstance(each, ast.Edge | ast.Edges):
            for name in names_of(each):
                value = document.value(name.span)
                if isinstance(value, Tensor | Several):
                    end = document.version.range(name.span).end
                    yield Hint(end, f": {value_type(value)}")
