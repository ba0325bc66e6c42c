"""What is at a place of a document: a name, the nodes around it, and its definition."""

from __future__ import annotations

from collections.abc import Iterator

from archdsl.diagnostics import Span
from archdsl.editor.document import Version
from archdsl.editor.places import Position
from archdsl.syntax import ast
from archdsl.syntax.traversal import children


def around(version: Version, position: Position) -> list[ast.Node]:
    """The nodes around a place, innermost first. A place after a word belongs to it."""
    source, offset = version.pieces.within(version.lines.offset(position))
    items = (each for each in version.file.items if each.span.source is source)
    found: list[ast.Node] = []
    level: Iterator[ast.Node] = items
    while node := _at(level, offset):
        found.append(node)
        level = children(node)
    return found[::-1]


def _at(nodes: Iterator[ast.Node], offset: int) -> ast.Node | None:
    """The node at a place; of two that touch there, the one that begins, unless it is empty."""
    near = [each for each in nodes if each.span.start <= offset <= each.span.end]
    names = [each for each in near if isinstance(each, ast.Name | ast.String)]
    return (names or near or [None])[-1]


def definition(version: Version, nodes: list[ast.Node]) -> Span | None:
    """The definition of the name at a place; None for a name of the language."""
    return version.references.definition(nodes[0].span) if nodes else None


def parents(node: ast.Node) -> Iterator[tuple[ast.Node, ast.Node]]:
    """Each node below this one with the node around it."""
    for child in children(node):
        yield child, node
        yield from parents(child)
