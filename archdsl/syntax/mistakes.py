"""Syntax errors: what was found, what was expected, and the likely fix."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise

import lark

from archdsl.diagnostics import Diagnostic, Note, Source, Span
from archdsl.syntax import ast
from archdsl.syntax.traversal import walk

# The form of each item and statement, by its first word.
FORMS = {
    "use": 'use "file.arch"',
    "block": "block name(x: float[T, D], heads, …): float[T, D] { … }",
    "model": "model Name(D = 768, …) { … }",
    "variant": "variant name = Model(D = 1600, …)",
    "weights": 'weights "title" for Model { … }',
    "input": "input name: int[T] < vocab",
    "weight": "weight name: float[D] = zeros",
    "state": "state name: float[D] along T = …",
    "output": "output name: float[T, D] = …",
    "loss": "loss next_token(logits, tokens)",
    "init": "init xavier",
    "expect": "expect params == 124_439_808",
}
KEYWORDS = {*FORMS, "for", "ignore", "pad", "float", "int", "bool", "true", "false"}
KEYWORDS |= {"if", "else", "not", "and", "or", "default"}
KEYWORDS -= {"state", "weight"}  # usual names

# Words of other languages, which would be names here.
_FOREIGN = {
    "True": "write `true`",
    "False": "write `false`",
    "None": "write `none`, or leave the argument out",
    "return": "the last expression of a block is its value: remove `return`",
    "let": "to name a value, write `name = …`",
    "for": "to repeat a block, write `block(…) * n`",
}

# The terminals in messages; the others are shown as they are written.
_WORDS = {
    "NAME": "a name",
    "CALLEE": "a name followed directly by `(`",
    "INT": "a number",
    "FLOAT": "a number",
    "STRING": 'a "string"',
    "PATH": "a weight's path",
    "_INCLUDE": "`include`",
    "$END": "the end of the file",
    "_STATE": "`state`",
    "_ALONG": "`along`",
}
_EXPRESSION = {"NAME", "CALLEE", "INT", "FLOAT", "STRING", "TRUE", "FALSE", "LPAR", "LBRACE"}
_COMPARISONS = {"EQUAL", "UNEQUAL", "ATMOST", "ATLEAST", "LESS", "MORE"}
_OPERATORS = {"STAR", "SLASH", "FLOOR", "PERCENT", "AS", "TIED", "AND", "OR", "ANY", "ALL"}

# If all terminals of the first set are expected, the phrase replaces both sets.
_GROUPS: tuple[tuple[set[str], str, set[str]], ...] = (
    (
        {"INPUT", "WEIGHT", "OUTPUT", "LOSS", "INIT", "EXPECT"},
        "a statement",
        _EXPRESSION | {"_STATE"},
    ),
    ({"USE", "BLOCK", "MODEL"}, "`use`, `block`, `model`, …", {"VARIANT", "WEIGHTS"}),
    ({"NAME", "INT", "LPAR", "LBRACE"}, "an expression", _EXPRESSION | {"MINUS", "NOT"}),
    ({"PLUS", "MINUS", "UNEQUAL"}, "an operator", _OPERATORS | _COMPARISONS),
    ({"PLUS", "MINUS"}, "an operator", _OPERATORS),
)

# Common mistakes: a pattern of the line, ‸ being the place of the error, and the likely fix.
_COMMON_MISTAKES = (
    # arrows and steps
    (r"=‸>|‸=>|‸\|>|\|‸>|‸[→⟶⇒]|-\s*‸->|-\s*‸>", "write the arrow as `->`"),
    (r"->\s*‸->", "write the arrow once"),
    (
        r"^(?!(model|block)\b).*\w\s+\(*‸\(|\w\s+\(+‸",
        "remove the space between the name and `(`",
    ),
    (r"‸\.\w+\(", "apply a block with an arrow: `x -> norm`"),
    (r"->\s*\{[^}]*‸,", "separate steps in braces with `->`"),
    (r"->.*[^=<>!]‸=[^=]", "put the name before the whole chain: `name = a -> b`"),
    (r"^init \w+ ‸", "write `init normal(0.02)`"),
    (r"^loss \w+ ‸", "write `loss next_token(logits, tokens)`"),
    # signs of other languages
    (r"‸\*\*|\*\s*‸\*|‸\^", "there is no power operator: write a product, or `sqrt(x)`"),
    (r"‸@", "for a matrix product, write a step: `x -> linear(n)`"),
    (r"‸\?", "for a choice, write `a if condition else b`"),
    (
        r"(^|[=(]\s*)‸if\b|‸if\b.*\{",
        "write the condition behind a value: `a if condition else b`",
    ),
    (r"‸\\", "lines need no `\\` to continue: remove it"),
    (r"\([^)]*‸;", "write a comma"),
    (r"‸;", "statements need no separator: remove the `;`"),
    (r"‸//|//.*‸|/\s*‸\*|--.*‸", "a comment begins with `#`"),
    (r"‸['“”\u2018\u2019]", 'write a string in double quotes: `"…"`'),
    (r"‸(import|from|include)\b", 'to use another file, write `use "file.arch"`'),
    (
        r"‸(def|fn|func|function|class|module)\b",
        "to define a block, write `block name(…) { … }`",
    ),
    # numbers and names
    (r"‸\d+_", "an underscore in a number must be between two digits"),
    (r"‸\.\d|\d‸\.", "write digits on both sides of the decimal point"),
    (r"\d‸,\d\d\d\b", "group digits with `_`: 1_000"),
    (r"‸0[xXbBoO]", "write the number in decimal"),
    (r"‸\d+[A-Za-z]", "write the product as `2 * D`"),
    (r"‸[\xd7·]", "write a product with `*`"),
    (r"‸[\u2010-\u2015\u2212]", "write minus as `-`"),
    (r"‸-", "put a value that begins with a sign in parentheses: `(-x)`"),
    (r"‸≤", "write `<=`"),
    (r"‸[^\W\d_a-zA-Z]", "names consist of a to z, A to Z, digits and `_`"),
    # declarations
    (
        r"‸(float|int)\d+|‸(half|double|bfloat16)\b",
        "write `float` or `int`: a spec does not set the precision",
    ),
    (r"\b(float|int|bool)\s*\(?‸", "write sizes in square brackets: `float[T, D]`"),
    (r"\b(float|int|bool)\[‸\]", "a type without axes has no brackets"),
    (r"\[[^]]*‸<[^=]", "write the bound of an axis with `<=`"),
    (r"\]\s*‸<=", "write the bound of values with `<`"),
    (r"\bpad\s*‸=", "write `pad 0`"),
    (r":\s*‸[-\d\"]", "write a default as `name = value`"),
    (r":\s*‸=", "to name a value, write `name = …`"),
    (r"^\w+,\s*‸=", "write a name behind the comma, or remove it"),
    (r"‸\{\d", "a placeholder in a path needs a name: `{i}`"),
    (r"expect\b[^=]*‸=[^=]|=\s*‸=[^=]|‸!=", "write equality as `==`"),
    (r"^expect\b.*‸(==|>=|<=?|>)", "a fact compares two numbers: write two facts"),
    (r"(==|!=|[<>]=?).*‸(==|!=|[<>])", "join two comparisons with `and`: `a < b and b < c`"),
    (r"‸\[", "there are no lists or subscripts; write arguments in `(…)`"),
)
_CONTEXT = 80  # characters on each side that the patterns see
_PAIRS = {"(": ")", "[": "]", "{": "}"}
_WORD = re.compile(r'[\w.]+|"[^"\n]*"?|->|[=<>!/]=|//|\*\*|.', re.DOTALL)


def reserved_word(name: str, span: Span) -> Diagnostic | None:
    """The diagnostic for a word that cannot be a name, or None if it can."""
    if name in _FOREIGN:
        return Diagnostic("syntax", f"unexpected `{name}`", span, help=_FOREIGN[name])
    if name not in KEYWORDS:
        return None
    help = _likely_fix(span)
    line, column = span.line_text, span.column - 1
    if name in FORMS and not line[:column].strip() and re.match(r"\w+ +\w", line[column:]):
        help = "the line above is incomplete"
    return Diagnostic("syntax", f"`{name}` is a keyword and cannot be a name", span, help=help)


def statements_on_one_line(file: ast.File) -> Iterator[Diagnostic]:
    """A diagnostic for each body with a value on the line of another statement.

    The grammar ignores line breaks, so it reads `h = x norm` as two statements.
    """
    for body in walk(file):
        pairs = pairwise(body.statements) if isinstance(body, ast.Body) else ()
        for first, second in pairs:
            between = Span(file.span.source, first.span.end, second.span.start)
            values = isinstance(first, ast.Result) or isinstance(second, ast.Result)
            if values and "\n" not in between.text:
                help = _likely_fix(second.span) or "add an operator, `->` or a line break"
                yield Diagnostic("syntax", "two statements on one line", second.span, help=help)
                break


def explain(
    error: lark.exceptions.UnexpectedInput, grammar: lark.Lark, piece: Span
) -> Diagnostic:
    """The diagnostic for the place where parsing stopped."""
    source, start, text = piece.source, piece.start, piece.text
    at_end = getattr(getattr(error, "token", None), "type", None) == "$END"
    stop = len(text) if at_end else error.pos_in_stream or 0
    # Parsed again up to the place, the parser lists what it accepts there.
    reading = grammar.parse_interactive(text[:stop])
    tokens = list(reading.iter_parse())
    for token in tokens:
        if token.type in ("NAME", "CALLEE"):
            span = Span(source, start + (token.start_pos or 0), start + (token.end_pos or 0))
            if mistake := reserved_word(str(token), span):
                return mistake
    accepted: set[str] = reading.accepts()  # type: ignore[no-untyped-call]
    expected = _sentence(accepted, grammar)
    bracket = _open_bracket(Span(source, start, start + stop))
    if not at_end:
        form = not accepted & {"PLUS", "LPAR"}  # not within an expression
        return _unexpected(source, start + stop, expected, bracket, form)
    if bracket:
        return Diagnostic("syntax", f"`{bracket.text}` is never closed", bracket)
    end = start + (tokens[-1].end_pos or 0 if tokens else 0)
    span = Span(source, end, end)
    what = "the text ends too early"
    return Diagnostic("syntax", what, span, expected=expected, help=_form(span))


def _unexpected(
    source: Source, start: int, expected: str | None, bracket: Span | None, form: bool
) -> Diagnostic:
    """The diagnostic for the text at a place; `bracket` is the innermost open one."""
    found = _WORD.match(source.text, start)
    assert found is not None
    text, span = found[0], Span(source, found.start(), found.end())
    closes = text in _PAIRS.values()
    if closes and not bracket:
        return Diagnostic("syntax", f"`{text}` has no opening bracket", span)
    notes: tuple[Note, ...] = ()
    if bracket and _PAIRS[bracket.text] != text and (closes or text in FORMS):
        notes = (Note(f"`{bracket.text}` is opened here", bracket),)
    if text.startswith('"') and (len(text) == 1 or not text.endswith('"')):
        what = "the string is not closed on its line"
    elif len(text) > 1 or text.isprintable():
        what = f"unexpected `{text}`"
    else:
        name = unicodedata.name(text, "control character").lower()
        what = f"unexpected character U+{ord(text):04X}, {name}"
    help = _likely_fix(span) or (_form(span) if form else None)
    return Diagnostic("syntax", what, span, expected=expected, notes=notes, help=help)


def _open_bracket(piece: Span) -> Span | None:
    """The innermost open bracket at the end of a text."""
    brackets: list[int] = []
    for found in re.finditer(r'"[^"\n]*"|#[^\n]*|[()\[\]{}]', piece.text):
        if found[0] in _PAIRS:
            brackets.append(piece.start + found.start())
        elif found[0] in _PAIRS.values() and brackets:
            brackets.pop()
    return Span(piece.source, brackets[-1], brackets[-1] + 1) if brackets else None


def _marked(span: Span) -> str:
    """The line of code around a place, which is marked by ‸."""
    text, end = span.source.text, span.start
    while end and text[end - 1].isspace():
        end -= 1
    line = text[text.rfind("\n", 0, end) + 1 : end].lstrip()
    rest = text[span.start : span.start + _CONTEXT].partition("\n")[0]
    return f"{line[-_CONTEXT:]}{' ' if end < span.start else ''}‸{rest}"


def _likely_fix(span: Span) -> str | None:
    marked = _marked(span)
    return next((fix for look, fix in _COMMON_MISTAKES if re.search(look, marked)), None)


def _form(span: Span) -> str | None:
    """The form of the item or statement that begins the line of a place."""
    word = re.match(r"\w*", _marked(span))
    form = FORMS.get(word[0]) if word else None
    return f"write `{form}`" if form else None


def _sentence(accepted: set[str], grammar: lark.Lark) -> str | None:
    """What the grammar accepts here, as a phrase."""
    words: list[str] = []
    accepted = accepted - {"PLACE"}  # rarely the likely fix
    for group, name, implied in _GROUPS:
        if group <= accepted:
            words.append(name)
            accepted = accepted - group - implied
    spelled = (_WORDS.get(t) or f"`{grammar.get_terminal(t).pattern.value}`" for t in accepted)
    words += sorted(set(spelled))
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else None
