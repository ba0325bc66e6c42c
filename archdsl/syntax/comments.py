"""Attaches comments and empty lines to the nodes next to them.

The grammar skips comments; this module assigns each one to a slot. A node that can have
comments has a slot above and a slot after it, and a bracket has a slot before its end. A
comment goes after the node that ends on its line, or else above the next node in the same
bracket. A comment inside a node goes above that node. The order of comments does not change.
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Literal, TypeAlias

from archdsl.diagnostics import Source
from archdsl.frozen import Frozen
from archdsl.syntax import ast
from archdsl.syntax.traversal import children

Comment: TypeAlias = tuple[int, str]  # its position and its text
Kind: TypeAlias = Literal["leading", "trailing", "closing"]


class _Slot(Frozen):
    """A place for comments."""

    kind: Kind
    node: int  # its id()
    at: int
    bracket: int  # the start of the enclosing bracket
    until: int = -1  # of a leading slot, the end of its node


def needs_blank_line(before: ast.Node, after: ast.Node) -> bool:
    """Whether a blank line is required between two items."""
    return _is_multiline(before) or _is_multiline(after)


def _is_multiline(node: ast.Node) -> bool:
    return isinstance(
        node, ast.Block | ast.Model | ast.Weights | ast.SharedLines | ast.Config | ast.Only
    ) or (isinstance(node, ast.Variant) and node.facts is not None)


def attach(file: ast.File, comments: list[Comment], source: Source) -> ast.File:
    """Returns the tree with its comments, and with the empty lines between siblings."""
    slots = sorted(_slots(file, -1), key=lambda slot: slot.at)
    rebuilt: ast.File = _Rebuild(_assign(slots, comments, source.text), source.text).node(file)
    return rebuilt


def _slots(node: ast.Node, bracket: int) -> Iterator[_Slot]:
    """Yields the slots of a node and its descendants; types have none."""
    carries, closes = hasattr(node, "trivia"), hasattr(node, "closing")
    inside = node.span.start if closes else bracket
    end = node.span.end
    # A chain that is the whole value of a node shares the slots of that node. That of a setting
    # is in brackets, and more may follow.
    chain = getattr(node, "value", None) or getattr(node, "default", None)
    shared = -1
    if (
        isinstance(chain, ast.Chain)
        and carries
        and not isinstance(node, ast.Step | ast.Setting)
    ):
        end = chain.steps[-1].span.end
        if isinstance(node, ast.Result) or (isinstance(node, ast.Arg) and not node.name):
            shared = id(chain.steps[0])
    if carries:
        yield _Slot("leading", id(node), node.span.start, bracket, node.span.end)
    for child in children(node):
        if not isinstance(child, ast.Type):
            slots = _slots(child, inside)
            yield from (s for s in slots if s.kind != "leading" or s.node != shared)
    if closes:
        last = sys.maxsize if isinstance(node, ast.File) else end - 1
        yield _Slot("closing", id(node), last, inside)
    if carries:
        yield _Slot("trailing", id(node), end, bracket)


def _assign(
    slots: Sequence[_Slot], comments: list[Comment], text: str
) -> dict[tuple[Kind, int], list[Comment]]:
    """Returns the comments of each slot by kind and node."""
    filled: dict[tuple[Kind, int], list[Comment]] = defaultdict(list)
    places = [slot.at for slot in slots]
    latest = 0
    for position, comment in comments:
        i = bisect_right(places, position)
        before, after = slots[i - 1], slots[i]
        beside = re.fullmatch(r"[ \t,)]*", text[before.at : position])
        if before.kind == "trailing" and beside and i > latest:
            i -= 1
        elif after.kind == "trailing" or after.bracket > position:
            # Inside a node: above it, unless an earlier comment is inside it too.
            around = (j for j in range(i - 1, latest - 1, -1) if slots[j].until > position)
            i = next(around, i)
        while slots[i].kind == "trailing" and slots[i] is not before:
            i += 1
        latest = i
        filled[slots[i].kind, slots[i].node].append((position, comment))
    return filled


class _Rebuild:
    """Rebuilds a tree with its comments and empty lines."""

    def __init__(self, filled: dict[tuple[Kind, int], list[Comment]], text: str):
        self.filled = filled
        self.text = text

    def node(self, node: Any, blank: bool = False) -> Any:
        return type(node)(*[self.field(node, name, blank) for name in node.__match_args__])

    def field(self, node: Any, name: str, blank: bool) -> Any:
        value = getattr(node, name)
        match name:
            case "items" | "statements" | "rules":
                return self.siblings(value)
            case "trivia":
                return self.trivia(node, blank)
            case "closing":
                return self.closing(node)
        if isinstance(value, tuple):
            return tuple([self.node(child) for child in value])
        return self.node(value) if hasattr(value, "span") else value

    def siblings(self, nodes: tuple[Any, ...]) -> tuple[Any, ...]:
        """Siblings on separate lines, with the blank lines between them."""
        rebuilt = [self.node(node) for node in nodes[:1]]
        for before, node in pairwise(nodes):
            above = self.filled["leading", id(node)]
            top = above[0][0] if above else node.span.start
            blank = not needs_blank_line(before, node) and self.has_blank_line(
                before.span.end, top
            )
            rebuilt.append(self.node(node, blank))
        return tuple(rebuilt)

    def trivia(self, node: Any, blank: bool) -> ast.Trivia:
        above = self.filled["leading", id(node)]
        behind = self.filled["trailing", id(node)]
        leading = self.lines(above, node.span.start)
        return ast.Trivia(blank, leading, behind[0][1] if behind else None)

    def closing(self, node: Any) -> tuple[str, ...]:
        found = self.filled["closing", id(node)]
        before = node.__match_args__.index("closing") - 1
        inside = getattr(node, node.__match_args__[before])
        if found and inside and self.has_blank_line(inside[-1].span.end, found[0][0]):
            return ("", *self.lines(found))
        return self.lines(found)

    def lines(self, found: list[Comment], end: int = 0) -> tuple[str, ...]:
        """Comments in order, with "" for a blank line between them or before `end`."""
        lines: list[str] = []
        for i, (position, comment) in enumerate(found):
            after = found[i + 1][0] if i + 1 < len(found) else end
            lines.append(comment)
            if self.has_blank_line(position + len(comment), after):
                lines.append("")
        return tuple(lines)

    def has_blank_line(self, start: int, end: int) -> bool:
        """Whether there is a blank line between two positions."""
        return re.search(r"\n[ \t]*\n", self.text[start:end]) is not None
