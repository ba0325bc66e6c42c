"""Every figure by geometry: nothing overlaps or is cut, and arrows are those of the graph."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from archdsl.analysis import analyse, analyse_block
from archdsl.figure.differences import differing, side_by_side
from archdsl.figure.drawing import SIZES, Circle, Dot, Drawing, Label, Line, Rect
from archdsl.figure.fold import fold
from archdsl.figure.junctions import dots, once
from archdsl.figure.layout import layout
from archdsl.figure.structure import Level
from archdsl.graph.nodes import Apply, Graph, Mixture, Scan, refs, walk
from archdsl.passes.decompose import decompose
from archdsl.passes.eliminate_dead_code import eliminate_dead_code
from archdsl.semantics.library import standard_library
from tests.figure.geometry import arrows, problems

LEVELS: tuple[Level, ...] = ("model", "block", "operator")
SHORT = ("gpt.arch:GPT", "vit.arch:ViT", "transformer.arch:Transformer")
# Parsing the library takes seconds in each process, also in one that runs no test of it.
BLOCK = re.compile(r"^block (\w+)", re.MULTILINE)
MODEL = re.compile(r"^model (\w+)", re.MULTILINE)
VARIANT = re.compile(r"^variant (\w+) = (\w+)", re.MULTILINE)
COLUMN = 85 / 25.4 * 72  # of a page, in points


def _models() -> Iterator[Any]:
    """A variant of every model; those after the first of a file are slow."""
    for path in sorted(standard_library().glob("*.arch")):
        text = path.read_text(encoding="utf-8")
        sized = {of: name for name, of in reversed(VARIANT.findall(text))}
        for number, model in enumerate(MODEL.findall(text)):
            spec = f"{path.name}:{sized.get(model, model)}"
            group = pytest.mark.slow if number else pytest.mark.long
            yield pytest.param(spec, marks=() if spec in SHORT else group)


@pytest.mark.parametrize("spec", [*_models()])
def test_geometry(spec: str) -> None:
    graph = analyse(spec).graph
    for level in LEVELS:
        drawing = layout(fold(graph, level), types=True)
        assert problems(drawing) == []
    assert _without_encodings(arrows(drawing)) == _edges(graph)


def _without_encodings(edges: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The arrows to operators, without those of values that an operator makes itself."""
    return {(ref, id) for ref, id in edges if not ref.endswith("'")}


def _edges(graph: Graph) -> set[tuple[str, str]]:
    """What each operator of a model receives, with the gates of experts."""
    graph = eliminate_dead_code(replace(decompose(graph), losses=()))
    nodes = [node for node, _ in walk(graph.nodes)]
    found = {(ref, node.id) for node in nodes if isinstance(node, Apply) for ref in refs(node)}
    found |= {(node.gates, node.id) for node in nodes if isinstance(node, Mixture)}
    slices = {s.id: s.of for node in nodes if isinstance(node, Scan) for s in node.takes}
    return {(slices.get(ref, ref), id) for ref, id in found}


@pytest.mark.parametrize("name", ["self_attention_block", "cross_attention_block"])
def test_geometry_of_a_block(name: str) -> None:
    analysis = analyse_block(f"blocks.arch:{name}")
    assert analysis is not None
    drawing = layout(fold(analysis.graph))
    assert problems(drawing) == []
    assert drawing.width < COLUMN  # as large as it is


def _blocks() -> Iterator[str]:
    """All blocks of the library; `pre_norm` takes a block, and no model of it calls it."""
    for path in sorted(standard_library().glob("*.arch")):
        names = BLOCK.findall(path.read_text(encoding="utf-8"))
        yield from (f"{path.name}:{name}" for name in names if name != "pre_norm")


@pytest.mark.slow
@pytest.mark.parametrize("spec", [*_blocks()])
def test_geometry_of_every_block(spec: str) -> None:
    analysis = analyse_block(spec)
    assert analysis is not None
    for level in LEVELS:
        assert problems(layout(fold(analysis.graph, level), types=True)) == []


def test_the_check_finds_mistakes() -> None:
    drawing = layout(fold(analyse("gpt.arch").graph))
    boxes = [each for each in drawing.shapes if isinstance(each, Rect) and each.kind != "frame"]
    (circle, *_) = (each for each in drawing.shapes if isinstance(each, Circle))
    line = max(
        (each for each in drawing.shapes if isinstance(each, Line)), key=lambda x: len(x.points)
    )
    x = line.points[0][0]
    for wrong, words in (
        (replace(boxes[0], x=boxes[1].x, y=boxes[1].y + 3), "overlap"),
        (replace(circle, x=-20.0), "leaves the picture"),
        (replace(line, points=((x, 0.5), (x, drawing.height - 0.5))), "goes through"),
        (replace(line, value="other"), "lie on each other"),
    ):
        changed = replace(drawing, shapes=(*drawing.shapes, wrong))
        assert any(words in each for each in problems(changed)), words


def test_the_transformer_has_two_columns() -> None:
    """As in figure 1 of Vaswani et al. 2017: the encoder at the left, both from one height."""
    drawing = layout(fold(analyse("transformer.arch").graph))
    encoder, decoder = (s for s in drawing.shapes if isinstance(s, Rect) and s.kind == "frame")
    if encoder.x > decoder.x:
        encoder, decoder = decoder, encoder
    assert encoder.x + encoder.width < decoder.x
    assert encoder.y + encoder.height == pytest.approx(decoder.y + decoder.height)
    labels = {s.text: s for s in drawing.shapes if isinstance(s, Label)}
    counts = [s for s in drawing.shapes if isinstance(s, Label) and s.text == "× 6"]
    assert labels["Logits"].x > decoder.x
    assert min(each.x for each in counts) < encoder.x  # outside of both
    assert max(each.x for each in counts) > decoder.x + decoder.width


@pytest.mark.parametrize("spec", ["vaswani2017.arch", "gpt.arch", "vit.arch", "whisper.arch"])
def test_titles_can_be_read_in_a_column_of_a_page(spec: str) -> None:
    """A figure as wide as a column has titles of 7 points or more."""
    drawing = layout(fold(analyse(spec).graph))
    assert SIZES["title"] * min(1, COLUMN / drawing.width) >= 7


def test_differences_are_marked() -> None:
    left, right = (fold(analyse(spec).graph) for spec in ("gpt2.arch", "llama.arch:tiny"))
    assert differing(left, left) == (set(), set())
    drawing = side_by_side(left, right)
    assert problems(drawing) == []
    assert "Position Embedding" in _marked(drawing, "left")
    assert "RMS Norm" in _marked(drawing, "right")
    assert "Embedding" not in _marked(drawing, "left") | _marked(drawing, "right")


def test_a_number_of_layers_is_marked_alone() -> None:
    """Not the frame around them; nor does another name of a linear layer count."""
    left, right = (fold(analyse(spec).graph) for spec in ("gpt.arch", "llama.arch"))
    drawing = side_by_side(left, right)
    assert {"GPT", "× 12", "Layer Norm"} <= _marked(drawing, "left")
    assert {"Llama", "× 32", "RMS Norm"} <= _marked(drawing, "right")
    both = _marked(drawing, "left") | _marked(drawing, "right")
    assert not any(each.startswith("Linear") for each in both)
    assert "" not in both  # the frames


def _marked(drawing: Drawing, mark: str) -> set[str]:
    boxes = (s for s in drawing.shapes if isinstance(s, Rect) and s.mark == mark)
    texts = {s.text for s in drawing.shapes if isinstance(s, Label) and s.mark == mark}
    return texts | {" ".join(label.text for label in box.labels) for box in boxes}


def test_what_two_lines_share_is_drawn_once() -> None:
    """The second line begins like the first, leaves it, and meets it again."""
    first = Line(((0, 0), (0, 9), (9, 9)), True, "%1")
    second = Line(((0, 0), (0, 4), (5, 4), (5, 9), (7, 9), (7, 12)), True, "%1")
    assert list(once([first, second])) == [
        first,
        Line(((0, 4), (5, 4), (5, 9)), False, "%1"),
        Line(((7, 9), (7, 12)), True, "%1"),
    ]
    other = replace(second, value="%2")
    assert list(once([first, other])) == [first, other]


def test_a_fork_has_a_dot_where_lines_cross() -> None:
    """The line of %1 forks at (5, 5); that of %2 crosses it."""
    fork = Line(((5, 0), (5, 10)), True, "%1"), Line(((5, 5), (9, 5)), True, "%1")
    crossing = Line(((0, 2), (9, 2)), True, "%2")
    assert list(dots(fork)) == []
    assert list(dots((*fork, crossing))) == [Dot(5, 5, "%1")]
    gpt, detr = (layout(fold(analyse(spec).graph)) for spec in ("gpt.arch", "detr.arch"))
    assert not any(isinstance(shape, Dot) for shape in gpt.shapes)
    assert any(isinstance(shape, Dot) for shape in detr.shapes)
