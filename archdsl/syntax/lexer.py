"""Lark's contextual lexer, with a faster start.

Lark builds a scanner for each set of terminals that a parser state accepts. Building them takes
longer than parsing a file. Most tokens are the same in all states, so a shared scanner is tried
first, and the scanner of the state is built only if the state does not accept the token. States
that accept a path (any word) have a second shared scanner.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import copy
from typing import Any

from lark import Token
from lark.exceptions import UnexpectedCharacters
from lark.lexer import AbstractBasicLexer, BasicLexer, ContextualLexer, LexerState

# Accepted by the scanner in every state, so that `modelA` is not read as `model` and `A`.
_WHOLE = {"NAME", "ARROW", "EQUAL", "ATMOST", "ATLEAST"}


class Lexer(ContextualLexer):
    """Lark's lexer, with the lexer of a state built when the parser first reaches it."""

    def __init__(
        self, conf: Any, states: Mapping[int, Collection[str]], always_accept: Collection[str]
    ):
        if not conf.skip_validation:  # the grammar is not validated yet
            super().__init__(conf, dict(states), tuple(_WHOLE))
        self.root_lexer = _lexer(conf, conf.terminals_by_name)
        self.lexers = _Lexers(conf, states)


class _Lexers(dict[int, AbstractBasicLexer]):
    """The lexer of each state.

    The shared scanner and the scanner of a state try terminals in the same order. So if the
    shared scanner finds a terminal that the state accepts, both find the same one.
    """

    def __init__(self, conf: Any, states: Mapping[int, Collection[str]]):
        self.conf = conf
        self.accepted = {
            state: {*terminals, *conf.ignore, *_WHOLE} for state, terminals in states.items()
        }
        self.shared: dict[bool, BasicLexer] = {}

    def __missing__(self, state: int) -> AbstractBasicLexer:
        types = self.accepted[state]
        path = "PATH" in types
        if path not in self.shared:
            alike = [names for names in self.accepted.values() if ("PATH" in names) == path]
            self.shared[path] = _lexer(self.conf, set[str]().union(*alike))
        self[state] = _StateLexer(self.shared[path], self.conf, types)
        return self[state]


class _StateLexer(BasicLexer):
    """The lexer of a state: the shared scanner, then its own, which is built on demand."""

    def __init__(self, shared: BasicLexer, conf: Any, types: set[str]):
        self.shared, self.conf, self.types = shared, conf, types
        self.own: BasicLexer | None = None

    def next_token(self, lex_state: LexerState, parser_state: Any = None) -> Token:
        count, before = lex_state.line_ctr, lex_state.last_token
        place = [getattr(count, name) for name in count.__slots__]
        try:
            token = self.shared.next_token(lex_state, parser_state)
            if token.type in self.types:
                return token
        except UnexpectedCharacters:
            pass
        for name, value in zip(count.__slots__, place, strict=True):
            setattr(count, name, value)
        lex_state.last_token = before
        self.own = self.own or _lexer(self.conf, self.types)
        return self.own.next_token(lex_state, parser_state)


def _lexer(conf: Any, names: Collection[str]) -> BasicLexer:
    """Returns Lark's lexer of these terminals, which are validated already."""
    conf = copy(conf)
    conf.terminals = [terminal for terminal in conf.terminals if terminal.name in names]
    conf.skip_validation = True
    return BasicLexer(conf)
