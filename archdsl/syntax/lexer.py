"""Text to tokens, as the parser's state has them: Lark's contextual lexer, ready sooner.

Lark makes a scanner for each set of terminals that some state of the parser takes, and to make
those of one file takes longer than to read it. Nearly every token is the same for all of them,
so one scanner is asked first, and a state's own where that finds what the state does not take.
"""

from __future__ import annotations

from collections.abc import Collection
from copy import copy
from typing import Any

from lark import Token
from lark.exceptions import UnexpectedCharacters
from lark.lexer import BasicLexer, ContextualLexer, LexerState

# Tried in every state, lest `modelA` be read as `model` and `A`.
_WHOLE = ("NAME", "ARROW", "EQUAL", "ATMOST", "ATLEAST")


class Lexer(ContextualLexer):
    """Lark's, with one scanner for all states but those that take a path, which is any word.

    What the one finds first among the terminals of all states is what a state's own scanner
    finds first among its own, if it is one of them: both try them in the same order.
    """

    def __init__(
        self, conf: Any, states: dict[int, Collection[str]], always_accept: Collection[str]
    ):
        super().__init__(conf, states, _WHOLE)
        own = {
            state: each
            for state, each in self.lexers.items()
            if isinstance(each, BasicLexer) and "PATH" not in _names(each)
        }
        common = copy(conf)
        names = set[str]().union(*map(_names, own.values()))
        common.terminals = [t for t in conf.terminals if t.name in names]
        common.skip_validation = True  # they have been looked at above
        first = BasicLexer(common)
        self.lexers |= {state: _Either(first, each) for state, each in own.items()}


class _Either(BasicLexer):
    """A state's own lexer, after the one of all."""

    def __init__(self, first: BasicLexer, own: BasicLexer):
        self.first, self.own, self.types = first, own, _names(own)

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
        return self.own.next_token(lex_state, parser_state)


def _names(lexer: BasicLexer) -> set[str]:
    return {terminal.name for terminal in lexer.terminals}
