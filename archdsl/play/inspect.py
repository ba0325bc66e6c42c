"""What the playground shows of a text: a question and its answer, as JSON data.

Lines and columns count from 0, columns in UTF-16 units, as JavaScript and editors count them.
A spec may use the specs of the standard library, and no other file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeAlias, get_args

from archdsl.analysis import Analysis, Run
from archdsl.describe.block_model import block_model
from archdsl.describe.breakdown import breakdown_at
from archdsl.describe.facts import check_sizes
from archdsl.diagnostics import ArchError, Diagnostic, did_you_mean, fail
from archdsl.editor.document import Document, Version
from archdsl.editor.fixes import fixes
from archdsl.editor.places import Location, Position, Range
from archdsl.editor.problems import Problem, message, problems
from archdsl.figure.drawing import Circle, Drawing, Label, Rect, Shape
from archdsl.figure.fold import fold
from archdsl.figure.layout import layout
from archdsl.figure.structure import Level
from archdsl.figure.svg import Theme, svg
from archdsl.frozen import Frozen
from archdsl.graph.cost import cost, format_bytes, format_count
from archdsl.graph.nodes import Graph
from archdsl.semantics.library import standard_library
from archdsl.semantics.model_parameters import Setting
from archdsl.syntax import ast
from archdsl.syntax.printer import expression, type_text

Data: TypeAlias = dict[str, Any]

NAME = "spec.arch"
"""The file name of the page's text, in messages and figures."""
_LEVELS = 3  # of blocks in the table
_LARGEST_BATCH = 1 << 20


class Request(Frozen):
    """A question of the page.

    `model` is a model, a variant or a block of the text; the first one that can be built if
    the text has none of this name. `values` are values of its parameters and `sizes` lengths
    of its varying axes, at their bounds by default. `figure` asks for the SVG, in `level` of
    detail, with the `types` of values.
    """

    text: str
    model: str | None = None
    values: Mapping[str, Setting] | None = None
    sizes: Mapping[str, int] | None = None
    batch: int = 1
    level: Level = "block"
    types: bool = False
    theme: Theme = "auto"
    figure: bool = True


def read_request(data: object) -> Request:
    """A question from JSON data; raises ArchError (`argument-value`) if it is none."""
    if not isinstance(data, dict) or "text" not in data:
        fail("argument-value", "the request has no `text`", expected='{"text": "…"}')
    known = [each.name for each in fields(Request)]
    for name, value in data.items():
        if name not in known:
            text = f"a request has no `{name}`"
            fail("argument-value", text, help=did_you_mean(str(name), known))
        if not _CHECKS[name](value):
            fail("argument-value", f"`{name}` of a request cannot be {value!r:.80}")
    return Request(**data)


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_map(value: object, *types: type) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(each, types) for name, each in value.items()
    )


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str),
    "model": lambda value: value is None or isinstance(value, str),
    "values": lambda value: _is_map(value, int, float, bool, str),
    "sizes": lambda value: _is_map(value, int) and all(map(_is_size, value.values())),
    "batch": lambda value: _is_size(value) and value <= _LARGEST_BATCH,
    "level": lambda value: value in get_args(Level),
    "types": lambda value: isinstance(value, bool),
    "theme": lambda value: value in get_args(Theme),
    "figure": lambda value: isinstance(value, bool),
}


class Inspector:
    """Answers questions about the versions of one text; builds again only what has changed.

    The text may use the specs of `folder`, by default the standard library, which it may always
    use. An inspector is for one thread.
    """

    def __init__(self, folder: Path | None = None) -> None:
        # Only the folder is read.
        self._document = Document((folder or standard_library()) / NAME, "")

    def answers(self, request: Request) -> Iterator[Data]:
        """Yields an answer after each model that is built; the last one is `complete`.

        An answer has `problems`, `models`, the name of the `model` that it is about, and of
        that model `refused` (messages about its values and sizes), `axes`, `inputs`,
        `outputs`, `cost`, `blocks` and `figure`. Of a model with mistakes these are missing.
        """
        document = self._document
        models, chosen = self._read(request)
        version = document.version
        about: Data | None = None
        found: list[Diagnostic] = []
        for found in document.check(first=chosen):
            if about is None and chosen in document.built and chosen not in document.waiting:
                about = self._about(chosen, request)
                yield _answer(version, models, found, about, False)
        yield _answer(version, models, found, about or self._about(chosen, request), True)

    def answer(self, request: Request) -> Data:
        """The complete answer."""
        *_, last = self.answers(request)
        return last

    def analysis(self, request: Request) -> Analysis:
        """The model that a request names, to run it; raises `ArchError` if it has mistakes."""
        _, chosen = self._read(request)
        for _ in self._document.check(first=chosen):
            if chosen in self._document.built and chosen not in self._document.waiting:
                break
        found = self._analysis(chosen, request.values or {})
        if found is None:
            mistakes = chosen or self._document.version.pieces.mistakes
            fail("model", "the text has mistakes" if mistakes else "the text has no model")
        return found

    def _read(self, request: Request) -> tuple[list[Data], str | None]:
        """The models of the text, which is now that of the document, and the chosen one."""
        if self._document.given != request.text:
            self._document.update(request.text)
        models = list(_models(self._document.version))
        return models, _choose(models, request.model)

    def _about(self, name: str | None, request: Request) -> Data:
        """What an answer says of a model."""
        about: Data = {"model": name, "refused": []}
        try:
            if analysis := self._analysis(name, request.values or {}):
                graph = analysis.graph
                about |= _facts(graph, request)
                if request.figure:
                    drawing = layout(fold(graph, request.level), request.types)
                    placed = _placed(drawing, self._document.version)
                    about["figure"] = svg(placed, request.theme)
        except ArchError as error:
            about["refused"] = [message(each) for each in error.diagnostics]
        return about

    def _analysis(self, name: str | None, values: Mapping[str, Setting]) -> Analysis | None:
        """The analysis of a model; None if the text has mistakes, which are reported."""
        version, run = self._document.version, self._document.version.names
        if name is None or version.pieces.mistakes or isinstance(run, ArchError):
            return None
        known = self._document.built.get(name)
        if known and (known.analysis is None or not values):
            return known.analysis
        if block := _block(version, name):
            others = tuple(i for i in version.file.items if isinstance(i, ast.Block | ast.Use))
            model = block_model(block, NAME, values).items[-1]
            file = replace(version.file, items=(*others, model))
            run = Run(file, version.path)
        alone = run.alone()
        built = alone.build(name, values)
        alone.report.raise_any()
        return built


def inspect(text: str, **options: Any) -> Data:
    """The complete answer to one question; `options` are the fields of `Request`.

    >>> answer = inspect("model M(D = 8) { input x: float[D]  output y: float[D] = x -> nrom }")
    >>> [(each["start"], each["code"]) for each in answer["problems"]]
    [([0, 62], 'unknown-name')]
    """
    return Inspector().answer(Request(text, **options))


def _models(version: Version) -> Iterator[Data]:
    """The models, variants and blocks of a text, with their parameters."""
    called = {
        i.name.id: i.params.params for i in version.file.items if isinstance(i, ast.Model)
    }
    for item in version.file.items:
        match item:
            case ast.Model() | ast.Block():
                params, given = item.params.params, dict[str, str]()
                ready = isinstance(item, ast.Model) and all(p.default or p.type for p in params)
            case ast.Variant():
                params, ready = called.get(item.call.callee.id, ()), True
                given = _given(item.call.args)
            case _:
                continue
        yield {
            "name": item.name.id,
            "kind": type(item).__name__.lower(),
            "line": version.range(item.name.span).start.line,
            "ready": ready,
            "parameters": [
                {
                    "name": each.name.id,
                    "type": type_text(each.type) if each.type else "",
                    "default": given.get(each.name.id)
                    or (expression(each.default) if each.default else ""),
                }
                for each in params
            ],
        }


def _given(args: Iterable[ast.Arg]) -> dict[str, str]:
    """The values that a variant gives by name."""
    return {
        each.name.id: expression(each.value)
        for each in args
        if each.name and not isinstance(each.value, ast.Typed)
    }


def _choose(models: list[Data], name: str | None) -> str | None:
    """The model of this name; or else the first one that needs no values, or a block."""
    ready = [each["name"] for each in models if each["ready"]]
    every = [each["name"] for each in models]
    return name if name in every else next(iter([*ready, *every]), None)


def _block(version: Version, name: str) -> ast.Block | None:
    blocks = (each for each in version.file.items if isinstance(each, ast.Block))
    return next((each for each in blocks if each.name.id == name), None)


def _answer(
    version: Version,
    models: list[Data],
    found: Iterable[Diagnostic],
    about: Data,
    complete: bool,
) -> Data:
    shown = [_problem(version, each) for each in problems(version, found)]
    return {"complete": complete, "problems": shown, "models": models, **about}


def _problem(version: Version, problem: Problem) -> Data:
    return {
        **_range(problem.range),
        "code": problem.code,
        "message": problem.message,
        "unused": problem.unused,
        "notes": [_note(version, place, text) for place, text in problem.others],
        "fixes": [
            {
                "title": fix.title,
                "edits": [{**_range(each.range), "text": each.text} for each in fix.edits],
            }
            for fix in fixes(version, problem)
        ],
    }


def _note(version: Version, place: Location, text: str) -> Data:
    return {"file": place.path.name, **_range(place.range), "message": text}


def _range(range: Range) -> Data:
    return {"start": _position(range.start), "end": _position(range.end)}


def _position(position: Position) -> list[int]:
    return [position.line, position.column]


def _facts(graph: Graph, request: Request) -> Data:
    """The types and the cost of a model, of all examples of a batch."""
    check_sizes(graph, request.sizes or {})
    found, types, batch = cost(graph, request.sizes), graph.types(), request.batch
    rows = [
        (
            "parameters",
            format_count(found.params),
            f"{found.params:,}; {format_bytes(found.weight_bytes)}",
        ),
        ("flops", format_count(found.flops * batch), str(found.flops_formula)),
        ("activations", format_bytes(found.activation_bytes * batch), "at their peak"),
    ]
    if found.cache_bytes:
        cache = format_bytes(found.cache_bytes * batch)
        rows.append(("cache", cache, f"{found.cache_formula} bytes"))
    return {
        "axes": [
            {"name": each.name, "least": each.least, "most": each.bound}
            for each in graph.varying
        ],
        "inputs": {each.name: str(each.type) for each in graph.inputs},
        "outputs": {name: str(types[ref]) for name, ref in graph.outputs},
        "cost": [{"name": n, "value": value, "note": note} for n, value, note in rows],
        "blocks": [
            {
                "path": each.part.path,
                "name": each.part.name,
                "level": each.part.level,
                "params": each.part.params,
                "params_share": each.params_share,
                "flops": each.flops * batch,
                "flops_share": each.flops_share,
            }
            for each in breakdown_at(graph, found.sizes, _LEVELS)
        ],
    }


def _placed(drawing: Drawing, version: Version) -> Drawing:
    """The drawing with the lines of the whole text, not those of its items."""

    def placed(shape: Shape) -> Shape:
        if not isinstance(shape, Rect | Circle | Label) or shape.origin.span is None:
            return shape
        span, *others = map(version.span_of, shape.origin.spans)
        return replace(shape, origin=replace(shape.origin, span=span, others=tuple(others)))

    return replace(drawing, shapes=tuple(map(placed, drawing.shapes)))
