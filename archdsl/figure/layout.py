"""The tree of a figure -> shapes with coordinates, by recursion.

A box is as wide as its words, a frame as what it holds, and a body is laid out by `grid.py`.
The parts of a model that begin at inputs of their own, such as an encoder, stand in columns
beside the main one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import assert_never

from archdsl.figure.drawing import (
    SIZES,
    Anchor,
    Circle,
    Drawing,
    Group,
    Label,
    Line,
    Point,
    Rect,
    Shape,
    flat,
)
from archdsl.figure.grid import LINES, Grid
from archdsl.figure.junctions import dots, once
from archdsl.figure.measure import width, wrap
from archdsl.figure.placement import Laid, Side
from archdsl.figure.structure import (
    Body,
    Box,
    Chain,
    Figure,
    Frame,
    Item,
    Origin,
    Ref,
    Sign,
    Step,
    Text,
    steps,
)

MARGIN = 8.0
WORDS = 86.0  # the width of a line of words in a box
LEAST = 82.0  # the width of a box
LEADING = 12.0
PADDING = 9.0  # in a frame
RADIUS = 6.5  # of a sign
_START: Anchor = "start"
_END: Anchor = "end"


def layout(figure: Figure, types: bool = False) -> Drawing:
    """The shapes of a figure; with `types`, the size of each value stands on its line."""
    columns = _columns(figure.body)
    laid = _beside(columns, types)
    shapes = [*flat(laid.shapes, MARGIN, MARGIN, laid.height + 2 * MARGIN)]
    shapes = [*once(shapes), *dots(shapes)]
    wide, high = laid.width + 2 * MARGIN, laid.height + 2 * MARGIN
    return Drawing(figure.title, wide, high, tuple(shapes))


# -- items --


def _item(item: Item, types: bool, outer: Side = "right") -> Laid:
    """An item; the count of a stack stands at its side `outer`."""
    match item:
        case Box():
            return _counted(_box(item), item, "", outer)
        case Sign():
            shape = Circle(RADIUS, RADIUS, RADIUS, item.sign, item.id, item.origin)
            return Laid(2 * RADIUS, 2 * RADIUS, RADIUS, RADIUS, (shape,))
        case Text():
            wide = width(item.title, SIZES["word"]) + 8
            id, origin = item.id, item.origin
            label = Label(wide / 2, 3.5, item.title, "word", id=id, origin=origin)
            return Laid(wide, 13, wide / 2, wide / 2, (label,))
        case Frame():
            return _counted(_frame(item, types), item, item.note, outer)
        case _:
            assert_never(item)


def _box(box: Box) -> Laid:
    lines = wrap(box.title, SIZES["title"], WORDS)
    notes = wrap(box.note, SIZES["note"], WORDS + 6) if box.note else ()
    widths = [width(line, SIZES["title"]) for line in lines]
    widths += [width(line, SIZES["note"]) for line in notes]
    wide = max(LEAST, max(widths) + 16)
    height = LEADING * len(lines) + 9.0 * len(notes) + 7
    labels = [
        Label(wide / 2, height - 3.5 - LEADING * (i + 1) + 3, line, "title")
        for i, line in enumerate(lines)
    ]
    labels += [
        Label(wide / 2, 4 + 2.5 + 9.0 * (len(notes) - 1 - i), line, "note")
        for i, line in enumerate(notes)
    ]
    rect = Rect(0, 0, wide, height, box.kind, box.id, box.origin, tuple(labels))
    return Laid(wide, height, wide / 2, wide / 2, (rect,))


def _counted(laid: Laid, item: Box | Frame, note: str, side: Side) -> Laid:
    """Something with a count and a note at a side; the right one if lines enter at the left."""
    side = "right" if laid.inlets else side
    middle = laid.height / 2
    x, anchor = (laid.width + 5, _START) if side == "right" else (-5.0, _END)
    words: list[Label] = []
    if item.count is not None:
        words.append(Label(x, middle - 4, f"× {item.count}", "count", anchor, item.id))
    if note:
        words.append(Label(x, middle - (14 if words else 3), note, "note", anchor))
    room = max((width(each.text, SIZES[each.role]) + 7 for each in words), default=0)
    shift = room if side == "left" else 0.0
    return Laid(
        laid.width + room,
        laid.height,
        laid.anchor + shift,
        laid.half,
        (Group(shift, 0, (*laid.shapes, *words)),),
        laid.inlets,
    )


def _frame(frame: Frame, types: bool) -> Laid:
    """Bodies above each other in a frame, the first kind of layers lowest."""
    laid = [
        Grid(part.body, lambda item: _item(item, types), {}, True, types).result
        for part in frame.parts
    ]
    several = len(laid) > 1
    inner = _parts([part.note for part in frame.parts], laid) if several else laid
    heading = width(frame.title, SIZES["heading"]) + 8 if frame.title else 0
    left = max([heading, *(each.anchor for each in inner)]) + PADDING
    right = max(each.width - each.anchor for each in inner) + PADDING
    shapes: list[Shape | Group] = []
    inlets: list[tuple[str, float]] = []
    y = PADDING - 4
    for number, each in enumerate(inner):
        x = left - each.anchor
        shapes.append(Group(x, y, each.shapes))
        start = 0.0 if number == 0 else y - PADDING
        carry = frame.parts[number].body.carry
        if carry is not None:
            shapes.append(Line(((left, start), (left, y)), False, carry))
        for ref, height in each.inlets:
            inlets.append((ref, y + height))
            shapes.append(Line(((0, y + height), (x, y + height)), False, ref))
        y += each.height + (PADDING if several and number < len(inner) - 1 else 0)
    top = y + (11 if frame.title else 4)
    shapes.append(Line(((left, y), (left, top)), False, frame.id))
    wide = left + right
    heads = (Label(5, top - 9.5, frame.title, "heading", "start"),) if frame.title else ()
    rect = Rect(0, 0, wide, top, "frame", frame.id, frame.origin, heads)
    return Laid(wide, top, left, min(left, right), (rect, *shapes), tuple(inlets))


def _parts(notes: list[str], laid: list[Laid]) -> list[Laid]:
    """The bodies of several kinds of layers, each in a frame with its note; all as wide."""
    pad = 5.0
    left = max(each.anchor + pad for each in laid)
    left = max([left, *(width(note, SIZES["heading"]) + 8 for note in notes)])
    right = max(each.width - each.anchor for each in laid) + pad
    found = []
    for note, each in zip(notes, laid, strict=True):
        top, x = each.height + 11, left - each.anchor
        heading = Label(5, top - 9.5, note, "heading", "start")
        frame = Rect(0, 0, left + right, top, "frame", "", Origin(), (heading,))
        inside: list[Shape | Group] = [Group(x, 0, each.shapes)]
        inside += [Line(((0, y), (x, y)), False, ref) for ref, y in each.inlets]
        inside.append(Line(((left, each.height), (left, top)), False, note))
        found.append(Laid(left + right, top, left, 0, (frame, *inside), each.inlets))
    return found


# -- columns --


def _columns(body: Body) -> list[Body]:
    """The columns of a model, the main one last.

    A side chain is a column if it begins at an input of its own and holds a stack.
    """
    found: list[Chain] = []

    def without(chain: Chain) -> Chain:
        return Chain(chain.foot, tuple(map(shortened, chain.steps)))

    def shortened(step: Step) -> Step:
        sides: list[Chain | Ref] = []
        for side in step.sides:
            if not isinstance(side, Chain):
                sides.append(side)
            elif _is_column(side):
                found.append(without(side))
                sides.append(Ref(side.steps[-1].item.id))
            else:
                sides.append(without(side))
        return Step(step.item, tuple(sides))

    main = without(body.chain)
    others: list[Chain] = []
    for chain in map(without, body.others):
        (found if _is_column(chain) else others).append(chain)
    columns = [*found, main]
    homes = {step.item.id: column for column in columns for step in steps(column)}
    placed: dict[int, list[Chain]] = {id(column): [] for column in columns}
    for chain in others:
        home = homes.get(chain.foot or "", main)
        placed[id(home)].append(chain)
        homes |= {step.item.id: home for step in steps(chain)}
    return [Body(None, column, tuple(placed[id(column)])) for column in columns]


def _is_column(chain: Chain) -> bool:
    inside = [step.item for step in steps(chain)]
    stacks = (isinstance(item, Frame | Box) and item.count is not None for item in inside)
    return chain.foot is None and any(stacks)


def _sides(number: int, count: int) -> tuple[Side, Side]:
    """The sides of a column for the first box beside a step, and for counts and outputs.

    In several columns both are outside, to keep the columns close.
    """
    if count == 1:
        return "left", "right"
    return ("right", "right") if number == count - 1 else ("left", "left")


def _beside(columns: list[Body], types: bool) -> Laid:
    """Columns from left to right. A value of another column comes through the space between
    two columns that are neighbours, else below all columns."""
    sides = [_sides(number, len(columns)) for number in range(len(columns))]

    @cache
    def lay(outer: Side) -> Callable[[Item], Laid]:
        return cache(lambda item: _item(item, types, outer))

    homes = {
        step.item.id: number
        for number, body in enumerate(columns)
        for chain in (body.chain, *body.others)
        for step in steps(chain)
    }
    needs = [
        [ref for ref, _ in Grid(body, lay(outer), {}, False, types).result.inlets]
        for body, (_, outer) in zip(columns, sides, strict=True)
    ]
    exports: list[dict[str, Side]] = [{} for _ in columns]
    for refs in needs:
        for ref in refs:
            home = homes[ref]
            exports[home].setdefault(ref, "right" if home < len(columns) - 1 else "left")
    laid = [
        Grid(body, lay(outer), leaving, False, types, first, outer).result
        for body, leaving, (first, outer) in zip(columns, exports, sides, strict=True)
    ]
    # The lines that run up and down at the left of each column, and those below all columns.
    tracks: list[list[str]] = [[] for _ in range(len(columns))]
    low: list[str] = []
    for number, refs in enumerate(needs):
        for ref in dict.fromkeys(refs):
            out = homes[ref] + (exports[homes[ref]][ref] == "right")
            tracks[number] += [] if ref in tracks[number] else [ref]
            if out != number:
                tracks[out] += [] if ref in tracks[out] else [ref]
                low += [] if ref in low else [ref]
    floor = LINES * (len(low) + 1) if low else 0.0
    shapes: list[Shape | Group] = []
    x, starts, lefts = 0.0, [], []
    for number, each in enumerate(laid):
        starts.append(x)
        x += max(12.0 if number else 0.0, LINES * (len(tracks[number]) + bool(number)))
        lefts.append(x)
        x += each.width
    height = floor + max(each.height for each in laid)

    def track(number: int, ref: str) -> float:
        return starts[number] + LINES * (tracks[number].index(ref) + bool(number))

    for number, each in enumerate(laid):
        shapes.append(Group(lefts[number], floor, each.shapes))
        for ref, y in each.inlets:
            home = homes[ref]
            side = exports[home][ref]
            (leaves,) = {h for name, h in laid[home].outlets if name == ref}
            out = home + (side == "right")
            edge = lefts[home] + (laid[home].width if side == "right" else 0)
            points: list[Point] = [(edge, floor + leaves), (track(out, ref), floor + leaves)]
            if out != number:
                under = LINES * low.index(ref)
                points += [(track(out, ref), under), (track(number, ref), under)]
            points += [(track(number, ref), floor + y), (lefts[number], floor + y)]
            shapes.append(Line(tuple(points), False, ref))
    return Laid(x, height, 0, 0, tuple(shapes))
