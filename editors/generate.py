"""Writes the files of editors that have words of the language: `python -m editors.generate`.

Operators come from the table of operators, keywords from the grammar. A test compares the files
with what this module writes.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from archdsl.graph.ops import CALLED
from archdsl.semantics.binding import MASKS
from archdsl.syntax.mistakes import FORMS

HERE = Path(__file__).parent

NAME = r"[A-Za-z_][A-Za-z_0-9]*"
# Words that are names elsewhere, each with what must follow it as a keyword.
ELSEWHERE = {
    "weight": rf"(?=\s+{NAME}\s*:)",
    "state": rf"(?=\s+{NAME}\s*:)",
    "along": r"(?=\s+[A-Za-z_])",
    "from": r"(?=\s+\S)",
    "as": rf"(?=\s+{NAME})",
}
# `tied` behind a number of layers. Elsewhere it is a usual name of a parameter.
_BEFORE_NAME = "".join(rf"(?<!\b{word} )" for word in ("if", "else", "and", "or", "not"))
TIED = rf"(?<=[A-Za-z_0-9)] ){_BEFORE_NAME}\btied\b(?!\(|\s*(=(?!=)|:))"
ITEMS = ("use", "block", "model", "variant", "weights")
STATEMENTS = ("input", "output", "loss", "init", "expect")
OTHERS = ("for", "if", "else", "and", "or", "not", "pad", "default")
OF_WEIGHTS = ("config", "optional", "rename", "include", "ignore", "null")
TYPES = ("float", "int", "bool", "one_of")
CONSTANTS = ("true", "false", "none", "causal")


def words(*names: str) -> str:
    return "|".join(sorted(names))


def operators() -> str:
    """The names of all operators, of losses and of masks."""
    return words(*CALLED, *MASKS, "tied")


def textmate() -> dict[str, Any]:
    """The TextMate grammar, for VS Code and others."""

    def match(scope: str, pattern: str) -> dict[str, str]:
        return {"name": f"{scope}.arch", "match": pattern}

    def captures(pattern: str, *scopes: str) -> dict[str, Any]:
        found = {str(i): {"name": f"{s}.arch"} for i, s in enumerate(scopes, 1) if s}
        return {"match": pattern, "captures": found}

    def region(begin: str, end: str, *patterns: str, **more: Any) -> dict[str, Any]:
        return {
            "begin": begin,
            "end": end,
            "patterns": [{"include": p} for p in patterns],
            **more,
        }

    each = match("variable.other.definition", NAME)
    typed = rf"\b({NAME})(?=\s*:\s*(?:{words('block', *TYPES)})\b)"
    expression = ["#comment", "#string", "#keyword", "#number", "#label", "#call", "#step"]
    expression += ["#arguments", "#constant", "#sign"]
    return {
        "$schema": "https://json.schemastore.org/tmlanguage.json",
        "name": "archdsl",
        "scopeName": "source.arch",
        "patterns": [
            {"include": each} for each in ("#weights", "#item", "#definition", *expression)
        ],
        "repository": {
            "comment": match("comment.line.number-sign", r"#.*$"),
            "string": match("string.quoted.double", r'"[^"\n]*"'),
            "number": match(
                "constant.numeric",
                r"\b[0-9]+(_[0-9]+)*(\.[0-9]+)?([eE][+-]?[0-9]+)?(?![A-Za-z_0-9.])",
            ),
            "constant": match(
                "constant.language", rf"\b({words(*CONSTANTS)})\b(?![.{{*]|\s*=[^=])"
            ),
            "sign": {
                "patterns": [
                    match("keyword.operator.arrow", "->"),
                    match("keyword.operator", r"==|!=|<=|>=|//|[-+*/%<>=|&]"),
                    match("punctuation.separator", "[,:]"),
                ]
            },
            "item": {
                "patterns": [
                    captures(
                        rf"\b(block)\s+({NAME})(?=\()",
                        "keyword.declaration",
                        "entity.name.function",
                    ),
                    captures(
                        rf"\b(model|variant)\s+({NAME})",
                        "keyword.declaration",
                        "entity.name.type",
                    ),
                    captures(r"\b(use)\b", "keyword.declaration"),
                ]
            },
            "keyword": {
                "patterns": [
                    match("keyword.control", rf"\b({words(*OTHERS)})\b"),
                    match("keyword.other", rf"\b({words(*STATEMENTS)})\b"),
                    *(
                        match("keyword.other", rf"\b{word}\b{follows}")
                        for word, follows in ELSEWHERE.items()
                    ),
                    match("keyword.other", TIED),
                    match("storage.type", rf"\b({words(*TYPES)})\b|(?<=: )block\b"),
                ]
            },
            "label": captures(
                rf"\b({NAME}(?:\.{NAME})*)(:)(?!\s*(?:{words('block', *TYPES)})\b)",
                "entity.name.tag",
                "punctuation.separator",
            ),
            "call": {
                "patterns": [
                    match("support.function.operator", rf"\b({operators()})(?=\()"),
                    match("entity.name.function.call", rf"\b{NAME}(?=\()"),
                ]
            },
            "step": {
                "patterns": [
                    captures(
                        rf"(?:(->)|\{{)\s*({operators()})\b(?!\s*[:.])",
                        "keyword.operator.arrow",
                        "support.function.operator",
                    ),
                    captures(
                        rf"(->)\s*({NAME})\b(?!\s*[:.])",
                        "keyword.operator.arrow",
                        "entity.name.function.call",
                    ),
                ]
            },
            "arguments": region(
                r"\(",
                r"\)",
                "#argument",
                *expression,
            ),
            "argument": {
                "patterns": [
                    captures(
                        rf"\b({NAME})\s*(=)(?!=)", "variable.parameter", "keyword.operator"
                    ),
                    captures(typed, "variable.parameter"),
                ]
            },
            "definition": {
                "patterns": [
                    captures(typed, "variable.other.definition"),
                    {
                        "match": rf"^\s*({NAME}(?:\s*,\s*{NAME})*)\s*(?==(?!=))",
                        "captures": {"1": {"patterns": [each, {"include": "#sign"}]}},
                    },
                ]
            },
            "weights": region(
                r'\b(weights)\s+("[^"\n]*")',
                r"(?<=\})",
                "#of_weights_head",
                "#of_weights",
                beginCaptures={
                    "1": {"name": "keyword.declaration.arch"},
                    "2": {"name": "string.quoted.double.arch"},
                },
            ),
            "of_weights_head": {
                "patterns": [
                    captures(rf"\b(for)\s+({NAME})", "keyword.control", "entity.name.type"),
                    {"include": "#arguments"},
                ]
            },
            # The braces of a placeholder in a path are not those of lines.
            "of_weights": region(
                r"\{",
                r"\}",
                "#comment",
                "#string",
                "#number",
                "#constant",
                "#of_weights_word",
                "#arguments",
                "#of_weights",
                "#sign",
            ),
            "of_weights_word": {
                "patterns": [
                    match("keyword.control", rf"\b({words('if', 'and', 'or', 'not')})\b(?!\.)"),
                    match(
                        "keyword.other",
                        rf"\b({words('default', *OF_WEIGHTS)})\b(?![.{{*]|\s*=)",
                    ),
                    captures(
                        rf"(->)\s*({NAME})",
                        "keyword.operator.arrow",
                        "support.function.conversion",
                    ),
                    match("entity.name.function.call", rf"\b{NAME}(?=\()"),
                    match(
                        "variable.other.path",
                        r"(?:[A-Za-z_]|[0-9]+\.|\*(?=\.)|\{[^{}\n]*\}(?=[.\w]))"
                        r"(?:[A-Za-z_0-9.*/]|-(?!>)|\{[^{}\n]*\})*",
                    ),
                ]
            },
        },
    }


def highlights() -> str:
    """The highlight queries of tree-sitter; of a node's captures the last one counts."""

    def quoted(*names: str) -> str:
        return " ".join(f'"{name}"' for name in names)

    keywords = (
        *STATEMENTS,
        *ELSEWHERE,
        *(each for each in OF_WEIGHTS),
        "for",
        "pad",
        "default",
    )
    called = quoted(*sorted({*CALLED, *MASKS, "tied"}))
    return f"""\
; Written by `python -m editors.generate`: the operators are those of the compiler.

(identifier) @variable
[(int) (float)] @number
(bool) @boolean
(string) @string
(comment) @comment
(place) @label
(path) @string.special
(path (identifier) @string.special)

[{quoted(*ITEMS)}] @keyword
[{quoted(*sorted(keywords), "tied")}] @keyword
[{quoted("if", "else")}] @keyword.conditional
[{quoted("and", "or", "not")}] @keyword.operator
[{quoted("float", "int", "bool", "one_of")}] @type.builtin
(block_type) @type.builtin
["->" "=" "==" "!=" "<=" ">=" "<" ">" "|" "&" "+" "-" "*" "//" "/" "%"] @operator
["," ":"] @punctuation.delimiter
["(" ")" "[" "]" "{{" "}}"] @punctuation.bracket

(block name: (identifier) @function)
(model name: (identifier) @type)
(variant name: (identifier) @type)
(variant (call callee: (identifier) @type))
(weights model: (identifier) @type)
(param name: (identifier) @variable.parameter)
(arg name: (identifier) @variable.parameter)
(labeled label: (identifier) @label)
(setting field: (identifier) @property)
(setting field: (place) @property)
(conversion name: (identifier) @function.builtin)

(call callee: (identifier) @function.call)
(chain step: (identifier) @function.call)
(lambda step: (identifier) @function.call)
([(call callee: (identifier) @function.builtin)
  (chain step: (identifier) @function.builtin)
  (lambda step: (identifier) @function.builtin)]
 (#any-of? @function.builtin {called}))
((identifier) @constant.builtin (#any-of? @constant.builtin "none" "causal"))
"""


def snippets() -> dict[str, Any]:
    """A snippet for each item and statement, from the forms of the messages."""
    found = {}
    for word, form in FORMS.items():
        body = form
        for number, text in enumerate(re.findall(r'"[^"]*"|…', form), 1):
            inner = text.strip('"')
            stop = f"${{{number}:{inner}}}" if inner != "…" else f"${{{number}}}"
            body = body.replace(text, f'"{stop}"' if text[0] == '"' else stop, 1)
        lines = re.split(r"(?<=\{) (?=\$)|(?<=\}) (?=\}$)", body)
        found[word] = {
            "prefix": word,
            "body": [*lines[:1], *(f"\t{each}" for each in lines[1:-1]), *lines[1:][-1:]],
            "description": form,
        }
    return found


def files() -> dict[Path, str]:
    """The text of each generated file."""
    return {
        HERE / "vscode/syntaxes/arch.tmLanguage.json": _json(textmate()),
        HERE / "vscode/snippets/arch.json": _json(snippets()),
        HERE / "tree-sitter-arch/queries/highlights.scm": highlights(),
    }


def _json(data: Any) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
