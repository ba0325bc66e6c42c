"""Turns a spec of the library into the spec of one checkpoint, with its sizes as defaults."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from archdsl.published.recognise import Recognised
from archdsl.semantics.library import load, standard_library
from archdsl.semantics.model_parameters import Setting
from archdsl.semantics.report import Report
from archdsl.semantics.unused_names import without_unused
from archdsl.syntax import ast


def specialise_spec(known: Recognised, params: int, maps: Collection[str]) -> ast.File:
    """Sets the defaults of a spec to the parameters of a published config.

    Variants, other models and facts are dropped, and weight maps that lack weights of the
    model: all that are not among the titles `maps`; then blocks that nothing uses. The number
    of parameters, `params`, becomes a new fact. The config of the map lists the fields that
    were ignored.
    """
    scope = load(known.file, known.path, Report())
    kept = [
        item
        for item in known.file.items
        if item is known.model
        or isinstance(item, ast.Use | ast.Block | ast.SharedLines)
        or (isinstance(item, ast.Weights) and _fits(item, known.model, maps))
    ]
    items = [
        _model(item, known.settings, params)
        if item is known.model
        else _library(item, known.path.parent)
        if isinstance(item, ast.Use)
        else _weights(known.block, known.ignored)
        if known.ignored and isinstance(item, ast.Weights) and _is_same(item, known.block)
        else item
        for item in without_unused(kept, scope)
    ]
    return replace(known.file, items=tuple(items), closing=())


def _is_same(item: ast.Weights, block: ast.Weights) -> bool:
    return item.title.value == block.title.value and item.model.id == block.model.id


def _fits(item: ast.Weights, model: ast.Model, maps: Collection[str]) -> bool:
    return item.model.id == model.name.id and item.title.value in maps


def _model(node: ast.Model, settings: Mapping[str, Setting], params: int) -> ast.Model:
    parameters = tuple(
        replace(p, default=_literal(settings[p.name.id], p)) if p.name.id in settings else p
        for p in node.params.params
    )
    others = [s for s in node.body.statements if not isinstance(s, ast.Expect)]
    span = node.name.span
    count = ast.Int(span, f"{params:_}")
    fact = ast.Expect(span, ast.Name(span, "params"), "==", count)
    body = replace(node.body, statements=(*others, fact))
    return replace(node, params=replace(node.params, params=parameters), body=body)


def _weights(node: ast.Weights, ignored: Iterable[str]) -> ast.Weights:
    rules = (_config(r, ignored) if isinstance(r, ast.Config) else r for r in node.rules)
    return replace(node, rules=tuple(rules))


def _config(node: ast.Config, ignored: Iterable[str]) -> ast.Config:
    """Adds a line `field = any` for each ignored field.

    A field whose name cannot be written in a spec becomes a comment.
    """
    span, note = node.span, ast.Trivia(trailing="# ignored by the import")
    lines, others = list(node.rules), list(node.closing)
    for field in ignored:
        if all(part.isascii() and part.isidentifier() for part in field.split(".")):
            fields, value = (ast.Name(span, field),), ast.Name(span, "any")
            lines.append(ast.Setting(span, fields, value, None, None, note))
        else:
            others.append(f"# ignored by the import: {json.dumps(field)}")
    return replace(node, rules=tuple(lines), closing=tuple(others))


def _literal(value: Setting, param: ast.Param) -> ast.Expr:
    """A literal of the same kind as the parameter's default."""
    span = param.span
    match value:
        case bool():
            return ast.Bool(span, value)
        case str() if isinstance(param.default, ast.String):
            return ast.String(span, value)
        case str():
            return ast.Name(span, value)
        case int() | float() if value < 0:
            return ast.Negate(span, _literal(-value, param))
        case int() if not isinstance(param.default, ast.Float):
            return ast.Int(span, str(value))
        case _:
            return ast.Float(span, repr(float(value)))


def _library(use: ast.Use, beside: Path) -> ast.Use:
    """A `use` with a path that is valid from any folder."""
    found = beside / use.path.value
    if not found.is_file() or found.parent == standard_library():
        return use
    return replace(use, path=replace(use.path, value=found.resolve().as_posix()))
