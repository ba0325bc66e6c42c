"""The layout of one body: the lines between its steps, and coordinates for all.

Between two ranks is a gap, and between two lanes a channel. Lines run only through gaps,
channels, and the parts of lanes that belong to their own chain, so that no line meets a box, in
any graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from archdsl.figure.drawing import SIZES, Group, Label, Line, Point, Shape
from archdsl.figure.measure import width
from archdsl.figure.placement import Cell, Laid, Placement, Side, Strand
from archdsl.figure.structure import Body, Frame, Item, Sign

Place: TypeAlias = Callable[[], float]  # a coordinate, known when all cells have their places
LINES = 6.0  # between two parallel lines
ABOVE = 6.0  # between a box and the lines above it
ARROW = 9.0  # room for the arrow below a box
STRIP = 9.0  # room for a type above a box
BETWEEN = 12.0  # the least distance of two lanes


class Tracks:
    """Parallel lines in a gap or a channel; those of one value are one line."""

    def __init__(self) -> None:
        self.spans: dict[str, tuple[float, float]] = {}

    def add(self, net: str, *ends: float) -> None:
        ends = (*ends, *self.spans.get(net, ()))
        self.spans[net] = min(ends), max(ends)

    def levels(self) -> dict[str, int]:
        """The number of each line, so that lines at one number do not meet."""
        found: dict[str, int] = {}
        for net, (low, high) in self.spans.items():
            taken = {
                found[other]
                for other, (a, b) in self.spans.items()
                if other in found and a <= high and low <= b
            }
            found[net] = next(n for n in range(len(found) + 1) if n not in taken)
        return found


class Grid:
    """Lays out a body; `exports` are the values that are needed outside, each with the border
    where it leaves. In a frame the lines of its main chain reach the frame's borders.
    """

    def __init__(
        self,
        body: Body,
        lay: Callable[[Item], Laid],
        exports: Mapping[str, Side],
        framed: bool,
        typed: bool,
        first: Side = "left",
        outer: Side = "right",
    ):
        placement = Placement(body, lay, exports, first, outer)
        self.body = body
        self.typed = typed
        self.framed = framed
        self.cells = placement.cells
        self.strands = placement.strands
        self.extent = placement.extent
        self.laid = placement.laid
        self.last = max((cell.rank for cell in self.cells.values()), default=-1)
        self.lines: list[tuple[str, list[tuple[Place, Place]], bool]] = []
        self.inlets: list[tuple[str, Place]] = []
        self.outlets: list[tuple[str, Place]] = []
        self.gaps: dict[int, Tracks] = {}
        self.channels: dict[int, Tracks] = {}
        self._route(exports, placement.root)
        self._resolve()

    # -- routes --

    def _route(self, exports: Mapping[str, Side], root: Strand) -> None:
        for chain in self.strands:
            if chain.cells:
                self._route_foot(chain)
            for cell in chain.cells:
                if cell.before is not None:
                    self._line(
                        cell.before.item.id,
                        _arrow(cell),
                        self._top(cell.before),
                        self._bottom(cell),
                    )
                for strand in cell.strands:
                    self._route_end(strand, cell)
                for ref in cell.refs:
                    self._route_ref(ref, cell)
                received = {*cell.refs, *(each.cells[-1].item.id for each in cell.strands)}
                for ref in dict.fromkeys(ref for ref, _ in cell.laid.inlets):
                    if ref not in received:
                        self._route_ref(ref, cell)
        for ref, side in exports.items():
            if ref in self.cells:
                self._export(ref, side)
        if self.framed:
            end = (self._lane(0), self._ceiling)
            if root.cells:
                last = root.cells[-1]
                self._line(last.item.id, False, self._top(last), end)
            elif root.foot == self.body.carry:
                self._line(root.foot or "", False, (self._lane(0), self._floor), end)

    def _route_foot(self, strand: Strand) -> None:
        """The line to the first step of a chain."""
        first, foot = strand.cells[0], strand.foot
        if foot is None:
            return
        if foot in self.cells or foot == self.body.carry:
            start, gap, lane = self._source(foot)
            if strand.lane == lane:
                self._line(foot, _arrow(first), start, self._bottom(first))
                return
        else:
            gap, start, lane = first.rank, None, None
        height = self._across(gap, foot, lane, strand.lane)
        if start is None:
            self.inlets.append((foot, height))
            points = [(self._left, height)]
        else:
            points = [start, (start[0], height)]
        points += [(self._lane(strand.lane), height), self._bottom(first)]
        self._line(foot, _arrow(first), *points)

    def _route_end(self, side: Strand, cell: Cell) -> None:
        """The line from the last step of a side chain to its target."""
        last = side.cells[-1]
        start = self._top(last)
        towards: Side = "left" if side.lane < cell.lane else "right"
        adjacent = abs(side.lane - cell.lane) == 1 and towards in cell.laid.free
        if isinstance(cell.item, Sign) and adjacent:
            turn = (start[0], self._middle(cell))
            self._line(last.item.id, True, start, turn, self._edge(cell, towards))
        else:
            self._enter(last.item.id, cell, [start], side.lane, cell.rank, towards)

    def _route_ref(self, ref: str, cell: Cell) -> None:
        """The line from a step elsewhere, or from outside."""
        if ref in self.cells or ref == self.body.carry:
            start, gap, lane = self._source(ref)
            self._enter(ref, cell, [start], lane, gap, "left" if lane < cell.lane else "right")
        else:
            self._enter(ref, cell, [], None, cell.rank, "left")

    def _source(self, ref: str) -> tuple[tuple[Place, Place], int, int]:
        """Where the line of a value begins, the gap above, and the lane."""
        if ref in self.cells:
            cell = self.cells[ref]
            return self._top(cell), cell.rank + 1, cell.lane
        return (self._lane(0), self._floor), 0, 0

    def _enter(
        self,
        ref: str,
        cell: Cell,
        points: list[tuple[Place, Place]],
        lane: int | None,
        gap: int,
        side: Side,
    ) -> None:
        """Lines from a gap to a cell: into its inlets, or below, or at the side of a sign.

        `points` and `lane` are where the line comes from; without them it is from outside.
        """
        inlets = [height for name, height in cell.laid.inlets if name == ref]
        if inlets:
            side = "left"
        elif isinstance(cell.item, Sign) and side not in cell.laid.free:
            (side,) = cell.laid.free
        if inlets and lane is None and self._is_open(cell):
            for height in inlets:
                end = self._inlet(cell, height)
                self.inlets.append((ref, end))
                self._line(ref, False, (self._left, end), (self._border(cell), end))
            return
        channel = cell.lane + (side == "right")
        below = not inlets and not isinstance(cell.item, Sign)
        first = self._across(gap, ref, lane, cell.lane if below else channel - 0.5)
        if lane is None:
            self.inlets.append((ref, first))
        start = [*points, (points[0][0], first)] if points else [(self._left, first)]
        if not below:
            track = self._along(channel, ref, 2 * gap, 2 * cell.rank + 1)
            for end in [self._inlet(cell, height) for height in inlets]:
                turn = (track, first), (track, end)
                self._line(ref, False, *start, *turn, (self._border(cell), end))
            if not inlets:
                turn = (track, first), (track, self._middle(cell))
                self._line(ref, True, *start, *turn, self._edge(cell, side))
            return
        port = self._port(cell, ref, side)
        if gap != cell.rank:
            track = self._along(channel, ref, 2 * gap, 2 * cell.rank)
            second = self._across(cell.rank, ref, channel - 0.5, cell.lane)
            start += [(track, first), (track, second)]
            first = second
        self._line(ref, True, *start, (port, first), (port, self._bottom(cell)[1]))

    def _is_open(self, cell: Cell) -> bool:
        """Whether nothing is between a cell and the left border."""
        spans = [(strand.lane, *self.extent(strand)[:2]) for strand in self.strands[1:]]
        return not any(lane < cell.lane and a <= cell.rank <= b for lane, a, b in spans)

    def _export(self, ref: str, side: Side) -> None:
        start, gap, lane = self._source(ref)
        height = self._across(gap, ref, lane, 1000 if side == "right" else -1000)
        self.outlets.append((ref, height))
        border = self._right if side == "right" else self._left
        self._line(ref, False, start, (start[0], height), (border, height))

    def _line(self, value: str, arrow: bool, *points: tuple[Place, Place]) -> None:
        self.lines.append((value, list(points), arrow))

    # -- places --

    def _across(self, gap: int, net: str, start: float | None, end: float) -> Place:
        """The height of a value's line through a gap, between two lanes; None: the border."""
        tracks = self.gaps.setdefault(gap, Tracks())
        tracks.add(net, -1000 if start is None else start, end)
        return lambda: self.gap_level(gap, net)

    def _along(self, channel: int, net: str, low: int, high: int) -> Place:
        self.channels.setdefault(channel, Tracks()).add(net, low, high)
        return lambda: self.track(channel, net)

    def _port(self, cell: Cell, net: str, side: Side) -> Place:
        ports = cell.ports[side]
        if net not in ports:
            ports.append(net)
        sign = -1 if side == "left" else 1

        def place() -> float:
            step = cell.laid.half / (len(ports) + 1)
            return self.centers[cell.lane] + sign * step * (ports.index(net) + 1)

        return place

    def _lane(self, lane: int) -> Place:
        return lambda: self.centers[lane]

    def _top(self, cell: Cell) -> tuple[Place, Place]:
        return self._lane(cell.lane), lambda: self.bottom(cell) + self._core(cell)[1]

    def _bottom(self, cell: Cell) -> tuple[Place, Place]:
        return self._lane(cell.lane), lambda: self.bottom(cell) + self._core(cell)[0]

    def _middle(self, cell: Cell) -> Place:
        return lambda: self.bottom(cell) + cell.laid.height / 2

    def _core(self, cell: Cell) -> tuple[float, float]:
        """The lowest and the highest point of an item among those beside it."""
        own, height = self.laid[cell.item.id].height, cell.laid.height
        return (height - own) / 2, (height + own) / 2

    def _edge(self, cell: Cell, side: Side) -> tuple[Place, Place]:
        sign = -1 if side == "left" else 1
        return lambda: self.centers[cell.lane] + sign * cell.laid.half, self._middle(cell)

    def _border(self, cell: Cell) -> Place:
        return lambda: self.centers[cell.lane] - cell.laid.anchor

    def _inlet(self, cell: Cell, height: float) -> Place:
        return lambda: self.bottom(cell) + height

    def _floor(self) -> float:
        return 0.0

    def _ceiling(self) -> float:
        return self.height

    def _left(self) -> float:
        return 0.0

    def _right(self) -> float:
        return self.width

    # -- coordinates --

    def _resolve(self) -> None:
        self._resolve_heights()
        self._resolve_widths()
        shapes: list[Shape | Group] = []
        for cell in self.cells.values():
            x, y = self.centers[cell.lane] - cell.laid.anchor, self.bottom(cell)
            shapes.append(Group(x, y, cell.laid.shapes))
            if self.typed and cell.item.type and not isinstance(cell.item, Frame):
                top = y + cell.laid.height
                label = Label(
                    x + cell.laid.anchor + 4, top + 2.5, cell.item.type, "type", "start"
                )
                shapes.append(label)
        lines = [
            Line(_straight([(x(), y()) for x, y in points]), arrow, value)
            for value, points, arrow in self.lines
        ]
        self.result = Laid(
            self.width,
            self.height,
            self.centers[0],
            0.0,
            (*lines, *shapes),
            tuple((ref, height()) for ref, height in self.inlets),
            tuple((ref, height()) for ref, height in self.outlets),
        )

    def _resolve_heights(self) -> None:
        ranks: dict[int, list[Cell]] = {}
        for cell in self.cells.values():
            ranks.setdefault(cell.rank, []).append(cell)
        self.levels = {gap: tracks.levels() for gap, tracks in self.gaps.items()}
        self.rows: list[
            tuple[float, float]
        ] = []  # the lowest point and the middle of the boxes
        self.floors: list[float] = []
        y = 0.0
        for rank in range(self.last + 2):
            self.floors.append(y)
            lines = max(self.levels.get(rank, {}).values(), default=-1) + 1
            outer = rank in (0, self.last + 1)
            y += STRIP if self.typed and rank > 0 else 0
            y += ABOVE + LINES * lines if lines else 0
            y += ARROW if not outer or lines or self.framed else 0
            if rank <= self.last:
                small = [c.laid.height for c in ranks[rank] if not isinstance(c.item, Frame)]
                self.rows.append((y, y + max(small, default=0) / 2))
                y += max(cell.laid.height for cell in ranks[rank])
        self.height = y

    def bottom(self, cell: Cell) -> float:
        low, middle = self.rows[cell.rank]
        return low if isinstance(cell.item, Frame) else middle - cell.laid.height / 2

    def gap_level(self, gap: int, net: str) -> float:
        strip = STRIP if self.typed and gap > 0 else 0
        return self.floors[gap] + strip + ABOVE + LINES * self.levels[gap][net]

    def _resolve_widths(self) -> None:
        lanes = sorted({0, *(cell.lane for cell in self.cells.values())})
        self.tracks = {channel: tracks.levels() for channel, tracks in self.channels.items()}
        self.centers: dict[int, float] = {}
        self.starts: dict[int, float] = {}
        x = 0.0
        for lane in range(lanes[0], lanes[-1] + 1):
            cells = [cell for cell in self.cells.values() if cell.lane == lane]
            x = self._channel(lane, x, lane > lanes[0])
            self.centers[lane] = x + max((cell.laid.anchor for cell in cells), default=0)
            x = self.centers[lane] + max(map(self._right_of, cells), default=0)
        self.width = self._channel(lanes[-1] + 1, x, False)

    def _right_of(self, cell: Cell) -> float:
        """The room that a cell needs right of its line."""
        label = width(cell.item.type, SIZES["type"]) + 6 if self.typed else 0
        return max(cell.laid.width - cell.laid.anchor, label)

    def _channel(self, channel: int, x: float, between: bool) -> float:
        """Where a channel that begins at x ends."""
        self.starts[channel] = x
        lines = max(self.tracks.get(channel, {}).values(), default=-1) + 1
        return x + max(BETWEEN if between else 0, LINES * (lines + between) + 2 * bool(lines))

    def track(self, channel: int, net: str) -> float:
        level = self.tracks[channel][net]
        first = min(self.starts) == channel
        return self.starts[channel] + LINES * (level + (not first)) + 2 * first


def _arrow(cell: Cell) -> bool:
    """Whether a line ends at a cell; in a frame it goes on to the first step."""
    return not isinstance(cell.item, Frame)


def _straight(points: list[Point]) -> tuple[Point, ...]:
    """The points of a line, without those between two others on a straight part."""
    found: list[Point] = []
    for point in points:
        if found and _near(found[-1], point):
            continue
        if len(found) > 1 and (
            found[-2][0] == found[-1][0] == point[0] or found[-2][1] == found[-1][1] == point[1]
        ):
            found.pop()
        found.append(point)
    return tuple(found)


def _near(a: Point, b: Point) -> bool:
    return abs(a[0] - b[0]) < 1e-6 and abs(a[1] - b[1]) < 1e-6
