"""Text to tokens, as the parser's state has them: Lark's contextual lexer, ready sooner.

Lark makes a scanner for each set of terminals that some state of the parser takes, and to make
those of one file takes longer than to read it. Nearly every token is the same for all of them,
so one scanner is asked first, and a state's own where that finds what the state does not take;
states that take a path, which is any word, have another first one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import copy
from typing import Any

from lark import Token
from lark.exceptions import UnexpectedCharacters
from lark.lexer import AbstractBasicLexer, BasicLexer, ContextualLexer, LexerState

# Tried in every state, lest `modelA` be read as `model` and `A`.
_WHOLE = {"NAME", "ARROW", "EQUAL", "ATMOST", "ATLEAST"}


class Lexer(ContextualLexer):
    """Lark's, with the lexer of a state made when the parser first comes to it."""

    def __init__(
        self, conf: Any, states: Mapping[int, Collection[str]], always_accept: Collection[str]
    ):
        if not conf.skip_validation:  # of a grammar that Lark has not looked at yet
            super().__init__(conf, dict(states), tuple(_WHOLE))
        self.root_lexer = _lexer(conf, conf.terminals_by_name)
        self.lexers = _Lexers(conf, states)


class _Lexers(dict[int, AbstractBasicLexer]):
    """The lexer of each state.

    What the first finds first among the terminals of many states is what a state's own scanner
    finds first among its own, if it is one of them: both try them in the same order.
    """

    def __init__(self, conf: Any, states: Mapping[int, Collection[str]]):
        self.conf = conf
        self.taken = {state: {*taken, *conf.ignore, *_WHOLE} for state, taken in states.items()}
        self.first: dict[bool, BasicLexer] = {}

    def __missing__(self, state: int) -> AbstractBasicLexer:
        types = self.taken[state]
        path = "PATH" in types
        if path not in self.first:
            alike = [taken for taken in self.taken.values() if ("PATH" in taken) == path]
            self.first[path] = _lexer(self.conf, set[str]().union(*alike))
        self[state] = _Either(self.first[path], self.conf, types)
        return self[state]


class _Either(BasicLexer):
    """A state's lexer: the first of many states and, made where it is needed, its own."""

    def __init__(self, first: BasicLexer, conf: Any, types: set[str]):
        self.first, self.conf, self.types = first, conf, types
        self.own: BasicLexer | None = None

    def next_token(self, lex_state: LexerState, parser_state: Any = None) -> Token:
        count, before = lex_state.line_ctr, lex_state.last_token
        place = [getattr(count, name) for name in count.__slots__]
        try:
            token = self.first.next_token(lex_state, parser_state)
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
    """Lark's lexer of these terminals, which have been looked at before."""
    conf = copy(conf)
    conf.terminals = [terminal for terminal in conf.terminals if terminal.name in names]
    conf.skip_validation = True
    return BasicLexer(conf)
