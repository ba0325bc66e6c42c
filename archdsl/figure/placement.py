"""The steps of a body on a grid: a rank and a lane for each.

The rank of a step is the longest way to it. The main chain has lane 0, each side chain another
lane, which it owns from its foot to the step that it ends in.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from archdsl.figure.drawing import Group, Line, Shape
from archdsl.figure.structure import (
    Body,
    Box,
    Chain,
    Frame,
    Item,
    Ref,
    Sign,
    Step,
    Text,
    body_steps,
)
from archdsl.frozen import Frozen

Side: TypeAlias = Literal["left", "right"]
APART = 15.0  # a box and the one beside it


class Laid(Frozen):
    """Something drawn, from its corner (0, 0).

    The main line comes in below and goes out above at x = `anchor`; other lines may come in
    below within `half` of it. `inlets` are the values from outside that it receives at its left
    border, each at a height, `outlets` those that it gives at its right or left border. A sign
    receives other values from the sides that are `free`.
    """

    width: float
    height: float
    anchor: float
    half: float
    shapes: tuple[Shape | Group, ...]
    inlets: tuple[tuple[str, float], ...] = ()
    outlets: tuple[tuple[str, float], ...] = ()
    free: tuple[Side, ...] = ("right", "left")


@dataclass
class Cell:
    """A step in the grid."""

    item: Item
    laid: Laid
    strand: Strand
    before: Cell | None
    refs: tuple[str, ...]
    strands: list[Strand] = field(default_factory=list)
    rank: int = 0
    ports: dict[Side, list[str]] = field(default_factory=lambda: {"left": [], "right": []})

    @property
    def lane(self) -> int:
        return self.strand.lane


@dataclass(eq=False)
class Strand:
    """A chain in the grid, and the cell that it ends in."""

    foot: str | None
    target: Cell | None
    cells: list[Cell] = field(default_factory=list)
    lane: int = 0


class Placement:
    """The cells of a body.

    `lay` draws an item, `exports` are the values that are needed outside, the first box beside
    a step is at its side `first`, and an output at its side `outer`.
    """

    def __init__(
        self,
        body: Body,
        lay: Callable[[Item], Laid],
        exports: Collection[str],
        first: Side,
        outer: Side,
    ):
        self.body = body
        self.outer = outer
        self.sides: tuple[Side, Side] = (
            ("left", "right") if first == "left" else ("right", "left")
        )
        self.cells: dict[str, Cell] = {}
        self.strands: list[Strand] = []
        self.laid = {step.item.id: lay(step.item) for step in body_steps(body)}
        # The values that other steps than the next one receive.
        self.wanted = {
            *exports,
            *(ref for laid in self.laid.values() for ref, _ in laid.inlets),
        }
        self.wanted |= {chain.foot for chain in body.others if chain.foot}
        for side in (side for step in body_steps(body) for side in step.sides):
            ref = side.id if isinstance(side, Ref) else side.foot
            self.wanted |= {ref} if ref else set()
        # Outputs that stand beside the step that gives them.
        self.given: dict[str, Chain] = {}
        for chain in body.others:
            if self._is_given_beside(chain, exports):
                self.given.setdefault(chain.foot or "", chain)
        self.root = self._collect(body.chain, None)
        for chain in body.others:
            if chain not in self.given.values():
                self._collect(chain, None)
        self._assign_lanes()

    # -- cells and ranks --

    def _collect(self, chain: Chain, target: Cell | None) -> Strand:
        strand = Strand(chain.foot, target)
        self.strands.append(strand)
        before: Cell | None = None
        for step in chain.steps:
            beside = [side for side in step.sides if self._stands_beside(side, step)][:2]
            laid = self._with_beside(step.item.id, beside)
            refs = [side.id for side in step.sides if isinstance(side, Ref)]
            cell = Cell(step.item, laid, strand, before, tuple(refs))
            strand.cells.append(cell)
            below = [
                self.cells[ref] for ref in (*refs, *dict(laid.inlets)) if ref in self.cells
            ]
            if before is not None:
                below.append(before)
            elif chain.foot in self.cells:
                below.append(self.cells[chain.foot])
            for side in step.sides:
                if isinstance(side, Chain) and side not in beside:
                    inner = self._collect(side, cell)
                    cell.strands.append(inner)
                    below.append(inner.cells[-1])
            # The side chains may have values that the frame uses.
            below += [self.cells[ref] for ref, _ in laid.inlets if ref in self.cells]
            cell.rank = max((each.rank + 1 for each in below), default=0)
            self.cells[step.item.id] = before = cell
            for inner in cell.strands:
                self._raise(inner, cell)
        return strand

    def _raise(self, strand: Strand, target: Cell) -> None:
        """Moves a side chain that begins by itself up to its target."""
        alone = all(
            not cell.strands and not cell.refs and cell.item.id not in self.wanted
            for cell in strand.cells
        )
        if strand.foot is None and alone:
            more = target.rank - 1 - strand.cells[-1].rank
            for cell in strand.cells:
                cell.rank += more

    def _stands_beside(self, side: Chain | Ref, step: Step) -> bool:
        """Whether a side chain is only a box that can stand beside its target."""
        return (
            isinstance(side, Chain)
            and side.foot is None
            and len(side.steps) == 1
            and not side.steps[0].sides
            and isinstance(side.steps[0].item, Box | Text)
            and side.steps[0].item.id not in self.wanted
            and not isinstance(step.item, Frame)
            and not is_counted(step.item)
        )

    def _is_given_beside(self, chain: Chain, exports: Collection[str]) -> bool:
        """Whether a chain is only the name of an output of a box that leads elsewhere, too."""
        makers = {step.item.id: step.item for step in body_steps(self.body)}
        item = makers.get(chain.foot or "")
        last = self.body.chain.steps[-1:]
        return (
            len(chain.steps) == 1
            and isinstance(chain.steps[0].item, Text)
            and isinstance(item, Box)
            and not is_counted(item)
            and (item.id in exports or item not in [step.item for step in last])
        )

    def _with_beside(self, id: str, beside: list[Chain | Ref]) -> Laid:
        """An item with the boxes at its sides."""
        laid = self.laid[id]
        sides = list(self.sides)
        for chain in beside:
            assert isinstance(chain, Chain)
            laid = self._joined(laid, id, chain.steps[0].item.id, sides.pop(0), False)
        if id in self.given and sides:
            side = self.outer if self.outer in sides else sides.pop()
            laid = self._joined(laid, id, self.given[id].steps[0].item.id, side, True)
        return laid

    def _joined(self, laid: Laid, id: str, beside: str, side: Side, outwards: bool) -> Laid:
        """An item and a box at one of its sides, with the line between them."""
        other = self.laid[beside]
        height = max(laid.height, other.height)
        reach = laid.half + APART + other.width
        anchor = laid.anchor if side == "right" else max(laid.anchor, reach)
        x = anchor + laid.half + APART if side == "right" else anchor - reach
        wide = anchor + max(laid.width - laid.anchor, reach if side == "right" else 0)
        shift = anchor - laid.anchor
        own = Group(shift, (height - laid.height) / 2, laid.shapes)
        theirs = Group(x, (height - other.height) / 2, other.shapes)
        near = anchor + laid.half * (1 if side == "right" else -1)
        far = x if side == "right" else x + other.width
        ends = (near, far) if outwards else (far, near)
        start, end = ((each, height / 2) for each in ends)
        line = Line((start, end), True, id if outwards else beside)
        free = tuple(each for each in laid.free if each != side)
        return Laid(wide, height, anchor, laid.half, (own, theirs, line), (), (), free)

    # -- lanes --

    def _assign_lanes(self) -> None:
        taken: dict[int, list[tuple[int, int]]] = {}
        for strand in self.strands:
            if strand is self.root:
                continue
            low, high, base = self.extent(strand)
            outward = -1 if base < 0 or (base == 0 and strand.target is not None) else 1
            lane = base
            for distance in range(1, len(self.strands) + 1):
                near, far = base + outward * distance, base - outward * distance
                both = (near, far) if base == 0 else (near,)
                found = [
                    each
                    for each in both
                    if all(high + 1 < a or b < low - 1 for a, b in taken.get(each, ()))
                ]
                if found:
                    lane = found[0]
                    break
            strand.lane = lane
            taken.setdefault(lane, []).append((low, high))

    def extent(self, strand: Strand) -> tuple[int, int, int]:
        """The ranks that a side chain needs in its lane, and the lane of what it belongs to."""
        first, last = strand.cells[0].rank, strand.cells[-1].rank
        foot = self.cells.get(strand.foot or "")
        low = first if foot is None else foot.rank + 1
        low = 0 if strand.foot is not None and strand.foot == self.body.carry else low
        if strand.target is None:
            return low, last, foot.lane if foot else 0
        sideways = isinstance(strand.target.item, Sign)
        return low, max(last, strand.target.rank - (not sideways)), strand.target.lane


def is_counted(item: Item) -> bool:
    """Whether a count stands at the right of an item."""
    return isinstance(item, Box | Frame) and item.count is not None
