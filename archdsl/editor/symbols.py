"""The outline of a document: its items, and what they define."""

from __future__ import annotations

from collections.abc import Iterator

from archdsl.editor.document import Version
from archdsl.editor.places import Range
from archdsl.frozen import Frozen
from archdsl.semantics.blocks import names_of
from archdsl.syntax import ast
from archdsl.syntax.printer import expression, type_text


class Symbol(Frozen):
    """A definition. `kind` is its keyword, or `edge` or `parameter`."""

    name: str
    kind: str
    detail: str
    range: Range
    name_range: Range
    children: tuple[Symbol, ...] = ()


def symbols(version: Version) -> list[Symbol]:
    """The items of a file in their order, with their parameters and statements."""
    return [found for item in version.file.items if (found := _item(version, item))]


def _item(version: Version, item: ast.Item) -> Symbol | None:
    match item:
        case ast.Block() | ast.Model():
            kind = type(item).__name__.lower()
            detail = type_text(item.type) if isinstance(item, ast.Block) and item.type else ""
            inside = (*_params(version, item.params), *_statements(version, item.body))
            return _symbol(version, item.name, item, kind, detail, inside)
        case ast.Variant():
            return _symbol(version, item.name, item, "variant", item.call.callee.id)
        case ast.Weights():
            return _symbol(version, item.title, item, "weights", f"for {item.model.id}")
        case ast.SharedLines():
            inside = tuple(_params(version, item.params)) if item.params else ()
            return _symbol(version, item.title, item, "weights", "", inside)
        case ast.Use():
            return _symbol(version, item.path, item, "use", "")


def _params(version: Version, params: ast.Params) -> Iterator[Symbol]:
    for param in params.params:
        detail = type_text(param.type) if param.type else ""
        default = f"= {expression(param.default)}" if param.default else ""
        detail = " ".join(filter(None, (detail, default)))
        yield _symbol(version, param.name, param, "parameter", detail)


def _statements(version: Version, body: ast.Body) -> Iterator[Symbol]:
    for each in body.statements:
        match each:
            case ast.Input() | ast.Weight() | ast.State() | ast.Output():
                kind = type(each).__name__.lower()
                yield _symbol(version, each.name, each, kind, type_text(each.type))
            case ast.Edge() | ast.Edges():
                for name in names_of(each):
                    yield _symbol(version, name, each, "edge", "")


def _symbol(
    version: Version,
    name: ast.Name | ast.String,
    node: ast.Node,
    kind: str,
    detail: str,
    children: tuple[Symbol, ...] = (),
) -> Symbol:
    text = name.id if isinstance(name, ast.Name) else name.value or "…"
    return Symbol(
        text, kind, detail, version.range(node.span), version.range(name.span), children
    )
