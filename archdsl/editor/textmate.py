"""The TextMate grammar of the language: what VS Code and the playground colour.

Operators come from the table of operators.
"""

from __future__ import annotations

from typing import Any

from archdsl.graph.ops import CALLED
from archdsl.semantics.binding import MASKS

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

    def declared(word: str, scope: str) -> dict[str, Any]:
        """A definition up to the end of its parameters."""
        return region(
            rf"\b({word})\s+({NAME})\s*\(",
            r"\)",
            "#parameter",
            "#argument",
            "#sizes",
            *expression,
            beginCaptures={
                "1": {"name": "keyword.declaration.arch"},
                "2": {"name": f"{scope}.arch"},
            },
        )

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
                    declared("block", "entity.name.function"),
                    declared("model", "entity.name.type"),
                    captures(
                        rf"\b(variant)\s+({NAME})", "keyword.declaration", "entity.name.type"
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
            # The names in a type are no parameters.
            "sizes": region(r"\[", r"\]", *expression),
            "parameter": captures(
                rf"(?:^|(?<=[(,]))\s*({NAME})(?=\s*(?:[,)]|$))", "variable.parameter"
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
