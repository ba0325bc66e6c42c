"""Writes the files of editors that have words of the language: `python -m editors.generate`.

Operators come from the table of operators, keywords from the grammar. A test compares the files
with what this module writes.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from archdsl.editor.textmate import ELSEWHERE, ITEMS, OF_WEIGHTS, STATEMENTS, textmate
from archdsl.graph.ops import CALLED
from archdsl.semantics.binding import MASKS
from archdsl.syntax.mistakes import FORMS

HERE = Path(__file__).parent


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
