"""From the text of a spec to a verified graph, and all errors of a file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from archdsl.describe.block_model import NUMBER, block_model, result_names, without_value
from archdsl.diagnostics import ArchError, Diagnostic, Note, Span
from archdsl.frozen import Frozen
from archdsl.graph.excerpt import excerpt
from archdsl.graph.nodes import Graph, Input
from archdsl.graph.sites import parameters, trained
from archdsl.graph.unused import drop_absent
from archdsl.graph.verify import verify
from archdsl.published.config_blocks import check_config
from archdsl.published.includes import inline_includes
from archdsl.published.weight_maps import (
    WeightMap,
    active_lines,
    check_owners,
    check_rules,
    weight_maps,
)
from archdsl.semantics.choice import choose
from archdsl.semantics.elaborate import Elaborator
from archdsl.semantics.facts import check_facts
from archdsl.semantics.library import load, read, tree
from archdsl.semantics.model_parameters import Setting
from archdsl.semantics.models import ModelBuilder
from archdsl.semantics.names import check_names
from archdsl.semantics.report import Report
from archdsl.semantics.values import Env, Tensor, Value
from archdsl.syntax import ast


class Analysis(Frozen):
    """A model with fixed parameters, its graph, and its file.

    `elaborator` and `env` hold the values of the parameters. `absent` are the weights of the
    parts that conditions leave out, of the first layers of each stack; None for a model with
    settings, which may lack more. `optional` are the nodes that only outputs with a condition
    need, for a model with settings.
    """

    file: ast.File
    model: ast.Model
    graph: Graph
    elaborator: Elaborator
    env: Env
    absent: tuple[str, ...] | None = ()
    optional: frozenset[str] = frozenset()

    @cached_property
    def maps(self) -> Mapping[str, WeightMap]:
        """Returns the weight maps by the titles of the `weights` blocks."""
        return weight_maps(
            self.file,
            self.model,
            self.graph,
            self.elaborator,
            self.env,
            absent=self.absent,
            optional=self.optional,
        )


def analyse(
    spec: str | ast.File,
    variant: str | None = None,
    settings: Mapping[str, Setting] | None = None,
) -> Analysis:
    """Analyses a model of a spec, given as a path, `path:variant` or a parsed file.

    Raises `ArchError` with all errors of the model and all unresolved names of the file.
    """
    file, path, named = _file(spec)
    run = Run(file, path)
    built = run.build(variant or named, settings or {})
    run.report.raise_any()
    assert built is not None
    return built


def analyse_block(spec: str, settings: Mapping[str, Setting] | None = None) -> Analysis | None:
    """Analyses the block of `path:block`.

    Without settings, it is as the first model that calls it has it: a model of its own file, or
    one of the files beside it if the block cannot be built alone. Else it is a model of its own
    (`block_model`). Returns None if the name is that of no block.
    """
    file, path, named = _file(spec)
    blocks = (item for item in file.items if isinstance(item, ast.Block))
    block = next((each for each in blocks if each.name.id == named), None)
    if block is None:
        return None
    assert path is not None
    if settings:
        return _alone(block, path, settings)
    if found := _as_called(block, file, path):
        return found
    try:
        return _alone(block, path, {})
    except ArchError:
        if found := _as_called_beside(block, file, path):
            return found
        raise


def _as_called_beside(block: ast.Block, file: ast.File, path: Path) -> Analysis | None:
    """The part of a model that calls a block, of the other files of its folder."""
    calls = _calls(block.name.id)
    for each in file.items:  # blocks that call it, so that a file may call them instead
        if isinstance(each, ast.Block) and calls.search(each.body.span.text):
            calls = re.compile(f"{calls.pattern}|{_calls(each.name.id).pattern}")
    for other in sorted(path.parent.glob("*.arch")):
        with suppress(ArchError):  # the mistakes of other files are not those of the block
            source = read(str(other))
            named = other.name != path.name and calls.search(source.text)
            if named and (found := _as_called(block, tree(source), other)):
                return found
    return None


def _calls(name: str) -> re.Pattern[str]:
    """Where a text uses the name of a block, and not as a label or a part of a path."""
    return re.compile(rf"(?<![./\w]){name}\b(?!\s*[:.=])")


def _as_called(block: ast.Block, file: ast.File, path: Path) -> Analysis | None:
    """The part of a model that calls a block, of the first such model of a file."""
    run = Run(file, path)
    for name in standalone_names(file):
        built = run.alone().build(name)
        call = built and built.elaborator.builder.called.get(block.name.span)
        if built and call:
            given = {tensor.ref: param for param, tensor in call.given}
            names = result_names(len(call.results))
            results = {n: each.ref for n, each in zip(names, call.results, strict=True)}
            graph = excerpt(_whole(built), block.name.id, given, results, call.path)
            if graph:
                return replace(built, graph=graph)
    return None


def _whole(built: Analysis) -> Graph:
    """The graph of a model with the parts that conditions leave out."""
    builder, values = built.elaborator.builder, built.env.names
    inputs = tuple(
        Input(name, value.type)
        for name, value in values.items()
        if isinstance(value, Tensor) and value.ref == name
    )
    varying = tuple(builder.varying.values())
    return replace(built.graph, varying=varying, inputs=inputs, nodes=tuple(builder.nodes))


def _alone(block: ast.Block, path: Path, given: Mapping[str, Setting]) -> Analysis | None:
    """A block as a model of its own."""
    run = Run(block_model(block, path.name, given), path.parent / block.name.id)
    built = run.build(block.name.id, given)
    guessed = [param for param in without_value(block) if param.name.id not in given]
    if run.report.diagnostics and guessed:
        notes = [
            Note(
                f"drawn alone, `{param.name.id}` is {NUMBER}: --set gives another value",
                param.span,
            )
            for param in guessed
        ]
        first, *others = run.report.diagnostics
        raise ArchError([replace(first, notes=(*first.notes, *notes)), *others])
    run.report.raise_any()
    return built


def check(spec: str | ast.File) -> list[Diagnostic]:
    """Returns all errors of a file: of blocks, models, variants and weight maps."""
    return analyse_all(spec)[0]


def analyse_all(
    spec: str | ast.File, settings: Mapping[str, Setting] | None = None
) -> tuple[list[Diagnostic], dict[str, Analysis]]:
    """Returns all errors of a file, and its models and variants without errors by name.

    With `settings`, only the models that `models(spec)` lists are analysed, with these values.
    """
    try:
        file, path, named = _file(spec)
        run = Run(file, path)
        names = (
            [named]
            if named
            else list(_model_names(file) if settings else standalone_names(file))
        )
        built = {name: run.build(name, settings) for name in names}
    except ArchError as error:  # the file cannot be read, or has too many mistakes
        return list(error.diagnostics), {}
    return run.report.diagnostics, {name: each for name, each in built.items() if each}


def analyse_models(
    spec: str | ast.File, settings: Mapping[str, Setting] | None = None
) -> Iterator[Analysis]:
    """Yields the model after the colon, or all models of a file without mistakes.

    Raises `ArchError` with all errors of the file, or of the first model that has some.
    """
    problems, known = analyse_all(spec, settings)
    if problems:
        raise ArchError(problems)
    for name in models(spec):
        yield known.get(name) or analyse(spec, name, settings)


def _model_names(file: ast.File) -> Iterator[str]:
    return (item.name.id for item in file.items if isinstance(item, ast.Model))


def standalone_names(file: ast.File) -> Iterator[str]:
    """Yields the names of the variants and models that need no settings."""
    for item in file.items:
        match item:
            case ast.Variant():
                yield item.name.id
            # A model without defaults is checked through its variants.
            case ast.Model() if all(p.default or p.type for p in item.params.params):
                yield item.name.id


class Run:
    """The analysis of a file, model by model.

    `references` says what the names of the file and of those that it uses stand for; `values`
    are those of definitions and calls in the models that were built, by the span of the name.
    """

    def __init__(self, file: ast.File, path: Path | None):
        self.report = Report()
        self.values: dict[Span, Value] = {}
        self.scope = load(file, path, self.report)
        self.file = inline_includes(file, self.scope, self.report)
        self.references = check_names(self.scope, self.report)
        check_owners(self.file, self.report)

    def alone(self) -> Run:
        """The same file with no mistakes and no values yet, for one model."""
        other = copy(self)
        other.report, other.values = Report(), {}
        return other

    def build(
        self, variant: str | None, settings: Mapping[str, Setting] | None = None
    ) -> Analysis | None:
        """Analyses a model; returns None if it has no graph because of an error."""
        with self._reporting():
            model, chosen = choose(self.file, variant)
            try:
                return self._build(model, chosen, settings or {})
            except RecursionError:
                message = f"the blocks of `{model.name.id}` are nested too deeply"
                self.report.add("syntax", message, model.name.span)
        return None

    def _build(
        self, model: ast.Model, variant: ast.Variant | None, settings: Mapping[str, Setting]
    ) -> Analysis | None:
        builder = ModelBuilder(self.scope, model, self.report)
        elaborator, env = builder.elaborator, builder.env
        graph = builder.build(variant, settings)
        self.values = elaborator.builder.values | self.values
        # Facts and published configs apply only to the sizes of the file, not to settings.
        if not settings:
            facts = variant.facts.statements if variant and variant.facts else ()
            check_facts(facts if variant else builder.facts, graph, elaborator, env)
            for item in self.file.items:
                if isinstance(item, ast.Weights) and item.model.id == model.name.id:
                    self._check_config(item, model, elaborator, env)
        if graph is None:
            with self._reporting():
                check_rules(self.file, model, elaborator, env)
            return None
        verify(graph)
        # With other sizes, a model may lack a kind of layers, too.
        absent: tuple[str, ...] | None = None if settings else ()
        if absent is not None and builder.partial and builder.complete:
            present = {p.path for p in parameters(graph, 1)}
            every = (p.path for p in parameters(builder.complete, 1))
            absent = tuple(path for path in every if path not in present)
        optional = _optional(model, graph) if settings or variant else frozenset[str]()
        with self._reporting():
            weight_maps(self.file, model, graph, elaborator, env, False, absent, optional)
        return Analysis(self.file, model, graph, elaborator, env, absent, optional)

    def _check_config(
        self, node: ast.Weights, model: ast.Model, elaborator: Elaborator, env: Env
    ) -> None:
        for line in active_lines(node.rules, elaborator, env):
            if isinstance(line, ast.Config):
                with self._reporting():
                    check_config(line, model, elaborator, env)
                return

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Adds the diagnostics of an `ArchError` to the report."""
        try:
            yield
        except ArchError as error:
            self.report.extend(error.diagnostics)


def _optional(model: ast.Model, graph: Graph) -> frozenset[str]:
    """The nodes with weights that only outputs with a condition need."""
    outputs = [each for each in model.body.statements if isinstance(each, ast.Output)]
    always = {each.name.id for each in outputs if each.condition is None}
    kept = tuple(each for each in graph.outputs if each[0] in always)
    base = drop_absent(replace(graph, outputs=kept, losses=()))
    return frozenset(trained(graph) - trained(base))


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
    if colon and len(head) > 1 and tail.isidentifier() and not os.path.isfile(spec):
        return head, tail
    return spec, None


def models(spec: str | ast.File) -> list[str]:
    """Returns the names of the selected models: the one after the colon, or all."""
    file, _, named = _file(spec)
    return [named] if named else list(_model_names(file))
