"""A part of a graph as a graph of its own: what leads from some values to others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from archdsl.graph.nodes import (
    Apply,
    Body,
    Graph,
    Input,
    Mixture,
    Node,
    Scan,
    Slice,
    Stack,
    refs,
    walk,
)


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
        if not used.isdisjoint({*_values(node)} - given.keys()):
            kept.append(node)
            used |= {*refs(node)}
    if not kept:
        return None
    made = {ref for node in kept for ref in _values(node)}
    outside = dict.fromkeys(r for n in reversed(kept) for r in refs(n) if r not in made)
    names = _names(graph, given, list(outside))
    types = graph.types()
    inputs = tuple(Input(names[ref], types[ref]) for ref in outside)
    nodes = tuple(_below(_renamed(node, names), path) for node in reversed(kept))
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
        return len(wanted & {ref for node in nodes for ref in _values(node)})

    return max(bodies(graph.nodes), key=given)


def _values(node: Node) -> Iterator[str]:
    """The values that a node gives to those after it."""
    yield node.id
    if isinstance(node, Stack):
        yield from (each.id for each in node.gives)
    elif isinstance(node, Scan) and node.final is not None:
        yield node.final


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


def _renamed(node: Node, names: Mapping[str, str]) -> Node:
    """A node that uses the inputs by their names."""

    def new(ref: str) -> str:
        return names.get(ref, ref)

    def slices(found: tuple[Slice, ...]) -> tuple[Slice, ...]:
        return tuple(replace(each, of=new(each.of)) for each in found)

    def body(inside: Body) -> Body:
        nodes = tuple(_renamed(each, names) for each in inside.nodes)
        return replace(
            inside, nodes=nodes, result=new(inside.result), takes=slices(inside.takes)
        )

    match node:
        case Apply():
            return _applied(node, new)
        case Stack():
            return replace(node, input=new(node.input), bodies=tuple(map(body, node.bodies)))
        case Mixture():
            return replace(node, input=new(node.input), gates=new(node.gates))
        case Scan():
            return replace(
                node,
                takes=slices(node.takes),
                body=tuple(_applied(each, new) for each in node.body),
                result=new(node.result),
                output=new(node.output),
                start=None if node.start is None else new(node.start),
            )


def _applied(node: Apply, new: Callable[[str], str]) -> Apply:
    return replace(node, inputs=tuple((param, new(ref)) for param, ref in node.inputs))


def _below(node: Node, path: str) -> Node:
    """A node with its path within the part."""

    def short(place: str) -> str:
        return place.removeprefix(f"{path}.") if path else place

    if isinstance(node, Scan):
        body = tuple(replace(each, path=short(each.path)) for each in node.body)
        node = replace(node, body=body)
    return replace(node, path=short(node.path))
