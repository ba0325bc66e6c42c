"""Replaces each `include` of a `weights` block by the lines that it stands for.

`weights "rope"(theta) { … }`, without a model, has lines for several blocks. Within a `config`,
`include "rope"(base)` brings the lines of its `config`, elsewhere all of its lines; the lines
of its `config` then come after those of the block's own. A line of the block replaces an
included one for the same field or the same weights, and an included rule for weights that the
model lacks has no effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from archdsl.diagnostics import Note, did_you_mean, listing
from archdsl.semantics.library import Scope
from archdsl.semantics.report import Report
from archdsl.syntax import ast
from archdsl.syntax.traversal import walk

Field: TypeAlias = ast.Setting | ast.Rename | ast.Only | ast.Include


def inline_includes(file: ast.File, scope: Scope, report: Report) -> ast.File:
    """Returns a file in which no block has an `include`; reports those that are wrong."""
    if not any(isinstance(i, ast.Weights) and has_includes(i) for i in file.items):
        return file
    work = _Includes(scope, report)
    items = [work.block(i) if isinstance(i, ast.Weights) else i for i in file.items]
    return replace(file, items=tuple(items))


def inline_block(block: ast.Weights, scope: Scope) -> ast.Weights:
    """Returns one block without an `include`, for a file without mistakes."""
    return _Includes(scope, Report()).block(block)


def has_includes(block: ast.Weights) -> bool:
    return any(isinstance(node, ast.Include) for node in walk(block))


class _Includes:
    def __init__(self, scope: Scope, report: Report):
        self.scope, self.report = scope, report
        self.open: list[str] = []

    def block(self, node: ast.Weights) -> ast.Weights:
        return replace(node, rules=self.merged(node.rules))

    def merged(self, lines: Iterable[ast.Line]) -> tuple[ast.Line, ...]:
        """The lines of a block, with one `config`: its own lines and the included ones."""
        own: list[ast.Config] = []
        added: list[Field] = []
        others: list[ast.Line] = []
        for line in self.lines(lines):
            match line:
                case ast.Config() if line in lines:
                    own.append(replace(line, rules=self.fields(line.rules)))
                case ast.Config():
                    added += line.rules
                case _:
                    others.append(line)
        if not added:
            return (*own, *others)
        first = own.pop(0) if own else None
        kept = _unless(added, _fields_of(first.rules if first else ()))
        config = first or ast.Config(added[0].span, ())
        return (replace(config, rules=(*config.rules, *kept)), *own, *others)

    def lines(self, lines: Iterable[ast.Line]) -> list[ast.Line]:
        """Lines without an `include`; the `config` of an included item stays one of its own."""
        taken = {line.ours.text for line in lines if isinstance(line, ast.Rule)}
        found: list[ast.Line] = []
        for line in lines:
            match line:
                case ast.Include():
                    for each in self.included(line, whole=True):
                        if not (isinstance(each, ast.Rule) and each.ours.text in taken):
                            found.append(each)
                case ast.Only():
                    inside = self.lines(line.rules)
                    settings = tuple(
                        field for c in inside if isinstance(c, ast.Config) for field in c.rules
                    )
                    rules = tuple(each for each in inside if not isinstance(each, ast.Config))
                    if settings:
                        only = replace(line, rules=settings)
                        found.append(ast.Config(line.span, (only,)))
                    found.append(replace(line, rules=rules))
                case _:
                    found.append(line)
        return found

    def fields(self, lines: Iterable[Any]) -> tuple[Any, ...]:
        """The lines of a `config` without an `include`."""
        taken = _fields_of(line for line in lines if not isinstance(line, ast.Include))
        found: list[Any] = []
        for line in lines:
            match line:
                case ast.Include():
                    rules = self.included(line, whole=False)
                    parts = (p.rules for p in rules if isinstance(p, ast.Config))
                    found += _unless((each for part in parts for each in part), taken)
                case ast.Only():
                    found.append(replace(line, rules=self.fields(line.rules)))
                case _:
                    found.append(line)
        return tuple(found)

    def included(self, line: ast.Include, whole: bool) -> tuple[ast.Line, ...]:
        """The lines that an `include` stands for, with its arguments in their places."""
        title = line.title.value
        item = self.scope.lines.get(title)
        if item is None:
            if not self.scope.incomplete:
                self.report.add(
                    "unknown-name",
                    f'there is no `weights "{title}"` without a model',
                    line.title.span,
                    expected=listing(f'"{each}"' for each in sorted(self.scope.lines)) or None,
                    help=did_you_mean(title, self.scope.lines),
                )
            return ()
        if title in self.open:
            self.report.add("cycle", f'`weights "{title}"` includes itself', line.title.span)
            return ()
        if not whole and not any(isinstance(r, ast.Config | ast.Include) for r in item.rules):
            self.report.add(
                "weights-map",
                f'`weights "{title}"` has no `config`',
                line.title.span,
                help="move the `include` out of the `config`",
            )
            return ()
        values = self.arguments(line, item)
        if values is None:
            return ()
        self.open.append(title)
        rules = self.merged([_substitute(each, values) for each in item.rules])
        self.open.pop()
        return rules

    def arguments(
        self, line: ast.Include, item: ast.SharedLines
    ) -> Mapping[str, ast.Expr] | None:
        """The arguments of an `include` by parameter; None if they do not fit."""
        params = item.params.params if item.params else ()
        names = [param.name.id for param in params]
        values: dict[str, ast.Expr] = {}
        before = self.report.mistakes
        note = (Note("the lines are here", item.title.span),)
        for i, arg in enumerate(line.args):
            name = arg.name.id if arg.name else names[i] if i < len(names) else None
            if name not in names:
                what = f"no parameter `{name}`" if name else f"only {len(names)} parameters"
                self.report.add(
                    "unknown-argument",
                    f'`weights "{item.title.value}"` has {what}',
                    arg.span,
                    expected=listing(f"`{each}`" for each in names) or None,
                    notes=note,
                    help=did_you_mean(name, names) if name else None,
                )
            elif name in values:
                what = f"`{name}` has two values"
                self.report.add("duplicate-name", what, arg.span)
            elif not isinstance(arg.value, ast.Typed):
                values[name] = arg.value
        for param in params:
            if param.default is not None:
                values.setdefault(param.name.id, param.default)
            elif param.name.id not in values and self.report.mistakes == before:
                self.report.add(
                    "missing-argument",
                    f'`weights "{item.title.value}"` needs a value for `{param.name.id}`',
                    line.span,
                    notes=note,
                )
        return values if self.report.mistakes == before else None


def _fields_of(lines: Iterable[ast.Line]) -> set[str]:
    """The fields of the lines of a `config`, by their first names."""
    nodes = (node for line in lines for node in walk(line))
    return {node.fields[0].id for node in nodes if isinstance(node, ast.Setting)}


def _unless(lines: Iterable[Field], taken: set[str]) -> Iterator[Field]:
    """The lines of a `config` without those for fields that are taken."""
    for line in lines:
        if isinstance(line, ast.Only):
            yield replace(line, rules=tuple(_unless(line.rules, taken)))  # type: ignore[arg-type]
        elif not isinstance(line, ast.Setting) or line.fields[0].id not in taken:
            yield line


def _field(node: ast.Name, values: Mapping[str, ast.Expr]) -> ast.Name:
    """The name of a field with strings in place of parts; "" leaves a part out."""
    parts = []
    for part in node.id.split("."):
        value = values.get(part)
        parts.append(value.value if isinstance(value, ast.String) else part)
    return replace(node, id=".".join(filter(None, parts)))


def _substitute(node: Any, values: Mapping[str, ast.Expr]) -> Any:
    """A node with values for names, `{name}` in a path, and `name` in the name of a field.

    Strings are joined: `name + "Model"` becomes one string.
    """
    if not values:
        return node
    match node:
        case ast.Name(id=name) if name in values:
            return values[name]
        case ast.Path():
            text = node.text
            for name, value in values.items():
                if isinstance(value, ast.String | ast.Int):
                    found = value.value if isinstance(value, ast.String) else value.text
                    text = text.replace(f"{{{name}}}", found)
            return replace(node, text=text)
        case ast.Arg():
            return replace(node, value=_substitute(node.value, values))
        case ast.Call():
            return replace(node, args=tuple(_substitute(arg, values) for arg in node.args))
        case ast.Setting():
            parts = {"value": node.value, "default": node.default, "null": node.null}
            given = {k: _substitute(v, values) for k, v in parts.items() if v is not None}
            return replace(node, fields=tuple(_field(f, values) for f in node.fields), **given)
        case ast.Conversion():
            return replace(node, args=tuple(_substitute(arg, values) for arg in node.args))
    changed: dict[str, Any] = {}
    for name in node.__match_args__:
        field = getattr(node, name)
        if isinstance(field, tuple) and field and isinstance(field[0], ast.Spanned):
            changed[name] = tuple(_substitute(each, values) for each in field)
        elif isinstance(field, ast.Spanned):
            changed[name] = _substitute(field, values)
    node = replace(node, **changed)
    if isinstance(node, ast.Binary) and node.op == "+":
        match node.left, node.right:
            case ast.String(), ast.String():
                return ast.String(node.span, node.left.value + node.right.value)
    return node
