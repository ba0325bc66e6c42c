"""From the text of a spec to a verified graph, and all errors of a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

from archdsl.diagnostics import ArchError, Diagnostic
from archdsl.frozen import Frozen
from archdsl.graph.nodes import Graph
from archdsl.graph.verify import verify
from archdsl.published.configs import check_config
from archdsl.published.weight_maps import WeightMap, check_owners, weight_maps
from archdsl.semantics.choice import choose
from archdsl.semantics.elaborate import Elaborator
from archdsl.semantics.facts import hold
from archdsl.semantics.library import load, read, tree
from archdsl.semantics.models import ModelBuilder, Setting
from archdsl.semantics.names import resolve
from archdsl.semantics.report import Report
from archdsl.semantics.values import Env
from archdsl.syntax import ast


class Analysis(Frozen):
    """A model with fixed parameters, its graph, and its file.

    `work` and `env` hold the values of the parameters.
    """

    file: ast.File
    model: ast.Model
    graph: Graph
    work: Elaborator
    env: Env

    @cached_property
    def maps(self) -> Mapping[str, WeightMap]:
        """Returns the weight maps by the titles of the `weights` blocks."""
        return weight_maps(self.file, self.model, self.graph, self.work, self.env)


def analyse(
    spec: str | ast.File,
    variant: str | None = None,
    settings: Mapping[str, Setting] | None = None,
) -> Analysis:
    """Analyses a model of a spec, given as a path, `path:variant` or a parsed file.

    Raises `ArchError` with all errors of the model and all unresolved names of the file.
    """
    file, path, named = _file(spec)
    run = _Run(file, path)
    built = run.build(variant or named, settings or {})
    run.report.raise_any()
    assert built is not None
    return built


def check(spec: str | ast.File) -> list[Diagnostic]:
    """Returns all errors of a file: of blocks, models, variants and weight maps."""
    return checked(spec)[0]


def checked(spec: str | ast.File) -> tuple[list[Diagnostic], dict[str, Analysis]]:
    """Returns all errors of a file, and its models and variants without errors by name."""
    try:
        file, path, named = _file(spec)
    except ArchError as error:
        return list(error.diagnostics), {}
    run = _Run(file, path)
    built = {name: run.build(name) for name in ([named] if named else _alone(file))}
    return run.report.diagnostics, {name: each for name, each in built.items() if each}


def _alone(file: ast.File) -> Iterator[str]:
    """Yields the names of the variants and models that need no settings."""
    for item in file.items:
        match item:
            case ast.Variant():
                yield item.name.id
            # A model without defaults is checked through its variants.
            case ast.Model() if all(p.default or p.type for p in item.params.params):
                yield item.name.id


class _Run:
    """The analysis of a file, model by model."""

    def __init__(self, file: ast.File, path: Path | None):
        self.file = file
        self.report = Report()
        self.scope = load(file, path, self.report)
        resolve(self.scope, self.report)
        self.readable = not self.report.mistakes
        check_owners(file, self.report)

    def build(
        self, variant: str | None, settings: Mapping[str, Setting] | None = None
    ) -> Analysis | None:
        """Analyses a model; returns None if it or the names of the file have errors."""
        try:
            model, chosen = choose(self.file, variant)
            builder = ModelBuilder(self.scope, model, self.report)
            graph = builder.build(chosen, settings or {})
            if graph is None or not self.readable:
                return None
            verify(graph)
            maps = weight_maps(self.file, model, graph, builder.work, builder.env, whole=False)
            # Facts and published configs apply only to the sizes of the file, not to settings.
            if not settings:
                facts = chosen.facts.statements if chosen and chosen.facts else ()
                facts = facts if chosen else tuple(builder.facts)
                hold(facts, graph, builder.work, builder.env, self.report)
                for each in maps.values():
                    if each.config:
                        check_config(each.config, builder.work, builder.env)
        except ArchError as error:
            self.report.take(error.diagnostics)
            return None
        except RecursionError:
            message = f"the blocks of `{model.name.id}` are nested too deeply"
            self.report.add("syntax", message, model.name.span)
            return None
        return Analysis(self.file, model, graph, builder.work, builder.env)


def _file(spec: str | ast.File) -> tuple[ast.File, Path | None, str | None]:
    """Returns the tree of a spec, its path, and the variant after the colon."""
    if isinstance(spec, ast.File):
        return spec, None, None
    path, variant = split(spec)
    source = read(path)
    return tree(source), Path(source.path), variant


def split(spec: str) -> tuple[str, str | None]:
    """Splits `FILE:VARIANT`; `C:name` with a drive letter is not split.

    >>> split("gpt2.arch:xl"), split("gpt2.arch")
    (('gpt2.arch', 'xl'), ('gpt2.arch', None))
    """
    head, colon, tail = spec.rpartition(":")
    if colon and len(head) > 1 and tail.isidentifier() and not Path(spec).is_file():
        return head, tail
    return spec, None


def models(spec: str | ast.File) -> list[str | None]:
    """Returns the names of the selected models: the one after the colon, or all."""
    file, _, named = _file(spec)
    return [named] if named else [i.name.id for i in file.items if isinstance(i, ast.Model)]
