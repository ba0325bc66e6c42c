"""The colours of specs in pages: a lexer of Pygments, by the TextMate grammar of VS Code.

The grammar is made from the table of operators, so there is no second list of words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from pygments import lexers
from pygments.lexer import Lexer
from pygments.token import (
    Comment,
    Keyword,
    Name,
    Number,
    Operator,
    Punctuation,
    String,
    Text,
    _TokenType,
)

from archdsl.editor.textmate import textmate

__all__ = ["ArchLexer"]  # what Pygments looks for

# The token of a scope: that of its longest beginning.
TOKENS = {
    "comment": Comment,
    "string": String,
    "constant.numeric": Number,
    "constant.language": Keyword.Constant,
    "keyword": Keyword,
    "keyword.declaration": Keyword.Declaration,
    "keyword.operator": Operator,
    "punctuation": Punctuation,
    "storage.type": Keyword.Type,
    "entity.name.function": Name.Function,
    "entity.name.type": Name.Class,
    "entity.name.tag": Name.Label,
    "support.function": Name.Builtin,
    "variable.parameter": Name.Attribute,
    "variable.other": Name.Variable,
}
SPAN = tuple[int, int, str]


class ArchLexer(Lexer):
    """Gives a token to each piece of a spec, or of a part of one.

    >>> tokens = ArchLexer().get_tokens("x -> linear(D)")
    >>> [(str(kind)[6:], text.strip()) for kind, text in tokens if text.strip()]
    [('Text', 'x'), ('Operator', '->'), ('Name.Builtin', 'linear'), ('Text', '(D)')]
    """

    name = "archdsl"
    aliases = ("arch",)
    filenames = ("*.arch",)

    def get_tokens_unprocessed(self, text: str) -> Iterator[tuple[int, _TokenType, str]]:
        place, stack = 0, [_region(_grammar())]
        for line in text.splitlines(keepends=True):
            end = 0
            for start, stop, scope in sorted(_line(line, stack)):
                if start >= stop or start < end:
                    continue  # a group that matches nothing
                if start > end:
                    yield place + end, Text, line[end:start]
                yield place + start, _token(scope), line[start:stop]
                end = stop
            if end < len(line):
                yield place + end, Text, line[end:]
            place += len(line)


def register() -> None:
    """Lets Pygments find the lexer for blocks marked ```arch."""
    about = ArchLexer.name, ArchLexer.aliases, ArchLexer.filenames, ()
    lexers.LEXERS["ArchLexer"] = (__name__, *about)


class _Region:
    """A part of the grammar: the patterns that it may have inside, each with its expression."""

    def __init__(self, rule: dict[str, Any]):
        ends = [{"match": rule["end"], "ends": True}] if "end" in rule else []
        found = [*ends, *_rules(rule)]
        self.rules = [(re.compile(each.get("match") or each["begin"]), each) for each in found]

    def first(self, line: str, at: int) -> tuple[re.Match[str], dict[str, Any]] | None:
        """The match that begins first; of several, that of the first pattern."""
        best = None
        for pattern, rule in self.rules:
            match = pattern.search(line, at)
            if match and (best is None or match.start() < best[0].start()):
                best = match, rule
        return best


def _line(line: str, stack: list[_Region]) -> Iterator[SPAN]:
    """The scopes of a line. `stack` has the regions that are open, and is changed."""
    at = 0
    while found := stack[-1].first(line, at):
        match, rule = found
        yield from _scopes(rule, match)
        at = match.end()
        if "ends" in rule:
            stack.pop()
        elif "begin" in rule:
            stack.append(_region(rule))


def _rules(rule: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The patterns of a region, with those that it includes by name."""
    for each in rule.get("patterns", ()):
        if "include" in each:
            each = _grammar()["repository"][each["include"][1:]]
        if "match" in each or "begin" in each:
            yield each
        else:
            yield from _rules(each)


def _scopes(rule: dict[str, Any], match: re.Match[str]) -> Iterator[SPAN]:
    captures = rule.get("captures") or rule.get("beginCaptures") or {}
    if "name" in rule:
        captures = {"0": rule, **captures}
    for group, capture in captures.items():
        start, end = match.span(int(group))
        if "name" in capture:
            yield start, end, capture["name"]
        elif "patterns" in capture:
            for first, last, scope in _line(match[int(group)], [_region(capture)]):
                yield start + first, start + last, scope


_grammar = cache(textmate)
_regions: dict[int, _Region] = {}


def _region(rule: dict[str, Any]) -> _Region:
    """The region of a rule of the grammar, which lives as long as this module."""
    if id(rule) not in _regions:
        _regions[id(rule)] = _Region(rule)
    return _regions[id(rule)]


@cache
def _token(scope: str) -> _TokenType:
    words = scope.split(".")
    beginnings = (".".join(words[:count]) for count in range(len(words), 0, -1))
    return next((TOKENS[each] for each in beginnings if each in TOKENS), Text)
