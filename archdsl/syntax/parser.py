"""Text to tree. Lark reads the grammar; mistakes.py puts its complaints into words."""

from __future__ import annotations

import contextlib
import functools
import math
import re
import sys
from pathlib import Path
from typing import Any

import lark

from archdsl.cache import cache_folder
from archdsl.diagnostics import ArchError, Diagnostic, Source, Span
from archdsl.syntax import ast
from archdsl.syntax.comments import attach
from archdsl.syntax.lexer import Lexer
from archdsl.syntax.mistakes import explain, reserved, run_together

# Levels of Lark's tree; a call inside a call is three of them, a further summand is one.
# What walks a tree may then do so by recursion.
DEEPEST = 100
# No number of a model has more, and Python refuses to convert some thousands of them.
DIGITS = 30

_ITEM_START = re.compile(r"^(?:use|block|model|variant|weights)[ \t]", re.MULTILINE)
_STRING_OR_COMMENT = re.compile(r'"[^"\n]*"|#[^\n]*')
# Rules whose children are one list: a field of their class, or of their parent's.
_LISTS = {"file", "params", "body", "facts", "chain", "lambda", "config"}
_PLAIN_LISTS = {"axes", "args", "rules", "fields", "paths", "conversions"}


def parse(text: str, path: str = "<text>") -> ast.File:
    """The tree of a spec's text.

    Raises `ArchError` with a diagnostic for each item of the file that cannot be read.

    >>> parse('use "blocks.arch"').items[0].path.value
    'blocks.arch'
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    source = Source(path, text)
    whole = _read(source, 0, len(text))
    if isinstance(whole, ast.File):
        return whole
    # One mistake ends Lark's reading, so the others are found item by item.
    starts = sorted({0, *(m.start() for m in _ITEM_START.finditer(text))})
    pieces = [
        _read(source, a, b) for a, b in zip(starts, [*starts[1:], len(text)], strict=True)
    ]
    found = [d for piece in pieces if not isinstance(piece, ast.File) for d in piece]
    raise ArchError(found or whole)


def _read(source: Source, start: int, end: int) -> ast.File | list[Diagnostic]:
    """The tree of the characters [start, end) of a source, or what is wrong with them."""
    text = source.text[start:end]
    try:
        tree = _grammar().parse(text)
    except lark.exceptions.UnexpectedInput as error:
        return [explain(error, _grammar(), Span(source, start, end))]
    build = _Build(source, start)
    if deep := _too_deep(tree):
        what = "this is nested too deeply"
        help = "give a part of it a name of its own: `name = …`"
        return [Diagnostic("syntax", what, build.span(deep.meta), help=help)]
    file: ast.File = build.transform(tree)
    if mistakes := build.mistakes or list(run_together(file)):
        return mistakes
    comments = [
        (start + m.start(), m[0].rstrip())
        for m in _STRING_OR_COMMENT.finditer(text)
        if m[0].startswith("#")
    ]
    return attach(file, comments, source)


@functools.cache
def _grammar(strict: bool = False) -> lark.Lark:
    """The parser; `strict` makes Lark refuse any ambiguity of the grammar (tests do).

    Making its tables takes longer than all else that `check` does, so Lark keeps them in a
    file; for another grammar, or where none can be written, it makes them anew.
    """
    kept = cache_folder() / f"grammar-{sys.implementation.cache_tag}"
    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
    return lark.Lark(
        Path(__file__).with_name("archdsl.lark").read_text(encoding="utf-8"),
        parser="lalr",
        start="file",
        propagate_positions=True,
        maybe_placeholders=True,
        _plugins={"ContextualLexer": Lexer},
        strict=strict,
        cache=False if strict else str(kept),
    )


def _too_deep(tree: lark.Tree[lark.Token]) -> lark.Tree[lark.Token] | None:
    """The first part of a tree that is more than `DEEPEST` levels below its root."""
    level = [tree]
    for _ in range(DEEPEST):
        level = [c for t in level for c in t.children if isinstance(c, lark.Tree)]
    return level[0] if level else None


class _Build(lark.Transformer[lark.Token, Any]):
    """Lark's tree to ours: a rule becomes the class of its name, children its fields."""

    def __init__(self, source: Source, offset: int):
        super().__init__()
        self.source = source
        self.offset = offset
        self.mistakes: list[Diagnostic] = []

    def span(self, place: Any) -> Span:
        """Where a token, or the `meta` of a rule, stands; an empty file stands at its start."""
        start = getattr(place, "start_pos", None) or 0
        end = getattr(place, "end_pos", None) or 0
        return Span(self.source, self.offset + start, self.offset + end)

    def __default__(self, data: str, children: list[Any], meta: Any) -> Any:
        rule = str(data)
        if rule in _PLAIN_LISTS | _LISTS:
            children = [tuple(child for child in children if child is not None)]
        if rule in _PLAIN_LISTS:
            return children[0]
        if rule in ("conversion", "only"):
            children = [children[0], tuple(children[1:])]
        name = "".join(part.capitalize() for part in rule.split("_"))
        return getattr(ast, name)(self.span(meta), *children)

    def __default_token__(self, token: lark.Token) -> Any:
        span, text = self.span(token), str(token)
        match token.type:
            case "NAME" | "CALLEE":
                if mistake := reserved(text, span):
                    self.mistakes.append(mistake)
                return ast.Name(span, text)
            case "PLACE":
                return ast.Name(span, text)
            case "INT":
                if len(text) > DIGITS:
                    self._too_large(span)
                return ast.Int(span, text)
            case "FLOAT":
                if not math.isfinite(float(text)):
                    self._too_large(span)
                return ast.Float(span, text)
            case "STRING":
                return ast.String(span, text[1:-1])
            case "PATH":
                return ast.Path(span, text)
            case _:
                return text

    def _too_large(self, span: Span) -> None:
        self.mistakes.append(Diagnostic("arithmetic", "the number is too large", span))

    def dtype(self, children: list[str]) -> str:
        return children[0]

    @lark.v_args(meta=True)
    def bool(self, meta: Any, children: list[str]) -> ast.Bool:
        return ast.Bool(self.span(meta), children[0] == "true")
