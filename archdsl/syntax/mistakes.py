"""Lark's complaints in a user's words: what stands here, what could, and the likely fix."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise

import lark

from archdsl.diagnostics import Diagnostic, Note, Source, Span
from archdsl.syntax import ast

# What begins an item or a statement, and how it goes on.
_FORMS = {
    "use": 'use "file.arch"',
    "block": "block name(x: float[T, D], heads, …): float[T, D] { … }",
    "model": "model Name(D = 768, …) { … }",
    "variant": "variant name = Model(D = 1600, …)",
    "weights": 'weights "title" for Model { … }',
    "input": "input name: int[T] < vocab",
    "output": "output name: float[T, D] = …",
    "loss": "loss next_token(logits, tokens)",
    "init": "init xavier",
    "expect": "expect params == 124_439_808",
}
KEYWORDS = {*_FORMS, "for", "ignore", "pad", "float", "int", "bool", "true", "false"}
KEYWORDS |= {"if", "else", "not", "default"}

# Words of other languages, which would pass for names here.
_FOREIGN = {
    "True": "write `true`",
    "False": "write `false`",
    "None": "write `none`, or leave the argument out",
    "return": "a block's last expression is its value: leave the word out",
    "let": "a value is named by `name = …` alone",
    "for": "a block is repeated by `block(…) * n`",
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

# What a line looks like around the place ‸ where it is wrong, and the likely fix.
_HABITS = (
    # arrows and steps
    (r"=‸>|‸=>|‸\|>|\|‸>|‸[→⟶⇒]|-\s*‸->|-\s*‸>", "the arrow is `->`"),
    (r"->\s*‸->", "one arrow is enough"),
    (
        r"^(?!(model|block)\b).*\w\s+\(*‸\(|\w\s+\(+‸",
        "a call's bracket stands right behind its name",
    ),
    (r"‸\.\w+\(", "a step stands behind an arrow: `x -> norm`"),
    (r"->\s*\{[^}]*‸,", "steps in braces follow each other by `->`"),
    (r"->.*[^=<>!]‸=[^=]", "a value is named in front of it all: `name = a -> b`"),
    (r"^init \w+ ‸", "it is written `init normal(0.02)`"),
    # signs of other languages
    (r"‸\*\*|\*\s*‸\*|‸\^", "there is no power: write a product, or `sqrt(x)`"),
    (r"‸%", "there is no remainder; `//` divides and rounds down"),
    (r"‸@", "a product with a matrix is a step: `x -> linear(n)`"),
    (r"‸\?", "one of two is chosen by `a if condition else b`"),
    (r"‸\\", "a line goes on by itself: leave the `\\` out"),
    (r"\([^)]*‸;", "write a comma"),
    (r"‸;", "statements need no mark between them: leave the `;` out"),
    (r"‸//|//.*‸|/\s*‸\*|--.*‸", "if a comment is meant: it begins with `#`"),
    (r"‸['“”\u2018\u2019]", 'a string stands in double quotes: `"…"`'),
    (r"‸(import|from|include)\b", 'another file is brought in by `use "file.arch"`'),
    (r"‸(def|fn|func|function|class|module)\b", "write `block name(…) { … }`"),
    # numbers and names
    (r"‸\d+_", "an underscore in a number stands between two digits"),
    (r"‸\.\d|\d‸\.", "a number has digits on both sides of its point"),
    (r"\d‸,\d\d\d\b", "long numbers are parted by `_`: 1_000"),
    (r"‸0[xXbBoO]", "numbers are written in decimal"),
    (r"‸\d+[A-Za-z]", "a product is written out: `2 * D`"),
    (r"‸[\xd7·]", "a product is written `*`"),
    (r"‸[\u2010-\u2015\u2212]", "minus is the plain `-`"),
    (r"‸-", "a value that begins with a sign stands in brackets: `(-x)`"),
    (r"‸≤", "write `<=`"),
    (r"‸[^\W\d_a-zA-Z]", "names are made of a to z, A to Z, digits and `_`"),
    # declarations
    (
        r"‸(float|int)\d+|‸(half|double|bfloat16)\b",
        "write `float` or `int`: the precision is no part of a spec",
    ),
    (r"\b(float|int|bool)\s*\(?‸", "sizes stand in square brackets: `float[T, D]`"),
    (r"\b(float|int|bool)\[‸\]", "what has no axes has no brackets"),
    (r"\[[^]]*‸<[^=]", "the bound of an axis is written `<=`"),
    (r"\]\s*‸<=", "values are bounded by `<`"),
    (r"\bpad\s*‸=", "write `pad 0`"),
    (r":\s*‸[-\d\"]", "a default is written `name = value`"),
    (r":\s*‸=", "a value is named by `name = …`"),
    (r"^\w+\s*‸,", "each value is named on a line of its own"),
    (r"‸\{\d", "a hole in a path has a name: `{i}`"),
    (r"expect\b[^=]*‸=[^=]|=\s*‸=[^=]|‸!=", "equality is written `==`"),
    (r"‸(==|>=|<=?|>)", "a comparison stands behind `expect`"),
    (r"‸\[", "there are no lists and no subscripts; arguments stand in `(…)`"),
)
_CONTEXT = 80  # as many characters on both sides are looked at
_PAIRS = {"(": ")", "[": "]", "{": "}"}
_WORD = re.compile(r'[\w.]+|"[^"\n]*"?|->|[=<>!/]=|//|\*\*|.', re.DOTALL)


def reserved(name: str, span: Span) -> Diagnostic | None:
    """What to say of a word that cannot be a name, or None when it can."""
    if name in _FOREIGN:
        return Diagnostic("syntax", f"unexpected `{name}`", span, help=_FOREIGN[name])
    if name not in KEYWORDS:
        return None
    help = None
    line, column = span.source.line(span.line), span.column - 1
    if name in _FORMS and not line[:column].strip() and re.match(r"\w+ +\w", line[column:]):
        help = "something is missing at the end of the line above"
    return Diagnostic("syntax", f"`{name}` is a keyword and cannot be a name", span, help=help)


def run_together(file: ast.File) -> Iterator[Diagnostic]:
    """A diagnostic for each body where a value stands on the line of another statement.

    The grammar knows no lines, so it reads `h = x norm` as two statements.
    """
    for body in ast.walk(file):
        pairs = pairwise(body.statements) if isinstance(body, ast.Body) else ()
        for first, second in pairs:
            between = Span(file.span.source, first.span.end, second.span.start)
            values = isinstance(first, ast.Result) or isinstance(second, ast.Result)
            if values and "\n" not in between.text:
                help = _habit(second.span) or "an operator, `->` or a line break is missing"
                yield Diagnostic("syntax", "two statements on one line", second.span, help=help)
                break


def explain(
    error: lark.exceptions.UnexpectedInput, grammar: lark.Lark, piece: Span
) -> Diagnostic:
    """The diagnostic for the place where the reading of a piece of a source stopped."""
    source, start, text = piece.source, piece.start, piece.text
    at_end = getattr(getattr(error, "token", None), "type", None) == "$END"
    stop = len(text) if at_end else error.pos_in_stream or 0
    # Read again up to the place, the parser tells all that it would have taken there.
    reading = grammar.parse_interactive(text[:stop])
    tokens = list(reading.iter_parse())
    for token in tokens:
        if token.type in ("NAME", "CALLEE"):
            span = Span(source, start + (token.start_pos or 0), start + (token.end_pos or 0))
            if mistake := reserved(str(token), span):
                return mistake
    accepted: set[str] = reading.accepts()  # type: ignore[no-untyped-call]
    expected = _sentence(accepted, grammar)
    bracket = _open_bracket(Span(source, start, start + stop))
    if not at_end:
        form = not accepted & {"PLUS", "LPAR"}  # elsewhere it is within an expression
        return _unexpected(source, start + stop, expected, bracket, form)
    if bracket:
        return Diagnostic("syntax", f"`{bracket.text}` is never closed", bracket)
    end = start + (tokens[-1].end_pos or 0 if tokens else 0)
    span = Span(source, end, end)
    what = "this ends too early"
    return Diagnostic("syntax", what, span, expected=expected, help=_form(span))


def _unexpected(
    source: Source, start: int, expected: str | None, bracket: Span | None, form: bool
) -> Diagnostic:
    """The diagnostic for what stands at a place, `bracket` being the innermost open there."""
    found = _WORD.match(source.text, start)
    assert found is not None
    text, span = found[0], Span(source, found.start(), found.end())
    closes = text in _PAIRS.values()
    if closes and not bracket:
        return Diagnostic("syntax", f"`{text}` closes nothing", span)
    notes: tuple[Note, ...] = ()
    if bracket and _PAIRS[bracket.text] != text and (closes or text in _FORMS):
        notes = (Note(f"`{bracket.text}` is open here", bracket),)
    if text.startswith('"') and (len(text) == 1 or not text.endswith('"')):
        what = "the string does not end on its line"
    elif len(text) > 1 or text.isprintable():
        what = f"unexpected `{text}`"
    else:
        name = unicodedata.name(text, "control character").lower()
        what = f"unexpected character U+{ord(text):04X}, {name}"
    help = _habit(span) or (_form(span) if form else None)
    return Diagnostic("syntax", what, span, expected=expected, notes=notes, help=help)


def _open_bracket(piece: Span) -> Span | None:
    """The innermost bracket that is open at the end of a text."""
    brackets: list[int] = []
    for found in re.finditer(r'"[^"\n]*"|#[^\n]*|[()\[\]{}]', piece.text):
        if found[0] in _PAIRS:
            brackets.append(piece.start + found.start())
        elif found[0] in _PAIRS.values() and brackets:
            brackets.pop()
    return Span(piece.source, brackets[-1], brackets[-1] + 1) if brackets else None


def _marked(span: Span) -> str:
    """The end of the last line of code up to a place, the place as ‸, and what follows it."""
    before = span.source.text[: span.start]
    code = before.rstrip()
    line = code[code.rfind("\n") + 1 :].lstrip()
    rest = span.source.text[span.start :].partition("\n")[0]
    return f"{line[-_CONTEXT:]}{' ' if code != before else ''}‸{rest[:_CONTEXT]}"


def _habit(span: Span) -> str | None:
    marked = _marked(span)
    return next((advice for look, advice in _HABITS if re.search(look, marked)), None)


def _form(span: Span) -> str | None:
    """How the item or statement is written that begins the line of a place."""
    word = re.match(r"\w*", _marked(span))
    form = _FORMS.get(word[0]) if word else None
    return f"it is written `{form}`" if form else None


def _sentence(accepted: set[str], grammar: lark.Lark) -> str | None:
    """What the grammar would have taken here, grouped as a person would say it."""
    words: list[str] = []
    accepted = accepted - {"PLACE"}  # which seldom is what is meant
    for group, name, implied in _GROUPS:
        if group <= accepted:
            words.append(name)
            accepted = accepted - group - implied
    spelled = (_WORDS.get(t) or f"`{grammar.get_terminal(t).pattern.value}`" for t in accepted)
    words += sorted(set(spelled))
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else None
