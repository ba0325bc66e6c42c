"""Builds the graph that decoding runs once per sequence: all that no token affects."""

from __future__ import annotations

from dataclasses import replace

from archdsl.graph.nodes import Graph, Node, Slice, Stack, refs, walk
from archdsl.graph.unused import drop_unused
from archdsl.passes.decoding_analysis import Analysis, layers_axis, tied_tables
from archdsl.passes.rewrite import Builder


def build_once_graph(analysis: Analysis) -> Graph | None:
    """Builds the graph whose outputs are inputs of a step: values that depend on no token, and
    the lengths of ragged axes. None if a step needs neither."""
    wanted = [ref for ref in analysis.once if ref not in analysis.inputs]
    lengths = list(analysis.ragged())
    if not wanted and not lengths:
        return None
    graph = analysis.graph
    inputs = tuple(each for each in graph.inputs if each.name not in analysis.along)
    used = {name for each in inputs for name in each.type.vars}
    varying = tuple(axis for axis in graph.varying if axis.name in used)
    builder = Builder(graph, varying)
    nodes, found = _nodes(analysis, builder, graph.nodes, set(wanted))
    measured = [
        builder.apply("length", name, {"x": each.name}, pad=each.pad)
        for _, each, name in lengths
    ]
    outputs = [(analysis.step_inputs[ref].name, found[ref]) for ref in wanted]
    outputs += [(node.path, node.id) for node in measured]
    nodes = (*drop_unused(nodes, {ref for _, ref in outputs}), *measured)
    once = replace(graph, varying=varying, inputs=inputs, nodes=nodes, outputs=tuple(outputs))
    return replace(once, tables=tied_tables(graph, once))


def _nodes(
    analysis: Analysis, builder: Builder, nodes: tuple[Node, ...], wanted: set[str]
) -> tuple[tuple[Node, ...], dict[str, str]]:
    """The nodes that depend on no token, and the new ids of the wanted values."""
    result: list[Node] = []
    found: dict[str, str] = {}
    for node in nodes:
        if node.id not in analysis.stepped:
            result.append(node)
            if node.id in wanted:
                found[node.id] = node.id
        elif isinstance(node, Stack):
            stack, more = _stack(analysis, builder, node, wanted)
            result += [stack] if stack else []
            found |= more
    return tuple(result), found


def _stack(
    analysis: Analysis, builder: Builder, node: Stack, wanted: set[str]
) -> tuple[Stack | None, dict[str, str]]:
    """A stack that passes its input through and gives the wanted values of its layers."""
    body, found = _nodes(analysis, builder, node.body, wanted)
    body = drop_unused(body, set(found.values()))
    if not body:
        return None, {}
    gives = tuple(_give(builder, node, inner) for inner in found.values())
    # The input only passes through, so any earlier value will do.
    defined = {each.id for each, _ in walk(body)}
    x = next(ref for each in body for ref in refs(each) if ref not in defined)
    type, carry = builder.types[x], builder.id()
    count, path, span = node.count, node.path, node.span
    stack = Stack(
        builder.id(), x, count, path, carry, type, body, carry, type, span, gives=gives
    )
    return stack, {ref: each.id for ref, each in zip(found, gives, strict=True)}


def _give(builder: Builder, node: Stack, inner: str) -> Slice:
    """Gives a value of a body for all layers."""
    type = builder.types[inner]
    each = Slice(builder.id(), inner, replace(type, axes=(layers_axis(node), *type.axes)))
    builder.types[each.id] = each.type
    return each
