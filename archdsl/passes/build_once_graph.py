"""Builds the graph that decoding runs once per sequence: all that no token affects."""

from __future__ import annotations

from dataclasses import replace

from archdsl.graph.nodes import Apply, Body, Graph, Layers, Node, Slice, Stack, refs, walk
from archdsl.graph.unused import drop_unused
from archdsl.passes.decoding_analysis import Analysis, layers_axis, tied_tables
from archdsl.passes.rewrite import Builder


def build_once_graph(analysis: Analysis) -> Graph | None:
    """Builds the graph whose outputs are inputs of a step: values that depend on no token, and
    the lengths of ragged axes. None if a step needs neither.

    What is read from a prefix of the tokens is computed with the tokens, and is the same for
    all of them: the decoder feeds any one.
    """
    wanted = [ref for ref in analysis.once if ref not in analysis.inputs]
    lengths = list(analysis.ragged())
    if not wanted and not lengths:
        return None
    graph = analysis.graph
    whole = _reads_prefix(analysis)
    inputs = tuple(
        replace(each, pad=None, default=None) if each.name in analysis.along else each
        for each in graph.inputs
        if whole or each.name not in analysis.along
    )
    used = {name for each in inputs for name in each.type.vars}
    varying = tuple(
        replace(axis, ragged=None) if axis.name == analysis.axis else axis
        for axis in graph.varying
        if axis.name in used
    )
    builder = Builder(graph, varying)
    nodes, found = _nodes(analysis, builder, graph.nodes, set(wanted), whole)
    measured = [
        builder.apply("length", name, {"x": each.name}, pad=each.pad)
        for _, each, name in lengths
    ]
    outputs = [(analysis.step_inputs[ref].name, found[ref]) for ref in wanted]
    outputs += [(node.path, node.id) for node in measured]
    nodes = (*drop_unused(nodes, {ref for _, ref in outputs}), *measured)
    once = replace(graph, varying=varying, inputs=inputs, nodes=nodes, outputs=tuple(outputs))
    return replace(once, tables=tied_tables(graph, once))


def _reads_prefix(analysis: Analysis) -> bool:
    """Whether a value that depends on no token is read from one that does."""
    nodes = (node for node, _ in walk(analysis.graph.nodes) if isinstance(node, Apply))
    return any(
        node.id not in analysis.depending and not analysis.depending.isdisjoint(refs(node))
        for node in nodes
    )


def _nodes(
    analysis: Analysis,
    builder: Builder,
    nodes: tuple[Node, ...],
    wanted: set[str],
    whole: bool,
) -> tuple[tuple[Node, ...], dict[str, str]]:
    """The nodes that depend on no token, or the `whole` graph, and the new ids of the wanted
    values."""
    result: list[Node] = []
    found: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, Stack) and node.id in analysis.stepped:
            parts, more = _stack(analysis, builder, node, wanted, whole)
            result += parts
            found |= more
        elif whole or node.id not in analysis.stepped:
            result.append(node)
            if node.id in wanted:
                found[node.id] = node.id
    return tuple(result), found


def _stack(
    analysis: Analysis, builder: Builder, node: Stack, wanted: set[str], whole: bool
) -> tuple[list[Node], dict[str, str]]:
    """A stack that gives the wanted values of its layers; if it is not `whole`, its input
    passes through."""
    parts = []
    given: dict[str, str] = {}
    for kind, body in enumerate(node.bodies):
        nodes, found = _nodes(analysis, builder, body.nodes, wanted, whole)
        nodes = nodes if whole else drop_unused(nodes, set(found.values()))
        gives = tuple(_give(builder, Layers(node, kind), inner) for inner in found.values())
        given |= {ref: each.id for ref, each in zip(found, gives, strict=True)}
        parts.append(replace(body, nodes=nodes, gives=gives))
    inside = tuple(each for body in parts for each in body.nodes)
    if not inside:
        return [], {}
    if whole:
        return [replace(node, bodies=tuple(parts))], given
    # The input only passes through, so any earlier value will do.
    defined = {each.id for each, _ in walk(inside)}
    before: list[Node] = []
    x = next((ref for each in inside for ref in refs(each) if ref not in defined), None)
    if x is None:
        before = [builder.apply("positions", f"{node.path}_input", {}, size="1")]
        x = before[0].id
    type = builder.types[x]
    carries = [builder.id() for _ in parts]
    bodies = tuple(
        Body(carry, type, body.nodes, carry, gives=body.gives)
        for carry, body in zip(carries, parts, strict=True)
    )
    return [*before, replace(node, id=builder.id(), input=x, bodies=bodies, type=type)], given


def _give(builder: Builder, layers: Layers, inner: str) -> Slice:
    """Gives a value of a body for all layers of its kind."""
    type = builder.types[inner]
    each = Slice(builder.id(), inner, replace(type, axes=(layers_axis(layers), *type.axes)))
    builder.types[each.id] = each.type
    return each
