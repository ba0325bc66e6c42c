"""Visits the nodes of a tree in the order of the text."""

from __future__ import annotations

from collections.abc import Iterator

from archdsl.syntax.ast import Node, Spanned


def children(node: Node) -> Iterator[Node]:
    """The direct children of a node."""
    for name in node.__match_args__:
        value = getattr(node, name)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, Spanned):
                yield item  # type: ignore[misc]  # every Spanned is one of the union


def walk(node: Node) -> Iterator[Node]:
    """A node and its descendants."""
    yield node
    for child in children(node):
        yield from walk(child)
