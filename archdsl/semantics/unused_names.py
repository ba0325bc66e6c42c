"""Blocks, used files and parameters of models that nothing in a file uses.

A file without a model is a library: its blocks and its `use`s are for other files.
"""

from __future__ import annotations

from collections.abc import Sequence

from archdsl.diagnostics import Span, closest
from archdsl.semantics.library import Scope
from archdsl.semantics.report import Report
from archdsl.syntax import ast
from archdsl.syntax.traversal import walk

_MISSPELT = ("unknown-name", "not-a-block", "not-a-tensor")


def check_unused(scope: Scope, report: Report) -> None:
    """Reports blocks and `use`s of a file with a model that nothing in this file uses."""
    items = scope.file.items
    if scope.incomplete or not any(isinstance(each, ast.Model) for each in items):
        return
    named = {id(each): names_in(each) for each in items}
    everywhere = set[str]().union(*named.values())
    # A misspelt use is reported already.
    mistakes = (each for each in report.diagnostics if each.code in _MISSPELT)
    misspelt = {each.span.text for each in mistakes if each.span}
    for item in items:
        if isinstance(item, ast.Block) and item.name.id not in scope.unclear:
            name = item.name.id
            used = any(name in named[id(each)] for each in items if each is not item)
            if not used and not any(closest(each, (name,)) for each in misspelt):
                help = "remove it, or move it to a file without a model that other files use"
                _report(f"`{name}` is never used", item.name.span, help, report)
    titles = titles_in(scope.file)
    for use, used_scope in scope.uses:
        # A mistake in the used file is reported already.
        if used_scope.incomplete or used_scope.unclear:
            continue
        given = used_scope.blocks.keys() & everywhere or used_scope.lines.keys() & titles
        if not given and not any(closest(each, used_scope.blocks) for each in misspelt):
            message = f'nothing of "{use.path.value}" is used'
            _report(message, use.path.span, "remove the line", report)


def without_unused(items: Sequence[ast.Item], scope: Scope) -> tuple[ast.Item, ...]:
    """Items without the blocks, the shared lines and the `use`s of their file, whose scope this
    is, that no other of them needs."""
    given = {id(use): used for use, used in scope.uses}

    def is_needed(item: ast.Item, names: set[str], titles: set[str]) -> bool:
        match item:
            case ast.Block():
                return item.name.id in names
            case ast.SharedLines():
                return item.title.value in titles
            case ast.Use():
                used = given[id(item)]
                return bool(used.blocks.keys() & names or used.lines.keys() & titles)
            case _:
                return True

    kept: set[int] = set()
    names, titles = set[str](), set[str]()
    while more := [e for e in items if id(e) not in kept and is_needed(e, names, titles)]:
        kept |= set(map(id, more))
        names = names.union(*map(names_in, more))
        titles = titles.union(*map(titles_in, more))
    return tuple(each for each in items if id(each) in kept)


def names_in_maps(scope: Scope, model: ast.Model) -> set[str]:
    """The names that the weight maps of a model read, and the lines that they include.

    A name that a misspelt one is close to counts too: the other mistake is reported.
    """
    maps: list[ast.Node] = [
        each
        for each in scope.file.items
        if isinstance(each, ast.Weights) and each.model.id == model.name.id
    ]
    if any(isinstance(node, ast.Include) for each in maps for node in walk(each)):
        maps += scope.lines.values()
    found = set[str]().union(*map(names_in, maps))
    params = [each.name.id for each in model.params.params]
    return found | {near for name in found if (near := closest(name, params))}


def names_in(node: ast.Node) -> set[str]:
    """The names in an item, without those of the fields of a config."""
    fields = {
        id(n) for each in walk(node) if isinstance(each, ast.Setting) for n in each.fields
    }
    return {n.id for n in walk(node) if isinstance(n, ast.Name) and id(n) not in fields}


def titles_in(node: ast.Node) -> set[str]:
    """The titles of the shared lines that an item includes."""
    return {each.title.value for each in walk(node) if isinstance(each, ast.Include)}


def _report(message: str, span: Span, help: str, report: Report) -> None:
    report.add("unused-name", message, span, help=help)
