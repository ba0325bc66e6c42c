"""Lark's complaints in a user's words: what stands here, what could, and the likely fix."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from itertools import pairwise

import lark

from archdsl.diagnostics import Diagnostic, Note, Source, Span
from archdsl.syntax import ast

_ITEMS = {"use", "block", "model", "variant", "weights"}
KEYWORDS = _ITEMS | {"for", "input", "output", "loss", "init", "expect", "ignore", "pad"}
KEYWORDS |= {"float", "int", "bool", "true", "false"}

# Words of other languages that would pass for names here.
_FOREIGN = {
    "True": "write `true`",
    "False": "write `false`",
    "None": "leave the argument out",
    "return": "a block's last expression is its value: leave the word out",
    "let": "a value is named by `name = …` alone",
    "import": 'another file is brought in by `use "file.arch"`',
    "def": "a block is declared by `block name(x: float[T, D]) { … }`",
}

# The terminals as a person names them; what is not here is shown as it is written.
_WORDS = {
    "NAME": "a name",
    "CALLEE": "a name with `(` right behind it",
    "INT": "a number",
    "FLOAT": "a number",
    "STRING": 'a "string"',
    "PATH": "a weight's path",
    "$END": "the end of the file",
}
_EXPRESSION = {"NAME", "CALLEE", "INT", "FLOAT", "STRING", "TRUE", "FALSE", "LPAR", "LBRACE"}

# Terminals that come together: all of the first set mean the phrase, and cover the second.
_GROUPS: tuple[tuple[set[str], str, set[str]], ...] = (
    ({"INPUT", "OUTPUT", "LOSS", "INIT", "EXPECT"}, "a statement", _EXPRESSION),
    ({"USE", "BLOCK", "MODEL"}, "`use`, `block`, `model`, …", {"VARIANT", "WEIGHTS"}),
    ({"NAME", "INT", "LPAR", "LBRACE"}, "an expression", _EXPRESSION | {"MINUS"}),
    ({"PLUS", "MINUS"}, "an operator", {"STAR", "SLASH", "FLOOR"}),
)

_PAIRS = {"(": ")", "[": "]", "{": "}"}

# What a line looks like around the place ‸ where it is wrong, and the likely fix.
_HABITS = (
    # of other languages
    (r"‸\*\*|\*\s*‸\*|‸\^", "there is no power: write a product, or `sqrt(x)`"),
    (r"‸%", "there is no remainder; `//` divides and rounds down"),
    (r"‸@", "a product with a matrix is a step: `x -> linear(n)`"),
    (r"‸\[", "there are no lists and no subscripts; arguments stand in `(…)`"),
    (r"‸\?|\bif\b.*‸", "there are no conditions; a variant is a model's other choice"),
    (r"‸\\", "a line goes on by itself: leave the `\\` out"),
    (r"‸;", "statements need no mark between them: leave the `;` out"),
    (r"‸//|//.*‸|‸/\*|--.*‸|‸--", "a comment begins with `#`"),
    (r"‸['“”‘’]", 'a string stands in double quotes: `"gelu"`'),
    (r"‸(import|from|include)\b", 'another file is brought in by `use "file.arch"`'),
    (r"‸(def|fn|func|class|module)\b", "a block is declared by `block name(…) { … }`"),
    # arrows and steps
    (r"‸(=>|\|>|→|⟶)|[-=|]\s*‸>|‸-\s*>|-\s*‸->|->\s*‸->", "the arrow is `->`"),
    (r"\w\s+‸\(", "in a call the bracket stands right behind the name"),
    (r"‸\.\w+\(", "a step stands behind an arrow: `x -> norm`"),
    (r"->\s*\{[^}]*‸,", "steps in braces follow each other by `->`"),
    # numbers and signs
    (r"‸\d+_", "an underscore in a number stands between two digits"),
    (r"‸\.\d|‸\d[\d_]*\.", "a number has digits on both sides of the point"),
    (r"‸0[xXbB]", "numbers are written in decimal"),
    (r"‸\d+[A-Za-z]", "a product is written out: `2 * D`"),
    (r"‸[×·]", "a product is written `*`"),
    (r"‸[−–—]", "minus is the plain hyphen `-`"),
    (r"‸≤", "write `<=`"),
    # declarations
    (r"expect\b[^=]*‸=[^=]|=\s*‸=|‸!=", "equality is written `==`"),
    (r"‸(==|>=|<=?|>)", "a comparison stands behind `expect`"),
)


def reserved(name: str, span: Span) -> Diagnostic | None:
    """What to say of a word that cannot be a name, or None when it can."""
    if name in KEYWORDS:
        return Diagnostic("syntax", f"`{name}` is a keyword and cannot be a name", span)
    if name in _FOREIGN:
        return Diagnostic("syntax", f"unexpected `{name}`", span, help=_FOREIGN[name])
    return None


def run_together(file: ast.File) -> Iterator[Diagnostic]:
    """Mistakes where a value follows a statement on its line: something is left out there.

    The grammar knows no lines, so it reads `h = x norm` as two statements.
    """
    for body in ast.walk(file):
        if not isinstance(body, ast.Body):
            continue
        for first, second in pairwise(body.statements):
            between = Span(first.span.source, first.span.end, second.span.start).text
            if "\n" not in between and ast.Result in (type(first), type(second)):
                yield Diagnostic(
                    "syntax",
                    "two statements on one line",
                    second.span,
                    help="an operator or `->` is missing here, or the end of the line",
                )


def explain(
    error: lark.exceptions.UnexpectedInput,
    source: Source,
    start: int,
    end: int,
    spelling: Callable[[str], str],
) -> Diagnostic:
    """The diagnostic for the place where the reading of [start, end) of a source stopped.

    `spelling` writes a terminal out.
    """
    accepted = error.interactive_parser.accepts() if error.interactive_parser else set()
    expected = _sentence(accepted, spelling)
    token = error.token if isinstance(error, lark.exceptions.UnexpectedToken) else None
    # A token is a string, and that of the end an empty one.
    position = start + ((error.pos_in_stream if token is None else token.start_pos) or 0)
    if token is not None and token.type == "$END":
        if bracket := _open_bracket(source, start, end):
            return Diagnostic("syntax", f"`{bracket.text}` is never closed", bracket)
        last = Span(source, start + (token.end_pos or 0), start + (token.end_pos or 0))
        return Diagnostic("syntax", "this ends too early", last, expected=expected)
    span = _word(source, position)
    notes: tuple[Note, ...] = ()
    if span.text in (")", "]", "}"):
        bracket = _open_bracket(source, start, position)
        if bracket is None:
            return Diagnostic("syntax", f"`{span.text}` closes nothing", span)
        if _PAIRS[bracket.text] != span.text:
            notes = (Note(f"`{bracket.text}` is open here", bracket),)
    return Diagnostic(
        "syntax",
        _unexpected(span.text),
        span,
        expected=expected,
        notes=notes,
        help=_help(span, accepted),
    )


def _word(source: Source, start: int) -> Span:
    """The word, number, sign or character at a place; a string to the end of its line."""
    found = re.compile(r'[\w.]+|"[^\n]*|->|[=<>!/]=|//|\*\*|.', re.DOTALL).match(source.text, start)
    return Span(source, start, found.end() if found else start)


def _unexpected(text: str) -> str:
    if text.startswith('"') and not text.endswith('"', 1):
        return "the string does not end on its line"
    if len(text) == 1 and not (text.isprintable() and text.strip() and unicodedata.combining(text) == 0):
        name = unicodedata.name(text, "a control character")
        return f"unexpected character U+{ord(text):04X}, {name.lower()}"
    return f"unexpected `{text}`"


def _open_bracket(source: Source, start: int, end: int) -> Span | None:
    """The innermost bracket that is open at the end of a text."""
    brackets: list[int] = []
    for found in re.finditer(r'"[^"\n]*"|#[^\n]*|[()\[\]{}]', source.text[start:end]):
        if found[0] in _PAIRS:
            brackets.append(start + found.start())
        elif found[0] in _PAIRS.values() and brackets:
            brackets.pop()
    return Span(source, brackets[-1], brackets[-1] + 1) if brackets else None


def _help(span: Span, accepted: set[str]) -> str | None:
    if span.text in KEYWORDS and accepted & {"NAME", "CALLEE"}:
        return f"`{span.text}` is a keyword and cannot be a name"
    line, column = span.source.line(span.line), span.column - 1
    marked = f"{line[:column]}‸{line[column:]}"
    return next((advice for look, advice in _HABITS if re.search(look, marked)), None)


def _sentence(accepted: set[str], spelling: Callable[[str], str]) -> str | None:
    """What the grammar would have taken here, grouped as a person would say it."""
    words: list[str] = []
    for group, name, implied in _GROUPS:
        if group <= accepted:
            words.append(name)
            accepted = accepted - group - implied
    words += sorted({_WORDS.get(t) or f"`{spelling(t)}`" for t in accepted})
    return " or ".join([", ".join(words[:-1]), words[-1]][len(words) < 2 :]) if words else None
