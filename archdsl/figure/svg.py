"""Shapes -> SVG, with colours for light and dark pages."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import PurePath
from typing import Literal, TypeAlias, assert_never

from archdsl.figure.drawing import SIZES, Circle, Dot, Drawing, Label, Line, Rect, Shape
from archdsl.figure.structure import Origin

Theme: TypeAlias = Literal["auto", "light", "dark"]

# The fills and borders of the kinds of boxes.
LIGHT = {
    "attention": ("#fde0bd", "#c9853a"),
    "feed": ("#c9e4f1", "#4a90b8"),
    "norm": ("#f3f3c1", "#a8a442"),
    "embed": ("#f9dcdf", "#c5707b"),
    "linear": ("#dcdcf2", "#7a7abf"),
    "activation": ("#d3ead4", "#5ea363"),
    "plain": ("#ececec", "#909090"),
    "other": ("#e6eeec", "#7f9a94"),
    "frame": ("none", "#8a8a8a"),
}
DARK = {
    "attention": ("#6b431a", "#d99a55"),
    "feed": ("#1d4e66", "#6db3d8"),
    "norm": ("#53511a", "#bdb95a"),
    "embed": ("#662f37", "#d88a94"),
    "linear": ("#3a3a6e", "#9a9ada"),
    "activation": ("#27552b", "#7cc082"),
    "plain": ("#3f3f3f", "#9b9b9b"),
    "other": ("#33443f", "#93aea8"),
    "frame": ("none", "#8f8f8f"),
}
# Of texts, lines, and quiet texts; and of the page.
INK = {
    "light": ("#1a1a1a", "#333333", "#555555", "#ffffff"),
    "dark": ("#f2f2f2", "#c8c8c8", "#c8c8c8", "#16181c"),
}
# Of what only one of two models has.
MARKS = {
    "light": {"left": "#c62828", "right": "#1b7f37"},
    "dark": {"left": "#ff7b72", "right": "#56d364"},
}
FONT = "Helvetica, Arial, 'Liberation Sans', 'Nimbus Sans', sans-serif"


def svg(drawing: Drawing, theme: Theme = "auto", page: bool = False) -> str:
    """The text of an SVG.

    With `auto` it follows the light or dark scheme of the page around it; with `page` it has a
    ground of its own.
    """
    wide, high = number(drawing.width), number(drawing.height)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="archdsl" viewBox="0 0 {wide} {high}" '
        f'width="{wide}pt" height="{high}pt" role="img" font-family="{FONT}">',
        f"<title>{escape(drawing.title)}</title>",
        "<style>",
        *_style(theme),
        "</style>",
    ]
    if page or theme == "dark":
        ground = INK["dark" if theme == "dark" else "light"][3]
        lines.append(f'<rect width="{wide}" height="{high}" fill="{ground}"/>')
    for shape in drawing.shapes:
        lines += _shape(shape)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _style(theme: Theme) -> Iterator[str]:
    """The rules for this figure alone, also if it is a part of a page."""
    for role, size in SIZES.items():
        weight = "; font-weight: bold" if role == "count" else ""
        yield f".archdsl .{role} {{ font-size: {size:g}px{weight} }}"
    yield ".archdsl .line { fill: none; stroke-width: 0.9; stroke-linejoin: round }"
    yield ".archdsl .box { stroke-width: 0.8 }"
    yield from _colours("dark" if theme == "dark" else "light")
    if theme == "auto":
        yield "@media (prefers-color-scheme: dark) {"
        yield from _colours("dark")
        yield "}"


def _colours(theme: Literal["light", "dark"]) -> Iterator[str]:
    ink, line, quiet, _ = INK[theme]
    rules = {
        "text": f"fill: {ink}",
        **dict.fromkeys((".note", ".type", ".heading"), f"fill: {quiet}"),
        ".line": f"stroke: {line}",
        ".head": f"fill: {line}",
        ".sign": f"fill: none; stroke: {line}; stroke-width: 0.9",
    }
    for kind, (fill, border) in (LIGHT if theme == "light" else DARK).items():
        rules[f".{kind}"] = f"fill: {fill}; stroke: {border}"
    for mark, colour in MARKS[theme].items():
        rules[f".{mark}"] = f"stroke: {colour}; stroke-width: 2"
    yield from (f".archdsl {which} {{ {rule} }}" for which, rule in rules.items())


def _classes(*names: str) -> str:
    return " ".join(name for name in names if name)


def _shape(shape: Shape) -> Iterator[str]:
    match shape:
        case Rect():
            yield f"<g {_data(shape.id, shape.origin)}>"
            yield _tip(shape.origin, " ".join(each.text for each in shape.labels))
            place = f'x="{number(shape.x)}" y="{number(shape.y)}"'
            size = f'width="{number(shape.width)}" height="{number(shape.height)}"'
            radius = 6 if shape.kind == "frame" else 3
            classes = _classes("box", shape.kind, shape.mark)
            yield f'<rect class="{classes}" {place} {size} rx="{radius}"/>'
            yield from map(_label, shape.labels)
            yield "</g>"
        case Circle(x, y, radius, sign):
            yield f"<g {_data(shape.id, shape.origin)}>"
            yield _tip(shape.origin, sign)
            place = f'cx="{number(x)}" cy="{number(y)}" r="{radius:g}"'
            yield f'<circle class="{_classes("sign", shape.mark)}" {place}/>'
            yield f'<path class="line" d="{_sign(x, y, radius * 0.55, sign)}"/>'
            yield "</g>"
        case Line(points, arrow):
            end = points[-1]
            if arrow:
                yield f'<path class="head" d="{_head(points[-2], end)}"/>'
            path = " L".join(f"{number(x)} {number(y)}" for x, y in points)
            yield f'<path class="line" d="M{path}"/>'
        case Dot(x, y):
            yield f'<circle class="head" cx="{number(x)}" cy="{number(y)}" r="1.7"/>'
        case Label():
            yield _label(shape)
        case _:
            assert_never(shape)


def _label(label: Label) -> str:
    anchor = f' text-anchor="{label.anchor}"' if label.anchor != "start" else ""
    place = f'x="{number(label.x)}" y="{number(label.y)}"'
    return f'<text class="{label.role}" {place}{anchor}>{escape(label.text)}</text>'


def _data(id: str, origin: Origin) -> str:
    found = {"id": id, "path": origin.path}
    if origin.span is not None:
        found |= {"file": PurePath(origin.span.source.path).name, "line": str(origin.span.line)}
    return " ".join(f'data-{key}="{escape(value)}"' for key, value in found.items() if value)


def _tip(origin: Origin, title: str) -> str:
    """What a browser shows when the pointer is on a shape."""
    lines = [title] if title else []
    lines += [f"path: {origin.path}"] if origin.path else []
    lines += [f"{name}: {value}" for name, value in origin.facts]
    if origin.span is not None:
        lines.append(f"{PurePath(origin.span.source.path).name}, line {origin.span.line}")
    return f"<title>{escape(chr(10).join(lines))}</title>" if lines else ""


def _sign(x: float, y: float, r: float, sign: str) -> str:
    """The strokes of a sign around a point."""
    flat, upright = (
        f"M{number(x - r)} {number(y)} h{number(2 * r)}",
        f"M{number(x)} {number(y - r)} v{number(2 * r)}",
    )
    d = r * 0.7
    match sign:
        case "+":
            return f"{flat} {upright}"
        case "−":
            return flat
        case "×":
            return (
                f"M{number(x - d)} {number(y - d)} l{number(2 * d)} {number(2 * d)} "
                f"M{number(x + d)} {number(y - d)} l{number(-2 * d)} {number(2 * d)}"
            )
        case _:
            return f"M{number(x + d)} {number(y - d)} L{number(x - d)} {number(y + d)}"


def _head(before: tuple[float, float], end: tuple[float, float]) -> str:
    """A small triangle that points from one point to another, along an axis."""
    (a, b), (x, y) = before, end
    dx, dy = (x > a) - (x < a), (y > b) - (y < b)
    back = [(x - 5 * dx + 2.2 * s * dy, y - 5 * dy + 2.2 * s * dx) for s in (1, -1)]
    return "M" + " L".join(f"{number(p)} {number(q)}" for p, q in (end, *back)) + " Z"


def number(value: float) -> str:
    """A coordinate, to a hundredth of a point."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
