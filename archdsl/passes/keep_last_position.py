"""Computes the outputs of a step only at the last position."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from archdsl.graph.nodes import Apply, Body, Graph, Mixture, Node, Scan, Stack, refs
from archdsl.graph.types import Size, Type
from archdsl.passes.rewrite import Builder


def keep_last_position(graph: Graph, axis: str) -> Graph:
    """Reduces the outputs along an axis to their last position.

    After the last operator that uses other positions, positions are independent, and the last
    one is enough. Caches are still written at all positions.

    >>> from archdsl.graph.parser import parse
    >>> from archdsl.graph.printer import show
    >>> graph = parse('''graph G init normal(std = 0.02)
    ... axis T <= 8
    ... input x: float[T, 4]
    ... %1 = linear(x; dim = 9, bias = false) @ logits: float[T, 9]
    ... output y = %1
    ... ''')
    >>> print(show(keep_last_position(graph, "T")), end="")
    graph G init normal(std = 0.02)
    axis T <= 8
    input x: float[T, 4]
    %2 = last(x; axis = 0) @ last: float[1, 4]
    %1 = linear(%2; dim = 9, bias = false) @ logits: float[1, 9]
    output y = %1
    """
    types = graph.types()
    looking = [i for i, node in enumerate(graph.nodes) if _needs_positions(node, axis, types)]
    first = looking[-1] + 1 if looking else 0
    return _Shortener(graph, axis, graph.nodes[:first]).shorten(graph.nodes[first:])


def _needs_positions(node: Node, axis: str, types: Mapping[str, Type]) -> bool:
    """Whether a node, or one inside it, uses other positions or computes positions."""
    if isinstance(node, Stack):
        inside = (each for body in node.bodies for each in body.nodes)
        return any(_needs_positions(each, axis, types) for each in inside)
    if isinstance(node, Scan):
        return True
    sizes = (each.size for ref in refs(node) for each in types[ref].axes)
    longer = any(axis in size.vars and size != Size.of(axis) for size in sizes)
    return longer or (isinstance(node, Apply) and "past" in dict(node.inputs))


class _Shortener:
    """Rebuilds nodes for one position; each value of all positions is sliced once."""

    def __init__(self, graph: Graph, axis: str, before: tuple[Node, ...]):
        self.graph, self.size = graph, Size.of(axis)
        self.builder = Builder(graph)
        self.full_types = dict(self.builder.types)
        self.nodes: list[Node] = list(before)
        self.last_ids: dict[str, str] = {}  # the last position of a value, by its id
        self.short: set[str] = set()

    def shorten(self, after: tuple[Node, ...]) -> Graph:
        for node in after:
            shortened = self.node(node)
            self.nodes.append(shortened)  # after the slices that it uses
        caches = {each.name for each in self.graph.inputs}
        outputs = tuple(
            (name, ref if name in caches else self.last(ref))
            for name, ref in self.graph.outputs
        )
        return replace(self.graph, nodes=tuple(self.nodes), outputs=outputs)

    def node(self, node: Node) -> Node:
        self.short.add(node.id)
        if isinstance(node, Apply):
            inputs = tuple((param, self.last(ref)) for param, ref in node.inputs)
            return self.builder.typed(replace(node, inputs=inputs))
        if isinstance(node, Mixture):
            x, gates = self.last(node.input), self.last(node.gates)
            return self.builder.mixed(replace(node, input=x, gates=gates))
        assert isinstance(node, Stack)  # a scan needs all positions
        x = self.last(node.input)
        bodies = tuple(self.body(body, x) for body in node.bodies)
        types = self.builder.types
        types[node.id] = types[node.last.result]
        return replace(node, input=x, bodies=bodies, type=types[node.id])

    def body(self, body: Body, x: str) -> Body:
        types = self.builder.types
        self.short.add(body.carry)
        types[body.carry] = types[x].with_noncausal(body.carry_type.noncausal)
        return replace(
            body, carry_type=types[body.carry], nodes=tuple(map(self.node, body.nodes))
        )

    def last(self, ref: str) -> str:
        """The last position of a value that has all positions; any other value itself."""
        sizes = [axis.size for axis in self.full_types[ref].axes]
        if ref in self.short or self.size not in sizes:
            return ref
        if ref not in self.last_ids:
            path = f"last_{len(self.last_ids) + 1}" if self.last_ids else "last"
            node = self.builder.apply("last", path, {"x": ref}, axis=sizes.index(self.size))
            self.nodes.append(node)
            self.last_ids[ref] = node.id
        return self.last_ids[ref]
