"""Parses text into a tree, with Lark; mistakes.py explains its errors."""

from __future__ import annotations

import contextlib
import functools
import math
import re
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import lark

from archdsl.cache import cache_folder, is_ours, make_folder, trusted
from archdsl.diagnostics import MOST, ArchError, Diagnostic, Source, Span, first_ones
from archdsl.syntax import ast
from archdsl.syntax.comments import attach
from archdsl.syntax.lexer import Lexer
from archdsl.syntax.mistakes import explain, reserved_word, statements_on_one_line

# Levels of Lark's tree: a nested call has three, another summand has one. With a limit, code
# that visits a tree can be recursive.
DEEPEST = 100
# No number of a model has more. Python refuses to convert thousands of digits.
DIGITS = 30
_LONG_NUMBER = re.compile(rf"\d{{{DIGITS + 1}}}")

# A check takes 0.1 ms for each. The longest spec of the standard library has 1550.
MOST_WORDS = 20_000

ITEM_START = re.compile(r"^(?:use|block|model|variant|weights)[ \t]", re.MULTILINE)
_WORD = re.compile(r'"[^"\n]*"|#[^\n]*|[\w.]+|->|[<>=]=|[()]+|\S')
_STRING_OR_COMMENT = re.compile(r'"[^"\n]*"|#[^\n]*')
_EXPRESSION = re.compile(r"\{([^{},]*[-+*/% ][^{},]*)\}")  # in a path
# Rules whose children are one list: a field of their own class, or of their parent's.
_LISTS = {"file", "params", "body", "facts", "chain", "lambda", "config", "choices"}
_LISTS |= {"several", "types"}
_PLAIN_LISTS = {"axes", "args", "rules", "fields", "paths", "conversions", "terms"}


def parse(text: str, path: str = "<text>") -> ast.File:
    """Parses the text of a spec.

    Raises `ArchError` with a diagnostic for each item of the file that cannot be read.

    >>> parse('use "blocks.arch"').items[0].path.value
    'blocks.arch'
    """
    text = with_plain_lines(text)
    source = Source(path, text)
    check_length(source)
    whole = parse_part(source, 0, len(text))
    if isinstance(whole, ast.File):
        return whole
    # Lark stops at the first mistake, so the other items are parsed one by one.
    starts = sorted({0, *(m.start() for m in ITEM_START.finditer(text))})
    found: list[Diagnostic] = []
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        piece = parse_part(source, start, end)
        found += [] if isinstance(piece, ast.File) else piece
        if len(found) >= MOST:
            break
    raise ArchError(first_ones(found or whole))


def with_plain_lines(text: str) -> str:
    """A text with the line ends that the grammar knows."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def check_length(source: Source) -> None:
    """Raises `ArchError` for a text that would take too long to check."""
    words = (m for m in _WORD.finditer(source.text) if m[0][0] != "#")
    if (word := next(islice(words, MOST_WORDS, None), None)) is not None:
        what = f"the file has more than {MOST_WORDS:,} words and signs"
        help = (
            'move blocks to other files, and write `use "file.arch"`; repeat with `block * n`'
        )
        place = Span(source, word.start(), word.end())
        raise ArchError(Diagnostic("syntax", what, place, help=help))


def _spaced(found: re.Match[str]) -> str:
    """An expression of a path with one space around its signs."""
    return f"{{{' '.join(re.findall(r'[A-Za-z_0-9]+|//|[-+*%]', found[1]))}}}"


def parse_part(source: Source, start: int, end: int) -> ast.File | list[Diagnostic]:
    """The tree of the characters [start, end) of a source, or their mistakes."""
    text = source.text[start:end]
    try:
        tree = grammar().parse(text)
    except lark.exceptions.UnexpectedInput as error:
        return [explain(error, grammar(), Span(source, start, end))]
    build = _Build(source, start)
    if deep := _first_too_deep(tree):
        what = "this is nested too deeply"
        help = "give a part of it a name: `name = …`"
        return [Diagnostic("syntax", what, build.span(deep.meta), help=help)]
    file: ast.File = build.transform(tree)
    if mistakes := build.mistakes or list(statements_on_one_line(file)):
        return mistakes
    comments = [
        (start + m.start(), m[0].rstrip())
        for m in _STRING_OR_COMMENT.finditer(text)
        if m[0].startswith("#")
    ]
    return attach(file, comments, source)


@functools.cache
def grammar(strict: bool = False) -> lark.Lark:
    """The parser; `strict`: Lark refuses an ambiguous grammar, for tests.

    Lark caches its tables in a file, because building them takes longer than the rest of
    `check`. For another grammar, or if the file cannot be written, it builds them again. The
    file is a pickle, so one that other users may write is deleted.
    """
    cached = cache_folder() / f"grammar-{sys.implementation.cache_tag}"
    with contextlib.suppress(OSError):
        make_folder(cached.parent)
        if cached.exists() and not is_ours(cached):
            cached.unlink()
    return lark.Lark(
        Path(__file__).with_name("archdsl.lark").read_text(encoding="utf-8"),
        parser="lalr",
        start="file",
        propagate_positions=True,
        maybe_placeholders=True,
        _plugins={"ContextualLexer": Lexer},
        strict=strict,
        cache=False if strict or not trusted(cached.parent) else str(cached),
    )


def _first_too_deep(tree: lark.Tree[lark.Token]) -> lark.Tree[lark.Token] | None:
    """The first part of a tree that is more than `DEEPEST` levels below its root."""
    level = [tree]
    for _ in range(DEEPEST):
        level = [c for t in level for c in t.children if isinstance(c, lark.Tree)]
    return level[0] if level else None


class _Build(lark.Transformer[lark.Token, Any]):
    """Converts Lark's tree: a rule becomes the class of its name, its children the fields."""

    def __init__(self, source: Source, offset: int):
        super().__init__()
        self.source = source
        self.offset = offset
        self.mistakes: list[Diagnostic] = []

    def span(self, place: Any) -> Span:
        """The span of a token or of the `meta` of a rule; the start for an empty file."""
        start = getattr(place, "start_pos", None) or 0
        end = getattr(place, "end_pos", None) or 0
        return Span(self.source, self.offset + start, self.offset + end)

    def __default__(self, data: str, children: list[Any], meta: Any) -> Any:
        rule = str(data)
        if rule in _PLAIN_LISTS | _LISTS:
            children = [tuple(child for child in children if child is not None)]
        if rule in _PLAIN_LISTS:
            return children[0]
        if rule == "rest":
            return ast.Axis(self.span(meta), ast.Name(self.span(meta), ast.REST), None)
        if rule == "axis" and children[2] is not None:  # the least length comes first
            children = [children[1], children[2], children[0]]
        if rule == "element":
            return ast.Arg(self.span(meta), None, children[0])
        if rule == "edges":
            children = [tuple(children[:-1]), children[-1]]
        if rule in ("conversion", "only"):
            children = [children[0], tuple(children[1:])]
        name = "".join(part.capitalize() for part in rule.split("_"))
        return getattr(ast, name)(self.span(meta), *children)

    def __default_token__(self, token: lark.Token) -> Any:
        span, text = self.span(token), str(token)
        match token.type:
            case "NAME" | "CALLEE":
                if mistake := reserved_word(text, span):
                    self.mistakes.append(mistake)
                return ast.Name(span, text)
            case "PLACE":
                return ast.Name(span, text)
            case "INT":
                if len(text) > DIGITS:
                    self._report_too_large(span)
                return ast.Int(span, text)
            case "FLOAT":
                if not math.isfinite(float(text)):
                    self._report_too_large(span)
                return ast.Float(span, text)
            case "STRING":
                return ast.String(span, text[1:-1])
            case "PATH":
                if _LONG_NUMBER.search(text):
                    self._report_too_large(span)
                return ast.Path(span, _EXPRESSION.sub(_spaced, text))
            case _:
                return text

    def _report_too_large(self, span: Span) -> None:
        self.mistakes.append(Diagnostic("arithmetic", "the number is too large", span))

    def layers(self, children: list[Any]) -> list[Any]:
        """`tied as i`: whether the layers are tied, and the name of their number."""
        names = [child for child in children if isinstance(child, ast.Name)]
        return ["tied" in children, names[0] if names else None]

    @lark.v_args(meta=True)
    def repeat(self, meta: Any, children: list[Any]) -> ast.Repeat:
        block, _, count, layers = children
        return ast.Repeat(self.span(meta), block, count, *layers)

    def dtype(self, children: list[str]) -> str:
        return children[0]

    @lark.v_args(meta=True)
    def bool(self, meta: Any, children: list[str]) -> ast.Bool:
        return ast.Bool(self.span(meta), children[0] == "true")
