"""A spec from its text to a verified graph: what every command begins with."""

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
    """A model of a file with its parameters fixed, and the file it came from.

    `work` and `env` are what the names of its parameters mean.
    """

    file: ast.File
    model: ast.Model
    graph: Graph
    work: Elaborator
    env: Env

    @cached_property
    def maps(self) -> Mapping[str, WeightMap]:
        """The published checkpoints that it can read, by the titles of its `weights` blocks."""
        return weight_maps(self.file, self.model, self.graph, self.work, self.env)


def analyse(
    spec: str | ast.File,
    variant: str | None = None,
    settings: Mapping[str, Setting] | None = None,
) -> Analysis:
    """The graph of a model in a spec: a path, `path:variant`, or a parsed file.

    Raises `ArchError` with every mistake of the model and of the file's names.
    """
    file, path, named = _file(spec)
    run = _Run(file, path)
    built = run.build(variant or named, settings or {})
    run.report.raise_any()
    assert built is not None
    return built


def check(spec: str | ast.File) -> list[Diagnostic]:
    """Every mistake of a file: of its blocks, its models, their variants and weights."""
    return checked(spec)[0]


def checked(spec: str | ast.File) -> tuple[list[Diagnostic], dict[str, Analysis]]:
    """Every mistake of a file, and by their names the models and variants without any."""
    try:
        file, path, named = _file(spec)
    except ArchError as error:
        return list(error.diagnostics), {}
    run = _Run(file, path)
    built = {name: run.build(name) for name in ([named] if named else _alone(file))}
    return run.report.diagnostics, {name: each for name, each in built.items() if each}


def _alone(file: ast.File) -> Iterator[str]:
    """The names of what can be built as it stands."""
    for item in file.items:
        match item:
            case ast.Variant():
                yield item.name.id
            # One that needs something given is seen through its variants.
            case ast.Model() if all(p.default or p.type for p in item.params.params):
                yield item.name.id


class _Run:
    """What is known of a file while its models are built."""

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
        """A model of the file, if nothing is wrong with it nor with the file's names."""
        try:
            model, chosen = choose(self.file, variant)
            builder = ModelBuilder(self.scope, model, self.report)
            graph = builder.build(chosen, settings or {})
            if graph is None or not self.readable:
                return None
            verify(graph)
            maps = weight_maps(self.file, model, graph, builder.work, builder.env, whole=False)
            # Facts are of the sizes that they were written for, and of no others; and what is
            # set from outside need not have a published form.
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
    """The tree of a spec, its path, and the variant named behind the path."""
    if isinstance(spec, ast.File):
        return spec, None, None
    path, variant = split(spec)
    source = read(path)
    return tree(source), Path(source.path), variant


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
