"""The parts of a body -> chains: what a step receives from below, and what from its sides."""

from __future__ import annotations

from collections.abc import Sequence

from archdsl.figure.structure import Body, Chain, Item, Ref, Step, Text
from archdsl.frozen import Frozen


class Folded(Frozen):
    """Operators drawn as one item, which makes the value of its id; `uses` are the values that
    it receives. `main` is the one from the step before, if the item says it. `beside` are
    chains of its own. In an `ordered` operator the first tensor comes before the others."""

    item: Item
    uses: tuple[str, ...] = ()
    main: str | None = None
    beside: tuple[Chain, ...] = ()
    ordered: bool = False


class Chains:
    """Puts the parts of a body on chains."""

    def __init__(self, parts: Sequence[Folded], carry: str | None):
        self.carry = carry
        self.makers = {part.item.id: part for part in parts}
        self.placed: set[str] = set()
        self.before: dict[str, set[str]] = {}  # what each value depends on
        for part in parts:
            self.before[part.item.id] = {
                ref for use in part.uses for ref in (use, *self.before.get(use, ()))
            }
        sources = {
            part.item.id for part in parts if isinstance(part.item, Text) and not part.uses
        }
        self.live = sources if carry is None else {carry, *sources}

    def body(self, results: tuple[str, ...]) -> Body:
        """A chain to the result that depends on most parts, and chains to the others."""
        order = sorted(results, key=lambda ref: -len(self.before.get(ref, ())))
        first, *others = [self.chain(ref) for ref in dict.fromkeys(order)]
        return Body(self.carry, first, tuple(chain for chain in others if chain.steps))

    def chain(self, result: str) -> Chain:
        """The steps from a value that is drawn already, or from nothing, to a result."""
        found: list[tuple[Folded, str | None]] = []
        ref: str | None = result
        while ref in self.makers and ref not in self.placed:
            part = self.makers[ref]
            self.placed.add(ref)
            ref = self.main(part)
            found.append((part, ref))
        steps = [Step(part.item, self.sides(part, main)) for part, main in reversed(found)]
        return Chain(ref, tuple(steps))

    def sides(self, part: Folded, main: str | None) -> tuple[Chain | Ref, ...]:
        """What a part receives besides its main value, in order."""
        found: list[Chain | Ref] = [*part.beside]
        for ref in part.uses:
            if ref != main:
                chain = self.chain(ref)
                found.append(chain if chain.steps else Ref(ref))
        return tuple(found)

    def main(self, part: Folded) -> str | None:
        """The value that a part receives from the step before it.

        One that depends on the input of the body goes before one that does not. If no tensor
        is the first by its meaning, the one that takes most steps is: a residual connection is
        the side of an add.
        """
        if part.main is not None or not part.uses:
            return part.main
        found = [ref for ref in part.uses if self._is_live(ref)] or list(part.uses)
        if not part.ordered:
            return max(found, key=lambda ref: len(self.before.get(ref, ())))
        return found[0]

    def _is_live(self, ref: str) -> bool:
        return ref in self.live or not self.live.isdisjoint(self.before.get(ref, ()))
