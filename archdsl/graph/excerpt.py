"""A part of a graph as a graph of its own: what leads from some values to others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from archdsl.graph.nodes import (
    Graph,
    Input,
    Mixture,
    Node,
    Scan,
    Stack,
    defined_ids,
    refs,
    walk,
)
from archdsl.graph.renames import with_refs


def excerpt(
    graph: Graph, name: str, given: Mapping[str, str], results: Mapping[str, str], path: str
) -> Graph | None:
    """The operators of one body that lead to `results`, with their paths below `path`.

    `given` has the name of each input by the value that it stands for, and `results` the value
    of each output by its name. What else the part uses from outside is an input, too. Returns
    None if no operator leads to the results.

    >>> from archdsl.graph.parser import parse
    >>> from archdsl.graph.printer import show
    >>> graph = parse('''graph G init normal(std = 0.02)
    ... input x: float[4]
    ... %1 = tanh(x) @ tanh: float[4]
    ... %2 = linear(%1; dim = 4, bias = false) @ head.out: float[4]
    ... %3 = add(%2, other = %1) @ head.add: float[4]
    ... output y = %3
    ... ''')
    >>> print(show(excerpt(graph, "head", {"%1": "z"}, {"result": "%3"}, "head")), end="")
    graph head init normal(std = 0.02)
    input z: float[4]
    %2 = linear(z; dim = 4, bias = false) @ out: float[4]
    %3 = add(%2, other = z) @ add: float[4]
    output result = %3
    """
    used, kept = set(results.values()), list[Node]()
    for node in reversed(_body_of(graph, used)):
        if not used.isdisjoint({*defined_ids([node])} - given.keys()):
            kept.append(node)
            used |= {*refs(node)}
    if not kept:
        return None
    made = {*defined_ids(kept)}
    outside = dict.fromkeys(r for n in reversed(kept) for r in refs(n) if r not in made)
    names = _names(graph, given, list(outside))
    types = graph.types()
    inputs = tuple(Input(names[ref], types[ref]) for ref in outside)
    nodes = tuple(_below(with_refs(node, names), path) for node in reversed(kept))
    axes = {axis for node, _ in walk(nodes) for axis in node.type.vars}
    axes |= {axis for each in inputs for axis in each.type.vars}
    return Graph(
        name,
        tuple(replace(each, ragged=None) for each in graph.varying if each.name in axes),
        inputs,
        nodes,
        tuple((result, names.get(ref, ref)) for result, ref in results.items()),
    )


def _body_of(graph: Graph, wanted: set[str]) -> tuple[Node, ...]:
    """The operators of the body that gives all these values, but for its inputs."""

    def bodies(nodes: tuple[Node, ...]) -> Iterator[tuple[Node, ...]]:
        yield nodes
        for node in nodes:
            match node:
                case Stack():
                    for body in node.bodies:
                        yield from bodies(body.nodes)
                case Mixture():
                    yield from bodies(node.body)
                case Scan():
                    yield node.body

    def given(nodes: tuple[Node, ...]) -> int:
        return len(wanted & {*defined_ids(nodes)})

    return max(bodies(graph.nodes), key=given)


def _names(graph: Graph, given: Mapping[str, str], outside: list[str]) -> dict[str, str]:
    """A name for each value from outside: that in the block, else that in the model."""
    called = {node.id: node.names[0] for node, _ in walk(graph.nodes) if node.names}
    found: dict[str, str] = {}
    for ref in outside:
        name = given.get(ref) or called.get(ref, ref).rpartition(".")[2]
        name = "value" if name.startswith("%") else name
        while name in found.values():
            name += "'"
        found[ref] = name
    return found


def _below(node: Node, path: str) -> Node:
    """A node with its path within the part."""

    def short(place: str) -> str:
        return place.removeprefix(f"{path}.") if path else place

    if isinstance(node, Scan):
        body = tuple(replace(each, path=short(each.path)) for each in node.body)
        node = replace(node, body=body)
    return replace(node, path=short(node.path))
