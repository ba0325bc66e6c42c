"""Where the items of a figure come from: their paths and lines, and what they cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import takewhile
from math import prod

from archdsl.describe.block_model import ALONE
from archdsl.diagnostics import Span
from archdsl.figure.structure import Origin
from archdsl.frozen import Frozen
from archdsl.graph.cost import BYTES, format_bytes
from archdsl.graph.mixture import vectors
from archdsl.graph.nodes import Apply, Graph, Mixture, Node, Repeated, Scan, Stack, refs, walk
from archdsl.graph.ops import OPERATORS
from archdsl.graph.printer import literal
from archdsl.graph.sites import copies, sites
from archdsl.graph.types import Size, Type

_WIDTH = BYTES["float32"]


class Origins(Frozen):
    """What a figure says of the operators of a graph, besides their titles."""

    graph: Graph

    @cached_property
    def types(self) -> Mapping[str, Type]:
        return self.graph.types()

    def of_value(self, ref: str) -> Origin:
        """The type of a value; of an input, its line too."""
        spans = {each.name: each.span for each in self.graph.inputs}
        return Origin("", spans.get(ref), (), (("type", str(self.types[ref])),))

    def of(self, path: str, nodes: Sequence[Node]) -> Origin:
        """The path of a box, all lines that its operators come from, and what they cost."""
        return self._origin(path, nodes, [node for node, _ in walk(tuple(nodes))])

    def around(self, path: str, nodes: Sequence[Node]) -> Origin:
        """That of a frame, in which operators are drawn that have lines of their own."""
        return self._origin(path, nodes, [])

    def _origin(self, path: str, nodes: Sequence[Node], drawn: Iterable[Node]) -> Origin:
        facts: list[tuple[str, str]] = []
        match nodes:
            case [Apply(op=op, attrs=attrs)]:
                settings = ", ".join(f"{k} = {literal(v)}" for k, v in attrs if v is not None)
                facts.append(("operator", f"{op}({settings})"))
        facts.append(("type", str(nodes[-1].type)))
        params, flops = 0, Size.of(0)
        for node, around in walk(tuple(nodes)):
            if isinstance(node, Apply):
                own, size = self._amounts[node.id]
                params += own * copies(around)
                flops += prod(map(self._times, around), start=size)
        if params:
            facts += [("parameters", f"{params:,}"), ("weights", format_bytes(params * _WIDTH))]
        facts += [("FLOPs", str(flops))] if flops != Size.of(0) else []
        facts.append(("value", f"{nodes[-1].type.elements * _WIDTH} bytes"))
        span, others = _spans(nodes, drawn)
        return Origin(path, span, others, tuple(facts))

    def is_used_outside(self, ref: str, inner: set[str]) -> bool:
        """Whether others than the operators of `inner` use a value."""
        return not self._users.get(ref, set()) <= inner

    def is_part(self, node: Apply) -> bool:
        """Whether an operator takes some features of a value, and others take the rest."""
        if node.op != "slice":
            return False
        ((_, whole),) = node.inputs
        features = node.attr["axis"] == len(self.types[whole].axes) - 1
        return features and len(self._users[whole]) > 1 and self._users[whole] <= self._slices

    @cached_property
    def _slices(self) -> set[str]:
        nodes = (node for node, _ in walk(self.graph.nodes))
        return {node.id for node in nodes if isinstance(node, Apply) and node.op == "slice"}

    @cached_property
    def _users(self) -> Mapping[str, set[str]]:
        found: dict[str, set[str]] = {ref: {""} for _, ref in self.graph.outputs}
        for node, _ in walk(self.graph.nodes):
            for ref in refs(node):
                found.setdefault(ref, set()).add(node.id)
            bodies = node.bodies if isinstance(node, Stack) else ()
            ends = [body.result for body in bodies]
            ends += [node.result] if isinstance(node, Mixture) else []
            ends += [node.result, node.output] if isinstance(node, Scan) else []
            for ref in ends:
                found.setdefault(ref, set()).add("")
        return found

    def _times(self, around: Repeated) -> Size:
        """How often a body is computed; that of an expert for each vector that chooses it."""
        if isinstance(around, Mixture):
            return vectors(self.types[around.input]) * around.chosen
        return Size.of(around.count)

    @cached_property
    def _amounts(self) -> Mapping[str, tuple[int, Size]]:
        """The trainable numbers and the FLOPs of each operator, once."""
        found = {}
        for node, _, here in sites(self.graph):
            operator = OPERATORS[node.op]
            params = sum(prod(weight.shape) for weight in operator.weights(here))
            found[node.id] = params, operator.flops(here)
        return found


def _spans(
    nodes: Sequence[Node], drawn: Iterable[Node]
) -> tuple[Span | None, tuple[Span, ...]]:
    """The innermost span that all operators come from, and the others: of the calls that lead
    to it, and of what is drawn as the same item."""
    routes = [_route(node) for node in nodes]
    steps = takewhile(lambda step: len({*step}) == 1, zip(*routes, strict=False))
    common = [span for span, *_ in steps]
    every = dict.fromkeys([*common[::-1], *(each for node in drawn for each in _route(node))])
    first = next(iter(every), None)
    return first, tuple(span for span in every if span != first)


def _route(node: Node) -> tuple[Span, ...]:
    """The calls that led to an operator, and its own span, outermost first."""
    own = () if node.span is None or node.span in node.calls else (node.span,)
    return tuple(span for span in (*node.calls, *own) if span.source.path != ALONE)
