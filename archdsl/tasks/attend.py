"""Maps of attention of a model for a text, an image, or a source and what it is translated to.

A map is an edge of the model: the weights [H, T, S] that each of H heads has for T queries and
S keys (Vaswani et al. 2017, section 3.2.1). What a position stands for follows from its axis.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from archdsl.diagnostics import fail, listing
from archdsl.figure.attention_maps import AttentionMaps
from archdsl.graph.nodes import Graph, Input
from archdsl.graph.path_patterns import matches
from archdsl.graph.sites import sites
from archdsl.graph.types import Axis, Type
from archdsl.model import Model
from archdsl.passes.edges import edges

_SUFFIX = ".weights"


def find_image(graph: Graph) -> Input | None:
    """The image float[…, …, …] that is the only input of a model; None if it is another."""
    match graph.required:
        case (each,) if each.type.dtype == "float" and len(each.type.axes) == 3:
            return each
    return None


def is_translator(graph: Graph) -> bool:
    """Whether a model reads a source and a target, both tokens."""
    types = [each.type for each in graph.required]
    return len(types) == 2 and all(t.dtype == "int" and len(t.axes) == 1 for t in types)


def find_tokens(graph: Graph) -> Input:
    """The tokens that are the only input of a model; raises `ArchError` for another model."""
    match graph.required:
        case (each,) if each.type.dtype == "int" and len(each.type.axes) == 1:
            return each
    fail(
        "model",
        f"the inputs of `{graph.name}` are not a text, an image, or a source and a target",
        expected="an input of tokens int[T], or an image float[…, …, …]",
        found=", ".join(f"{each.name}: {each.type}" for each in graph.required),
        help="read its maps in Python: `model.trace(…)`",
    )


def choose_edge(model: Model, pattern: str | None, layer: int | None) -> str:
    """The edge of the weights of one attention.

    `pattern` matches edges of attention, such as `decoder.*.self`, with or without `.weights`;
    by default it is the attention across two sequences, or else the first kind. `layer` is the
    number of the layer, by default that of the last one. Raises `ArchError` with those that
    there are.
    """
    types = drawable(model)
    if pattern is not None:
        found = [e for e in types if matches(pattern, e) or matches(pattern, _place(e))]
        if not found:
            fail(
                "argument-value",
                f"no attention of `{model.graph.name}` matches `{pattern}`",
                expected=listing(kinds(types)),
            )
    else:
        across = [edge for edge, type in types.items() if is_across(type)]
        first = next(iter(across or types))
        found = [edge for edge in types if _kind(edge) == _kind(first)]
    if layer is None:
        return found[-1]
    for edge in found:
        if _layer(edge) == layer:
            return edge
    numbers = sorted({number for edge in found if (number := _layer(edge)) is not None})
    all = f"0 to {numbers[-1]}" if numbers == [*range(len(numbers))] else None
    fail(
        "argument-value",
        f"`{_kind(found[0])}` has no layer {layer}",
        expected=all or listing(map(str, numbers)) if numbers else "no --layer: it is in none",
    )


def drawable(model: Model) -> dict[str, Type]:
    """The edges of the weights of attention [H, T, S], with their types; raises `ArchError`
    for a model without any."""
    types = model.edges
    found = {edge: types[edge] for edge in edges(model.graph).maps}
    found = {edge: type for edge, type in found.items() if len(type.axes) == 3}
    if not found:
        fail("model", f"`{model.graph.name}` has no attention whose weights can be drawn")
    return found


def kinds(edges: Iterable[str]) -> list[str]:
    """The edges with `*` for the numbers of layers, each once.

    >>> kinds(["encoder.0.weights", "encoder.1.weights", "decoder.0.self.weights"])
    ['encoder.*', 'decoder.*.self']
    """
    return list(dict.fromkeys(map(_kind, edges)))


def is_across(type: Type) -> bool:
    """Whether queries and keys are of different sequences."""
    queries, keys = type.axes[-2:]
    return queries.size != keys.size


def attention_maps(
    model: Model,
    edge: str,
    arrays: Mapping[str, Any],
    tokens: Mapping[str, Sequence[str]] | None = None,
    produced: Sequence[str] | None = None,
) -> AttentionMaps:
    """The maps of an edge for one example.

    `arrays` are the inputs [1, …] by name, `tokens` what their positions stand for. `produced`
    are the tokens that a decoder writes at the positions of its input; they name the queries of
    attention to another sequence.
    """
    trace = model.trace(edge, **arrays)
    type, weights = trace.types[edge], trace[edge][0]
    names = {
        axis.name: (tokens or {})[each.name]
        for each in model.graph.inputs
        if each.name in (tokens or {})
        for axis in each.type.axes[:1]
        if axis.name
    }
    queries, keys = type.axes[-2:]
    rows = _names(queries, weights.shape[1], names)
    if produced is not None and is_across(type):
        rows = tuple(produced)
    image = find_image(model.graph)
    grid = _grid(model.graph, weights.shape[2] - len(keys.marks)) if image else None
    picture = _picture(np.asarray(arrays[image.name][0]), image) if image and grid else None
    columns = _names(keys, weights.shape[2], names)
    return AttentionMaps(edge, weights, rows, columns, grid, picture)


def _names(axis: Axis, length: int, tokens: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """What the positions of an axis stand for: named ones first, then tokens or numbers."""
    marks = axis.marks
    name = next((name for name in axis.size.vars), None)
    rest = length - len(marks)
    of = tokens.get(name or "", ())
    others = of if len(of) == rest else [str(number) for number in range(rest)]
    return (*marks, *others)


def _grid(graph: Graph, patches: int) -> tuple[int, int] | None:
    """The rows and columns of so many patches of the image; None if there are others."""
    for node, _, here in sites(graph):
        if node.op == "patches":
            patch, padding = here.attr["patch"], here.attr["padding"]
            stride = here.attr["stride"] or patch
            sides = [axis.size.value for axis in here.x.axes[1:]]
            rows, columns = ((side + 2 * padding - patch) // stride + 1 for side in sides)
            if rows * columns == patches:
                return rows, columns
    return None


def _picture(pixels: Any, image: Input) -> Any:
    """An image [height, width, 3] from 0 to 1, whose channels may be first or last."""
    channels = [axis.size.value in (1, 3) for axis in image.type.axes]
    pixels = pixels.transpose(1, 2, 0) if channels[0] else pixels
    low, high = pixels.min(), pixels.max()
    return np.repeat((pixels - low) / ((high - low) or 1), 3 // pixels.shape[-1], axis=-1)


def _place(edge: str) -> str:
    return edge.removesuffix(_SUFFIX)


def _kind(edge: str) -> str:
    return re.sub(r"(^|\.)[0-9]+(?=\.|$)", r"\1*", _place(edge))


def _layer(edge: str) -> int | None:
    """The number of the innermost layer of an edge."""
    numbers = re.findall(r"(?:^|\.)([0-9]+)(?=\.|$)", _place(edge))
    return int(numbers[-1]) if numbers else None
