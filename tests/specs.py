"""The models of specs/ that predict the next token, found by their loss; parts of a text."""

from __future__ import annotations

import functools

from archdsl.semantics.library import load, standard_library
from archdsl.semantics.report import Report
from archdsl.semantics.unused_names import without_unused
from archdsl.syntax import ast
from archdsl.syntax.parser import parse


def causal_models() -> dict[str, frozenset[str]]:
    """`file.arch:Name` of each model whose loss is `next_token`, with its parameters' names."""
    return {
        f"{file.span.source.path}:{model.name.id}": frozenset(
            p.name.id for p in model.params.params
        )
        for file, model in _found()
    }


def causal_variants() -> list[str]:
    """`file.arch:name` of each published size of theirs."""
    return [
        f"{file.span.source.path}:{item.name.id}"
        for file, model in _found()
        for item in file.items
        if isinstance(item, ast.Variant) and item.call.callee.id == model.name.id
    ]


@functools.cache
def _found() -> list[tuple[ast.File, ast.Model]]:
    found = []
    for path in sorted(standard_library().glob("*.arch")):
        text = path.read_text(encoding="utf-8")
        if "next_token(" not in text:
            continue  # parsing takes the most time
        file = parse(text, path.name)
        models = (item for item in file.items if isinstance(item, ast.Model))
        found += [(file, m) for m in models if any(map(_next_token, m.body.statements))]
    return found


def _next_token(statement: ast.Statement) -> bool:
    return isinstance(statement, ast.Loss) and any(
        term.call.callee.id == "next_token" for term in statement.terms
    )


def used_only(text: str) -> str:
    """A spec without the blocks and `use`s that it does not need: many tests share theirs."""
    file = parse(text)
    kept = set(map(id, without_unused(file.items, load(file, None, Report()))))
    for item in reversed(file.items):
        if id(item) not in kept:
            text = text[: item.span.start] + text[item.span.end :]
    return text
