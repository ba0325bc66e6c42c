"""A spec from its text to a verified graph: what every command begins with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from archdsl.diagnostics import ArchError, Diagnostic
from archdsl.graph.nodes import Graph
from archdsl.graph.verify import verify
from archdsl.semantics.choice import choose
from archdsl.semantics.facts import hold
from archdsl.semantics.library import Scope, load, read
from archdsl.semantics.models import ModelBuilder, Setting
from archdsl.semantics.names import resolve
from archdsl.semantics.report import Report
from archdsl.syntax import ast
from archdsl.syntax.parser import parse


@dataclass(frozen=True)
class Analysis:
    """A model of a file with its parameters fixed, and the file it came from."""

    file: ast.File
    model: ast.Model
    graph: Graph


def analyse(
    spec: str | ast.File,
    variant: str | None = None,
    settings: Mapping[str, Setting] | None = None,
) -> Analysis:
    """The graph of a model in a spec: a path, `path:variant`, or a parsed file.

    Raises `ArchError` with every mistake of the file.
    """
    file, path, named = _file(spec)
    report = Report()
    scope = load(file, path, report)
    resolve(scope, report)
    try:
        model, chosen = choose(file, variant or named)
    except ArchError as error:
        report.diagnostics += error.diagnostics
        raise ArchError(report.diagnostics) from None
    graph = _build(scope, model, chosen, settings or {}, report)
    report.raise_any()
    assert graph is not None
    return Analysis(file, model, graph)


def check(spec: str | ast.File) -> list[Diagnostic]:
    """Every mistake of a file: of its blocks, its models, and all their variants."""
    try:
        file, path, named = _file(spec)
    except ArchError as error:
        return list(error.diagnostics)
    report = Report()
    scope = load(file, path, report)
    resolve(scope, report)
    try:
        if named:
            _build(scope, *choose(file, named), {}, report)
            return report.diagnostics
        for item in file.items:
            if isinstance(item, ast.Model):
                required = [
                    p for p in item.params.params if p.default is None and p.type is None
                ]
                if not required:
                    _build(scope, item, None, {}, report)
            elif isinstance(item, ast.Variant):
                _build(scope, *choose(file, item.name.id), {}, report)
    except ArchError as error:
        report.diagnostics += error.diagnostics
    return report.diagnostics


def _build(
    scope: Scope,
    model: ast.Model,
    variant: ast.Variant | None,
    settings: Mapping[str, Setting],
    report: Report,
) -> Graph | None:
    builder = ModelBuilder(scope, model, report)
    graph = builder.build(variant, settings)
    if graph is None:
        return None
    verify(graph)
    # A fact holds for the sizes that it was written for, and for no others.
    if not settings:
        facts = variant.facts.statements if variant and variant.facts else ()
        facts = facts if variant else tuple(builder.facts)
        hold(facts, graph, builder.work, builder.env, report)
    return graph


def _file(spec: str | ast.File) -> tuple[ast.File, Path | None, str | None]:
    """The tree of a spec, its path, and the variant named behind the path."""
    if isinstance(spec, ast.File):
        return spec, None, None
    path, variant = split(spec)
    source = read(path)
    return parse(source.text, source.path), Path(source.path), variant


def split(spec: str) -> tuple[str, str | None]:
    """`FILE:VARIANT` in two; a drive's letter is no file.

    >>> split("gpt2.arch:xl"), split("gpt2.arch")
    (('gpt2.arch', 'xl'), ('gpt2.arch', None))
    """
    head, colon, tail = spec.rpartition(":")
    if colon and len(head) > 1 and tail.isidentifier() and not Path(spec).is_file():
        return head, tail
    return spec, None


def models(spec: str | ast.File) -> list[str | None]:
    """The models that a spec means, by name: the one behind the colon, or all of the file."""
    file, _, named = _file(spec)
    return [named] if named else [i.name.id for i in file.items if isinstance(i, ast.Model)]
