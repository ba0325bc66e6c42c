"""Which name of a text stands for which definition, as `check_names` resolves them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from archdsl.diagnostics import Span
from archdsl.semantics.library import Scope
from archdsl.syntax import ast
from archdsl.syntax.traversal import walk


class References:
    """The definition of each use of a name. A definition is a use of itself.

    >>> from archdsl.diagnostics import Source
    >>> x, use = (Span(Source("a.arch", "x = 1\\ny = x"), at, at + 1) for at in (0, 10))
    >>> found = References()
    >>> found.add(use, x)
    >>> found.definition(use).line, [each.line for each in found.uses(x)]
    (1, [2])
    """

    def __init__(self) -> None:
        self._definitions: dict[Span, Span] = {}

    def add(self, use: Span, definition: Span | None) -> None:
        """Notes a use; without a definition, the name is one of the language."""
        if definition is not None:
            self._definitions.setdefault(use, definition)

    def update(self, other: References) -> None:
        for use, definition in other._definitions.items():
            self.add(use, definition)

    def definition(self, use: Span) -> Span | None:
        return self._definitions.get(use)

    def uses(self, definition: Span) -> list[Span]:
        """All uses of a definition."""
        return [use for use, each in self._definitions.items() if each == definition]

    def __iter__(self) -> Iterator[Span]:
        return iter(self._definitions)


def refer_items(scope: Scope, references: References) -> None:
    """Adds the references of variants and `weights` items, which have no body."""
    models = {each.name.id: each for each in scope.file.items if isinstance(each, ast.Model)}
    for item in scope.file.items:
        match item:
            case ast.Model():
                references.add(item.name.span, item.name.span)
            case ast.Block():
                references.add(item.name.span, item.name.span)
            case ast.Variant():
                references.add(item.name.span, item.name.span)
                if model := models.get(item.call.callee.id):
                    references.add(item.call.callee.span, model.name.span)
                    _refer_arguments(item.call.args, model.params.params, references)
            case ast.Weights() if model := models.get(item.model.id):
                references.add(item.model.span, model.name.span)
                _refer_lines(item, model.params.params, scope, references)
            case ast.SharedLines():
                references.add(item.title.span, item.title.span)
                params = item.params.params if item.params else ()
                for param in params:
                    references.add(param.name.span, param.name.span)
                _refer_lines(item, params, scope, references)


def _refer_arguments(
    args: Iterable[ast.Arg], params: tuple[ast.Param, ...], references: References
) -> None:
    """The names and the choices of arguments of a model."""
    by_name = {each.name.id: each for each in params}
    for arg in args:
        param = by_name.get(arg.name.id) if arg.name else None
        if param is None:
            continue
        assert arg.name is not None
        references.add(arg.name.span, param.name.span)
        if isinstance(param.type, ast.Choices) and isinstance(arg.value, ast.Name):
            refer_choice(arg.value, param.type, references)


def refer_choice(name: ast.Name, choices: ast.Choices, references: References) -> None:
    """The choice that a name stands for, if it is one."""
    chosen = next((each.span for each in choices.names if each.id == name.id), None)
    references.add(name.span, chosen)


def _refer_lines(
    item: ast.Weights | ast.SharedLines,
    params: Iterable[ast.Param],
    scope: Scope,
    references: References,
) -> None:
    """The parameters that lines of a `weights` item read, and the lines that they include."""
    names = {each.name.id: each.name.span for each in params}
    choices = {each.name.id: each.type for each in params if isinstance(each.type, ast.Choices)}
    for rule in item.rules:
        # The names of fields in a config are those of the config.
        fields = {
            id(name)
            for each in walk(rule)
            if isinstance(each, ast.Setting)
            for name in each.fields
        }
        for node in walk(rule):
            match node:
                case ast.Name() if id(node) not in fields:
                    references.add(node.span, names.get(node.id))
                case ast.Compare(left=ast.Name() as left, right=ast.Name() as right):
                    if left.id in choices:
                        refer_choice(right, choices[left.id], references)
                case ast.Include() if node.title.value in scope.lines:
                    lines = scope.lines[node.title.value]
                    references.add(node.title.span, lines.title.span)
