"""A spec that is being edited: its tree, its names, and its mistakes as they are found."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from archdsl.analysis import Analysis, Run, standalone_names
from archdsl.diagnostics import ArchError, Diagnostic, Span
from archdsl.editor.places import Lines, Location, Range
from archdsl.frozen import Frozen
from archdsl.semantics.library import Scope, all_used
from archdsl.semantics.references import References
from archdsl.semantics.report import Report
from archdsl.semantics.values import Value
from archdsl.syntax import ast
from archdsl.syntax.items import ItemParser, Pieces
from archdsl.syntax.printer import format


class Built(Frozen):
    """What building a model found. `needs` are the nodes that it depends on."""

    needs: tuple[ast.Node, ...]
    diagnostics: tuple[Diagnostic, ...]
    values: dict[Span, Value]
    analysis: Analysis | None


class Version:
    """One text of a document. An item with a syntax error is missing in its tree."""

    def __init__(self, pieces: Pieces, path: Path):
        self.pieces = pieces
        self.path = path
        self.text = pieces.source.text
        self.lines = Lines(self.text)

    @cached_property
    def file(self) -> ast.File:
        return self.pieces.file

    @cached_property
    def names(self) -> Run | ArchError:
        """The names of the file, or why there are none: it has too many mistakes."""
        try:
            return Run(self.file, self.path)
        except ArchError as error:
            return error

    @property
    def scope(self) -> Scope:
        return self.names.scope if isinstance(self.names, Run) else Scope(self.file, self.path)

    @property
    def references(self) -> References:
        return self.names.references if isinstance(self.names, Run) else References()

    def span_of(self, span: Span) -> Span:
        """A span with the place that it has in the whole text."""
        return self.pieces.whole(span)

    def is_own(self, span: Span) -> bool:
        """Whether a span is in this text, not in a file that it uses or in an older text."""
        return self.span_of(span).source is self.pieces.source

    def range(self, span: Span) -> Range:
        span = self.span_of(span)
        own = span.source is self.pieces.source
        return (self.lines if own else Lines(span.source.text)).range(span.start, span.end)

    def location(self, span: Span) -> Location:
        path = self.path if self.is_own(span) else Path(span.source.path)
        return Location(path, self.range(span))


class Document:
    """An open file. `update` gives it a new text; `check` finds the mistakes.

    `built` are the models and variants as they were last built: again only if an item that
    they depend on has changed. `waiting` are those that the check has still to build.
    """

    def __init__(self, path: Path, text: str):
        self.path = path
        self._parser = ItemParser(str(path))
        self.built: dict[str, Built] = {}
        self.waiting: list[str] = []
        self.update(text)

    def update(self, text: str) -> None:
        self.given = text
        self.version = Version(self._parser.parse(text), self.path)

    def check(self, first: str | None = None) -> Iterator[list[Diagnostic]]:
        """Yields the mistakes of the file, again after each model that is built, `first` first.

        Before a model is built, its mistakes are those of the last version, if the text that
        they are about is unchanged. The last list is complete: the mistakes that
        `archdsl.check` finds.
        """
        version = self.version
        if version.pieces.mistakes:
            yield version.pieces.mistakes
            return
        run = version.names
        if isinstance(run, ArchError):
            yield list(run.diagnostics)
            return
        needs = {name: _needs(run, name) for name in standalone_names(run.file)}
        self.built = {name: self.built[name] for name in needs if name in self.built}
        self.waiting = [
            name
            for name in needs
            if name not in self.built or not _same(self.built[name].needs, needs[name])
        ]
        yield self._together(run)
        self.waiting.sort(key=lambda name: name != first)
        while self.waiting:
            name = self.waiting.pop(0)
            self.built[name] = _build(run, name, needs[name])
            yield self._together(run)

    def finish(self) -> None:
        """Builds what no check has built yet."""
        for _ in self.check():
            pass

    def value(self, definition: Span) -> Value | None:
        """The value of a definition or a call in the first model that has it."""
        found = (each.values.get(definition) for each in self.built.values())
        return next((value for value in found if value is not None), None)

    def _together(self, run: Run) -> list[Diagnostic]:
        """The mistakes of names and of models, each once."""
        report = Report()
        try:
            report.extend(run.report.diagnostics)
            for built in self.built.values():
                report.extend(each for each in built.diagnostics if self._is_current(each))
        except ArchError as error:  # there are too many to show
            return list(error.diagnostics)
        return report.diagnostics

    def _is_current(self, diagnostic: Diagnostic) -> bool:
        """Whether the text that a mistake is about is still there."""
        spans = [diagnostic.span, *(note.span for note in diagnostic.notes)]
        return all(
            self.version.is_own(span)
            for span in spans
            if span and span.source.path == str(self.path)
        )

    def formatted(self) -> str | None:
        """The canonical text, or None if the text has a syntax error."""
        from archdsl.syntax.parser import parse

        try:
            return format(parse(self.version.text, str(self.path)))
        except ArchError:
            return None


def _build(run: Run, name: str, needs: tuple[ast.Node, ...]) -> Built:
    alone = run.alone()
    try:
        analysis = alone.build(name)
    except ArchError:  # there are too many mistakes; the report has them
        analysis = None
    found = tuple(alone.report.diagnostics)
    return Built(needs, found, alone.values, analysis)


def _needs(run: Run, name: str) -> tuple[ast.Node, ...]:
    """What a model or variant depends on: itself, its model, the blocks and the used files."""
    items = run.scope.file.items
    own = next(each for each in items if _name(each) == name)
    models = {name, own.call.callee.id if isinstance(own, ast.Variant) else name}
    shared = (each for each in items if _name(each) is None or _name(each) in models)
    return (*shared, *(each.file for each in all_used(run.scope)[1:]))


def _name(item: ast.Item) -> str | None:
    return item.name.id if isinstance(item, ast.Model | ast.Variant) else None


def _same(a: tuple[ast.Node, ...], b: tuple[ast.Node, ...]) -> bool:
    return len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))
