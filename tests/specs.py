"""The models of specs/ that predict the next token, found by their loss."""

from __future__ import annotations

from collections.abc import Iterator

from archdsl.semantics.library import standard_library
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


def _found() -> Iterator[tuple[ast.File, ast.Model]]:
    for path in sorted(standard_library().glob("*.arch")):
        file = parse(path.read_text(encoding="utf-8"), path.name)
        for item in file.items:
            if isinstance(item, ast.Model) and any(map(_next_token, item.body.statements)):
                yield file, item


def _next_token(statement: ast.Statement) -> bool:
    return isinstance(statement, ast.Loss) and any(
        term.call.callee.id == "next_token" for term in statement.terms
    )
