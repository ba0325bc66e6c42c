"""Shapes -> TikZ: a LaTeX document of one picture.

The document is of the class `standalone`; its `tikzpicture` can be copied into a paper.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from archdsl.figure.drawing import SIZES, Circle, Dot, Drawing, Label, Line, Rect, Shape
from archdsl.figure.svg import INK, LIGHT, MARKS, number

_SPECIAL = {
    **{each: f"\\{each}" for each in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "×": r"$\times$",
    "÷": r"$\div$",
    "−": r"$-$",
    "…": r"\dots{}",
    "–": "--",
}
_SIGNS = {"+": "+", "−": "-", "×": r"\times", "÷": "/"}
_ANCHORS = {"start": "base west", "middle": "base", "end": "base east"}


def tikz(drawing: Drawing) -> str:
    """The text of a .tex file; a picture as large as the SVG."""
    lines = [
        f"% {drawing.title}",
        r"\documentclass[tikz]{standalone}",
        r"\usetikzlibrary{arrows.meta}",
        r"\usepackage[scaled]{helvet}",
        r"\renewcommand{\familydefault}{\sfdefault}",
        *_colours(),
        r"\begin{document}",
        r"\begin{tikzpicture}[x=1bp, y=-1bp, line width=0.8bp, draw=line, text=ink,",
        r"  every node/.style={inner sep=0, outer sep=0},",
        r"  arrow/.style={-{Latex[length=5bp, width=4.4bp]}}]",
        rf"\useasboundingbox (0, 0) rectangle {_point(drawing.width, drawing.height)};",
        *(line for shape in drawing.shapes for line in _shape(shape)),
        r"\end{tikzpicture}",
        r"\end{document}",
    ]
    return "\n".join(lines) + "\n"


def _colours() -> Iterator[str]:
    ink, line, quiet, _ = INK["light"]
    found = {"ink": ink, "line": line, "quiet": quiet, **MARKS["light"]}
    for kind, (fill, border) in LIGHT.items():
        found |= {kind: fill, f"{kind}-border": border}
    for name, colour in found.items():
        if colour != "none":
            yield rf"\definecolor{{{name}}}{{HTML}}{{{colour[1:].upper()}}}"


def _shape(shape: Shape) -> Iterator[str]:
    match shape:
        case Rect(x, y, width, height, kind):
            fill = "" if kind == "frame" else f", fill={kind}"
            radius = 6 if kind == "frame" else 3
            draw = f"draw={shape.mark}, line width=2bp" if shape.mark else f"draw={kind}-border"
            corner = _point(x + width, y + height)
            style = f"{draw}{fill}, rounded corners={radius}bp"
            yield rf"\path[{style}] {_point(x, y)} rectangle {corner};"
            yield from map(_label, shape.labels)
        case Circle(x, y, radius, sign):
            style = f"[draw={shape.mark}, line width=2bp]" if shape.mark else ""
            yield rf"\draw{style} {_point(x, y)} circle[radius={number(radius)}bp];"
            font = r"font=\fontsize{9}{9}\selectfont"
            yield rf"\node[{font}] at {_point(x, y)} {{${_SIGNS[sign]}$}};"
        case Line(points, arrow):
            path = " -- ".join(_point(*point) for point in points)
            yield rf"\draw{'[arrow]' if arrow else ''} {path};"
        case Dot(x, y):
            yield rf"\fill[line] {_point(x, y)} circle[radius=1.7bp];"
        case Label():
            yield _label(shape)
        case _:
            assert_never(shape)


def _label(label: Label) -> str:
    size = SIZES[label.role]
    quiet = "quiet" if label.role in ("note", "type", "heading") else ""
    colour = f", text={label.mark or quiet}" if label.mark or quiet else ""
    weight = r"\bfseries\boldmath" if label.role == "count" else ""
    font = rf"font=\fontsize{{{size:g}}}{{{size:g}}}\selectfont{weight}"
    text = "".join(_SPECIAL.get(character, character) for character in label.text)
    return (
        rf"\node[anchor={_ANCHORS[label.anchor]}, {font}{colour}] "
        rf"at {_point(label.x, label.y)} {{{text}}};"
    )


def _point(*point: float) -> str:
    x, y = point
    return f"({number(x)}, {number(y)})"
