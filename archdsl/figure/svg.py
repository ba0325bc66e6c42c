"""Shapes -> SVG, with colours for light and dark pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from pathlib import PurePath
from typing import Literal, NamedTuple, TypeAlias, assert_never
from urllib.parse import quote

from archdsl.diagnostics import Source, Span
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
    head = ["<style>", *style(theme), "</style>"]
    if page or theme == "dark":
        ground = INK["dark" if theme == "dark" else "light"][3]
        size = f'width="{number(drawing.width)}" height="{number(drawing.height)}"'
        head.append(f'<rect {size} fill="{ground}"/>')
    return element(drawing, head)


def element(
    drawing: Drawing,
    head: Iterable[str] = (),
    names: Mapping[str, str] | None = None,
    opens: Mapping[str, str] | None = None,
) -> str:
    """The SVG, with the lines of `head` before its shapes.

    `names` has the names of files by their paths, those of `file_names` by default. A box whose
    id is in `opens` has the name there as `data-opens`.
    """
    wide, high = number(drawing.width), number(drawing.height)
    about = _About(names or file_names(span.source for span in spans(drawing)), opens or {})
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="archdsl" viewBox="0 0 {wide} {high}" '
        f'width="{wide}pt" height="{high}pt" role="img" font-family="{FONT}">',
        f"<title>{escape(drawing.title)}</title>",
        *head,
        *(line for shape in drawing.shapes for line in _shape(shape, about)),
    ]
    return "\n".join([*lines, "</svg>"]) + "\n"


class _About(NamedTuple):
    """What an SVG says of its boxes: the names of files by their paths, and what boxes open."""

    names: Mapping[str, str]
    opens: Mapping[str, str]

    def group(self, shape: Rect | Circle | Label) -> str:
        """The start of the group of a box, with its lines: `gpt.arch:12 blocks.arch:5-6`."""
        origin = shape.origin
        found = {"id": shape.id, "path": origin.path}
        if origin.span is not None:
            found |= {"file": self.name(origin.span), "line": str(origin.span.line)}
            lines = " ".join(dict.fromkeys(map(self.lines, origin.spans)))
            alone = f"{quote(found['file'])}:{found['line']}"
            found |= {"lines": lines} if lines != alone else {}
        if isinstance(shape, Rect) and shape.kind != "frame":
            found["opens"] = self.opens.get(shape.id, "")
        data = " ".join(f'data-{k}="{escape(value)}"' for k, value in found.items() if value)
        return f"<g {data}>"

    def name(self, span: Span) -> str:
        return self.names[span.source.path]

    def lines(self, span: Span) -> str:
        more = f"-{span.last_line}" if span.last_line > span.line else ""
        return f"{quote(self.name(span))}:{span.line}{more}"

    def tip(self, origin: Origin, title: str) -> str:
        """What a browser shows when the pointer is on a shape."""
        lines = [title] if title else []
        lines += [f"path: {origin.path}"] if origin.path else []
        lines += [f"{name}: {value}" for name, value in origin.facts]
        if origin.span is not None:
            lines.append(f"{self.name(origin.span)}, line {origin.span.line}")
        return f"<title>{escape(chr(10).join(lines))}</title>" if lines else ""


def spans(drawing: Drawing) -> Iterator[Span]:
    """The parts of specs that the boxes of a drawing come from."""
    for shape in drawing.shapes:
        if isinstance(shape, Rect | Circle | Label):
            yield from shape.origin.spans


def file_names(sources: Iterable[Source]) -> dict[str, str]:
    """A name for each file by its path: as many last parts as tell it from the others.

    >>> file_names([Source("specs/gpt.arch", ""), Source("a/b.arch", ""), Source("b.arch", "")])
    {'specs/gpt.arch': 'gpt.arch', 'a/b.arch': 'a/b.arch', 'b.arch': 'b.arch'}
    """
    paths = dict.fromkeys(source.path for source in sources)
    ends = {path: ["/".join(PurePath(path).parts[-n:]) for n in (1, 2, 3)] for path in paths}
    count = Counter(end for found in ends.values() for end in {*found})
    return {p: next((e for e in found if count[e] == 1), p) for p, found in ends.items()}


def style(theme: Theme) -> Iterator[str]:
    """The rules for this figure alone, also if it is a part of a page."""
    for role, size in SIZES.items():
        weight = "; font-weight: bold" if role == "count" else ""
        yield f".archdsl .{role} {{ font-size: {size:g}px{weight} }}"
    yield ".archdsl .line { fill: none; stroke-width: 0.9; stroke-linejoin: round }"
    yield ".archdsl .box { stroke-width: 0.8 }"
    yield from _colours("dark" if theme == "dark" else "light")
    if theme == "auto":
        yield "@media screen and (prefers-color-scheme: dark) {"  # paper is light
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
        rules[f"text.{mark}"] = f"stroke: none; fill: {colour}"
    yield from (f".archdsl {which} {{ {rule} }}" for which, rule in rules.items())


def _classes(*names: str) -> str:
    return " ".join(name for name in names if name)


def _shape(shape: Shape, about: _About) -> Iterator[str]:
    match shape:
        case Rect():
            yield about.group(shape)
            yield about.tip(shape.origin, " ".join(each.text for each in shape.labels))
            place = f'x="{number(shape.x)}" y="{number(shape.y)}"'
            size = f'width="{number(shape.width)}" height="{number(shape.height)}"'
            radius = 6 if shape.kind == "frame" else 3
            classes = _classes("box", shape.kind, shape.mark)
            yield f'<rect class="{classes}" {place} {size} rx="{radius}"/>'
            yield from map(_label, shape.labels)
            yield "</g>"
        case Circle(x, y, radius, sign):
            yield about.group(shape)
            yield about.tip(shape.origin, sign)
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
        case Label() if shape.origin.facts:
            yield about.group(shape)
            yield about.tip(shape.origin, shape.text)
            yield _label(shape)
            yield "</g>"
        case Label():
            yield _label(shape)
        case _:
            assert_never(shape)


def _label(label: Label) -> str:
    anchor = f' text-anchor="{label.anchor}"' if label.anchor != "start" else ""
    place = f'x="{number(label.x)}" y="{number(label.y)}"'
    classes = _classes(label.role, label.mark)
    return f'<text class="{classes}" {place}{anchor}>{escape(label.text)}</text>'


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
