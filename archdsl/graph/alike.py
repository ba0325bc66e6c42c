"""Whether two layers of a stack compute the same."""

from __future__ import annotations

from collections.abc import Mapping

from archdsl.graph.nodes import Apply, Body, Mixture, Node, Scan, Stack


def alike(
    left: Body, right: Body, outer: Mapping[str, str] | None = None, typed: bool = True
) -> bool:
    """Whether two bodies are equal but for the ids of their values.

    `outer` has the value on the right for each value on the left from outside, where they
    differ. If not `typed`, the types of values may differ, such as the lengths of sequences.
    """
    return _Comparison(dict(outer or {}), typed).bodies(left, right)


class _Comparison:
    """`ids` has the value on the right for each one on the left."""

    def __init__(self, ids: dict[str, str], typed: bool):
        self.ids, self.typed = ids, typed

    def bodies(self, left: Body, right: Body) -> bool:
        self.ids[left.carry] = right.carry
        return (
            len(left.nodes) == len(right.nodes)
            and (left.carry_type == right.carry_type or not self.typed)
            and all(self.nodes(*pair) for pair in zip(left.nodes, right.nodes, strict=True))
            and self.value(left.result) == right.result
        )

    def value(self, id: str) -> str:
        return self.ids.get(id, id)

    def nodes(self, left: Node, right: Node) -> bool:
        if self.typed and left.type != right.type:
            return False
        match left, right:
            case Apply(), Apply():
                same = (left.op, left.attrs) == (right.op, right.attrs)
                inputs = tuple((param, self.value(ref)) for param, ref in left.inputs)
                same = same and inputs == right.inputs and left.path == right.path
            case Stack(), Stack():
                same = (left.count, left.kinds) == (right.count, right.kinds)
                same = same and (left.path, left.tied) == (right.path, right.tied)
                same = same and self.value(left.input) == right.input
                pairs = zip(left.bodies, right.bodies, strict=True) if same else ()
                same = same and all(self.bodies(*pair) for pair in pairs)
            case Mixture(), Mixture():
                same = (left.count, left.chosen) == (right.count, right.chosen)
                same = same and left.path == right.path
                refs = self.value(left.input), self.value(left.gates)
                same = same and refs == (right.input, right.gates)
                same = same and self.bodies(left.inside, right.inside)
            case Scan(), Scan():
                same = self.scans(left, right)
            case _:
                return False
        self.ids[left.id] = right.id
        return same

    def scans(self, left: Scan, right: Scan) -> bool:
        taken = [self.value(each.of) for each in left.takes]
        same = taken == [each.of for each in right.takes] and left.path == right.path
        same = same and (left.carry_type == right.carry_type or not self.typed)
        same = same and (left.start and self.value(left.start)) == right.start
        if not same or len(left.body) != len(right.body):
            return False
        self.ids[left.carry] = right.carry
        self.ids |= {a.id: b.id for a, b in zip(left.takes, right.takes, strict=True)}
        inside = all(self.nodes(*pair) for pair in zip(left.body, right.body, strict=True))
        ends = self.value(left.result), self.value(left.output)
        return inside and ends == (right.result, right.output)
