"""The words of a text with their classes, as the lexer of the compiler finds them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, TypeAlias

from lark import Token
from lark.exceptions import UnexpectedInput

from archdsl.syntax.parser import grammar

Class: TypeAlias = Literal[
    "keyword", "name", "call", "number", "string", "path", "comment", "sign"
]

_CLASSES: dict[str, Class] = {
    "NAME": "name",
    "PLACE": "name",
    "CALLEE": "call",
    "INT": "number",
    "FLOAT": "number",
    "STRING": "string",
    "PATH": "path",
}
_COMMENT = re.compile(r'"[^"\n]*"|(#[^\n]*)')


def words(text: str) -> Iterator[tuple[int, int, Class]]:
    """The start, the end and the class of each word and comment, in order; up to the first
    mistake of a text that has one.

    >>> for start, end, which in words('use "a.arch"  # more'):
    ...     print(which, start, end)
    keyword 0 3
    string 4 12
    comment 14 20
    """
    comments = [m.span(1) for m in _COMMENT.finditer(text) if m[1]]
    found: list[tuple[int, int, Class]] = [(*span, "comment") for span in comments]
    try:
        for token in grammar().parse_interactive(text).iter_parse():
            start = token.start_pos or 0
            found.append((start, start + len(token), _class(token)))
    except UnexpectedInput:
        pass
    return iter(sorted(found))


def _class(token: Token) -> Class:
    return _CLASSES.get(token.type) or ("keyword" if token.isidentifier() else "sign")
