"""What an editor shows about the name under the pointer: Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from math import prod

from archdsl.describe.operators import parameter, usage
from archdsl.diagnostics import Span
from archdsl.editor.cursor import around, definition, parents
from archdsl.editor.document import Document, Version
from archdsl.editor.places import Position, Range
from archdsl.frozen import Frozen
from archdsl.graph.cost import parameter_count
from archdsl.graph.ops import CALLED, OPERATORS
from archdsl.graph.signature import Op
from archdsl.graph.sites import copies, sites
from archdsl.semantics.library import all_used
from archdsl.semantics.numbers import FUNCTIONS
from archdsl.semantics.values import Scalar, Several, Symbol, Tensor, Value
from archdsl.syntax import ast
from archdsl.syntax.printer import format

_LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")


class Hover(Frozen):
    range: Range
    markdown: str


def hover(document: Document, position: Position) -> Hover | None:
    """The type, value, parameters and documentation of the name at a place."""
    version = document.version
    nodes = around(version, position)
    if not nodes or not isinstance(nodes[0], ast.Name):
        return None
    name = nodes[0]
    defined = definition(version, nodes)
    if defined is not None:
        parts = list(_definition(document, name, defined))
    else:
        parts = list(_word_of_language(document, nodes))
    text = "\n\n".join(parts)
    return Hover(version.range(name.span), text) if text else None


def _definition(document: Document, name: ast.Name, defined: Span) -> Iterator[str]:
    node, item = declaration(document.version, defined)
    match node:
        case ast.Block():
            yield _code(header(node))
            yield from comment(node)
            yield from _result(document, name)
        case ast.Model() | ast.Variant():
            yield _code(header(node))
            yield from comment(node)
            yield from _size(document, node.name.id)
        case ast.SharedLines():
            yield from comment(node)
        case _:
            value = document.value(defined)
            yield _code(_shown(node, defined.text, value))
            if item is not None:
                place = f"`{item.name.id}`"
                yield f"{_kind(node)} of {item_kind(item)} {place}"


def declaration(
    version: Version, defined: Span
) -> tuple[ast.Node | None, ast.Block | ast.Model | None]:
    """The node that defines a name, and the block or the model around it."""
    files = [version.file, *(each.file for each in all_used(version.scope))]
    for item in (item for file in files for item in file.items):
        if not item.span.covers(defined):
            continue
        inside = item if isinstance(item, ast.Block | ast.Model) else None
        if getattr(getattr(item, "name", None), "span", None) == defined:
            return item, inside
        found = (node for child, node in parents(item) if child.span == defined)
        return next(found, None), inside
    return None, None


def header(item: ast.Block | ast.Model | ast.Variant) -> str:
    """The first line of an item: its name, parameters and type."""
    plain: ast.Item
    if isinstance(item, ast.Variant):
        plain = replace(item, facts=None, trivia=ast.PLAIN)
    else:
        plain = replace(item, body=ast.Body(item.body.span, ()), trivia=ast.PLAIN)
    return format(ast.File(item.span, (plain,))).removesuffix(" {}\n").rstrip()


def comment(item: ast.Item) -> Iterator[str]:
    """The comment above an item."""
    lines = [line.removeprefix("#").strip() for line in item.trivia.leading]
    last = lines[len(lines) - lines[::-1].index("") :] if "" in lines else lines
    if text := " ".join(last).strip():
        yield text


def _word_of_language(document: Document, nodes: list[ast.Node]) -> Iterator[str]:
    """An operator, the parameter of one, a value of a parameter, or a function."""
    name, parent = nodes[0], nodes[1] if len(nodes) > 1 else None
    assert isinstance(name, ast.Name)
    op = CALLED.get(name.id)
    call = next((each for each in nodes[1:] if isinstance(each, ast.Call)), None)
    called = CALLED.get(call.callee.id) if call else None
    if isinstance(parent, ast.Arg) and parent.name is name and called:
        for param in called.params:
            if param.name == name.id:
                yield _code(parameter(param))
                yield f"parameter of operator `{called.name}`"
        return
    bare = isinstance(parent, ast.Arg) and called
    if bare and called:
        for param in called.params:
            if name.id in (*param.choices, param.name):
                yield _code(parameter(param))
                yield f"`{name.id}`: a value of `{param.name}` of operator `{called.name}`"
                return
    if op:
        yield from _operator(op)
        yield from _result(document, name)
        yield from _weights(document, call if call and call.callee is name else name)
    elif name.id in FUNCTIONS:
        yield _code(f"{name.id}({', '.join(FUNCTIONS[name.id].params)})")


def _operator(op: Op) -> Iterator[str]:
    yield _code(usage(op))
    yield documentation(op)


def documentation(op: Op) -> str:
    """The documentation of an operator, without links to other pages."""
    return _LINK.sub(r"\1", op.doc)


def _result(document: Document, name: ast.Name) -> Iterator[str]:
    value = document.value(name.span)
    if isinstance(value, Tensor | Several):
        yield f"→ `{value_type(value)}`"


def _weights(document: Document, call: ast.Node) -> Iterator[str]:
    """The weights that the call of an operator has, in the first model that has it."""
    for built in document.built.values():
        if built.analysis is None:
            continue
        for node, within, site in sites(built.analysis.graph):
            if node.span == call.span:
                weights = OPERATORS[node.op].weights(site)
                count = sum(prod(weight.shape) for weight in weights)
                names = ", ".join(f"`{each.name}` {list(each.shape)}" for each in weights)
                times = copies(within)
                layers = f", {times} times" if times > 1 else ""
                if count:
                    yield f"{count:,} parameters{layers}: {names}"
                return


def _size(document: Document, name: str) -> Iterator[str]:
    built = document.built.get(name)
    if built and built.analysis:
        yield f"{parameter_count(built.analysis.graph):,} parameters"


def value_type(value: Tensor | Several) -> str:
    types = [value.type] if isinstance(value, Tensor) else [each.type for each in value.tensors]
    text = ", ".join(str(replace(each, noncausal=frozenset())) for each in types)
    return text if isinstance(value, Tensor) else f"({text})"


def _shown(node: ast.Node | None, name: str, value: Value | None) -> str:
    """A definition and its value."""
    match value:
        case Tensor() | Several():
            return f"{name}: {value_type(value)}"
        case Scalar():
            return f"{name} = {value.text}"
        case Symbol():
            return f"{name} = {value.name}"
        case _:
            return node.span.text if isinstance(node, ast.Param) else name


def _kind(node: ast.Node | None) -> str:
    match node:
        case ast.Param():
            return "parameter"
        case ast.Edge() | ast.Edges():
            return "edge"
        case ast.Axis():
            return "axis"
        case ast.Labeled():
            return "label"
        case ast.Choices():
            return "choice"
        case ast.Repeat():
            return "number of a layer"
        case ast.Typed():
            return "label of the loss"
        case _:
            return type(node).__name__.lower()


def item_kind(item: ast.Block | ast.Model) -> str:
    return type(item).__name__.lower()


def _code(text: str) -> str:
    return f"```arch\n{text}\n```"
