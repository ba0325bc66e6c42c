"""A model -> a page of HTML in one file: figures that open, the spec, the cost at any size."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from archdsl.describe.cost_curves import BATCHES, CostCurves, sizes
from archdsl.diagnostics import Source
from archdsl.figure.drawing import Drawing
from archdsl.figure.layout import layout
from archdsl.figure.listing import listing
from archdsl.figure.structure import Figure
from archdsl.figure.svg import Theme, element, file_names, spans, style
from archdsl.figure.views import View, views
from archdsl.graph.types import Size

_COSTS = {
    "params": "Parameters",
    "weight_bytes": "Weights",
    "flops": "FLOPs",
    "activation_bytes": "Activations",
    "cache_bytes": "Cache",
}
_HINT = '<p class="hint">Boxes with a corner open. Escape leads back.</p>'
_ONCE = ("params", "weight_bytes")  # for all examples of a batch


def page(
    figure: Figure,
    costs: CostCurves | None = None,
    *,
    spec: Source | None = None,
    types: bool = False,
    theme: Theme = "auto",
) -> str:
    """The text of the page; it loads nothing else.

    A box that has the figure of its inside opens. `spec` is the text that is shown first; those
    that boxes come from are shown too. `types` and `theme` are those of `layout` and `svg`.
    """
    shown = [(view, layout(inside, types)) for view, inside in views(figure)]
    return _page(shown, costs, spec, theme)


def page_of_drawing(drawing: Drawing, theme: Theme = "auto") -> str:
    """The page of a drawing whose boxes do not open, such as that of two models."""
    return _page([(View("", None, drawing.title), drawing)], None, None, theme)


def _page(
    shown: Sequence[tuple[View, Drawing]],
    costs: CostCurves | None,
    spec: Source | None,
    theme: Theme,
) -> str:
    sources = {} if spec is None else {spec.path: spec}
    for _, drawing in shown:
        for span in spans(drawing):
            sources.setdefault(span.source.path, span.source)
    names = file_names(sources.values())
    root, *inner = [
        element(drawing, names=names, opens=dict(view.opens)) for view, drawing in shown
    ]
    data = {
        "views": [
            {"name": v.name, "parent": v.parent, "title": v.title, "within": v.within}
            for v, _ in shown
        ],
        **_cost_data(costs),
    }
    return _filled(
        theme=theme,
        title=escape(shown[0][1].title),
        css="\n".join([*map(asset, ("figure.css", "page.css")), *style(theme)]),
        js=script("figure.js", "formula.js", "page.js"),
        hint=_HINT if inner else "",
        svg=root,
        cost="\n".join(_cost(costs)) if costs else "",
        spec="\n".join(_spec(sources.values(), names)),
        views="\n".join(
            f'<template id="view:{view.name}">\n{svg}</template>'
            for (view, _), svg in zip(shown[1:], inner, strict=True)
        ),
        data=json.dumps(data, ensure_ascii=False).replace("<", r"\u003c"),
    )


def _filled(**parts: str) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], asset("page.html"))


def asset(name: str) -> str:
    """The text of a file that pages with figures hold, such as `figure.js`: an ES module whose
    `attach(svg)` makes a figure answer to the pointer and the keyboard."""
    return files("archdsl.figure").joinpath("assets", name).read_text(encoding="utf-8")


def script(*names: str) -> str:
    """Modules of `assets` as one script, for a page in one file; each comes after those that it
    imports."""
    return "\n".join(map(_scope, names))


_COMMENT = re.compile(r"^/\*\*.*?\*/\n", re.DOTALL)


def _scope(name: str) -> str:
    """A module in a function of its own, which returns what the module exports."""
    text = _COMMENT.sub("", asset(name), count=1)  # how to import it
    text = re.sub(r'^import \{.*\} from "\./.*";\n', "", text, flags=re.MULTILINE)
    exports = ", ".join(re.findall(r"^export function (\w+)", text, re.MULTILINE))
    text = re.sub(r"^export (?=function)", "", text, flags=re.MULTILINE)
    return f"const {{ {exports} }} = (() => {{\n{text}return {{ {exports} }};\n}})();"


def _formulas(costs: CostCurves) -> dict[str, list[str]]:
    """The formulas of each cost of one example; the largest one counts."""
    found = {
        "params": [str(costs.params)],
        "weight_bytes": [str(costs.weight_bytes)],
        "flops": [str(costs.flops)],
        "activation_bytes": [str(size) for size in costs.activation_bytes],
    }
    decodes = costs.cache_bytes != Size.of(0)
    return found | ({"cache_bytes": [str(costs.cache_bytes)]} if decodes else {})


def _cost_data(costs: CostCurves | None) -> dict[str, Any]:
    if costs is None:
        return {"axes": [], "cost": {}, "once": []}
    axes = [{"name": axis.name, "bound": axis.bound} for axis in costs.axes]
    return {"axes": axes, "cost": _formulas(costs), "once": _ONCE}


def _cost(costs: CostCurves) -> Iterator[str]:
    """Sliders for the axes and the batch, and the places of the numbers."""
    yield '<section id="cost" aria-label="Cost"><form>'
    for axis in costs.axes:
        yield from _slider(axis.name, f"{axis.name} ≤ {axis.bound:,}", sizes(axis), axis.bound)
    yield from _slider("", "examples at once", BATCHES, 1)
    yield "</form><dl>"
    for name in _formulas(costs):
        yield f'<div id="cost:{name}"><dt>{_COSTS[name]}</dt>'
        yield "<dd><b></b><small></small></dd></div>"
    yield "</dl></section>"


def _slider(axis: str, title: str, steps: tuple[int, ...], start: int) -> Iterator[str]:
    """A slider along some steps, and a field for any number between the first and the last."""
    name = axis or "batch"
    yield f'<div class="axis" title="{title}" data-axis="{axis}" data-steps="{list(steps)}">'
    yield f"<span>{name}</span>"
    yield f'<input type="range" min="0" max="{len(steps) - 1}" value="{steps.index(start)}" '
    yield f'aria-label="{name}, by steps">'
    yield f'<input type="number" min="{steps[0]}" max="{steps[-1]}" value="{start}" '
    yield f'aria-label="{name}"></div>'


def _spec(sources: Iterable[Source], names: Mapping[str, str]) -> Iterator[str]:
    """The texts, each with a tab."""
    yield '<section id="spec" aria-label="Spec"><div role="tablist" aria-label="Files">'
    for source in sources:
        name = escape(names[source.path])
        id = quote(name)  # an id has no spaces
        yield f'<button role="tab" id="tab:{id}" aria-controls="file:{id}" '
        yield f'data-file="{name}">{name}</button>'
    yield "</div>"
    for source in sources:
        name = escape(names[source.path])
        id = quote(name)
        yield f'<ol role="tabpanel" id="file:{id}" aria-labelledby="tab:{id}" '
        yield f'data-file="{name}" tabindex="0">\n{listing(source)}\n</ol>'
    yield "</section>"
