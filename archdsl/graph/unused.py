"""Removes values of a graph that nothing needs."""

from __future__ import annotations

from dataclasses import replace

from archdsl.graph.nodes import Apply, Body, Graph, Mixture, Node, Scan, Stack, refs, walk


def drop_absent(graph: Graph) -> Graph:
    """Removes the values, inputs and axes that no output and no loss depends on. An input that
    gives the lengths of an axis stays with the axis.

    >>> from archdsl.graph.parser import parse
    >>> from archdsl.graph.printer import show
    >>> graph = parse('''graph G init normal(std = 0.02)
    ... input x: float[4]
    ... input z: float[4]
    ... %1 = linear(x; D = 4, bias = false) @ head: float[4]
    ... %2 = tanh(z) @ tanh: float[4]
    ... output y = %2
    ... ''')
    >>> print(show(drop_absent(graph)), end="")
    graph G init normal(std = 0.02)
    input z: float[4]
    %2 = tanh(z) @ tanh: float[4]
    output y = %2
    """
    used = results(graph)
    nodes = drop_unused(graph.nodes, used)
    axes = {axis for each in graph.inputs if each.name in used for axis in each.type.vars}
    lengths = {axis.ragged for axis in graph.varying if axis.name in axes}
    inputs = tuple(each for each in graph.inputs if each.name in used | lengths)
    varying = tuple(each for each in graph.varying if each.name in axes)
    return replace(graph, nodes=nodes, inputs=inputs, varying=varying)


def results(graph: Graph) -> set[str]:
    """The values that the outputs and the losses of a graph use directly."""
    used = (ref for term in graph.losses for ref in refs(term.loss))
    return {ref for _, ref in graph.outputs}.union(used)


def drop_unused(nodes: tuple[Node, ...], used: set[str]) -> tuple[Node, ...]:
    """Removes nodes that `used` does not contain, and adds to `used` what the others use."""
    remaining: list[Node] = []
    for node in reversed(nodes):
        if isinstance(node, Stack):
            inside = (each for body in node.bodies for each, _ in walk(body.nodes))
            given = (*node.gives, *inside)
            if not used & {node.id, *(each.id for each in given)}:
                continue
            bodies = tuple(_body(body, used) for body in node.bodies)
            node = replace(node, bodies=bodies)
        elif isinstance(node, Mixture):
            if not used & {node.id, *(each.id for each, _ in walk(node.body))}:
                continue
            node = replace(node, body=drop_unused(node.body, used | {node.result}))
        elif isinstance(node, Scan):
            if not used & {node.id, node.final}:
                continue
            used |= {node.result, node.output}
            body = tuple(
                each for each in drop_unused(node.body, used) if isinstance(each, Apply)
            )
            takes = tuple(each for each in node.takes if each.id in used)
            node = replace(node, body=body, takes=takes)
        elif node.id not in used:
            continue
        used |= set(refs(node))
        remaining.append(node)
    return tuple(reversed(remaining))


def _body(body: Body, used: set[str]) -> Body:
    """A body without the nodes and slices that `used` does not need."""
    gives = tuple(each for each in body.gives if each.id in used)
    used |= {body.result, *(each.of for each in gives)}
    nodes = drop_unused(body.nodes, used)
    takes = tuple(each for each in body.takes if each.id in used)
    return replace(body, nodes=nodes, takes=takes, gives=gives)


def drop_unused_weights(graph: Graph) -> Graph:
    """Removes weights that nothing uses: a condition chose the side without them."""
    used = results(graph)
    for node, _ in walk(graph.nodes):
        used |= set(refs(node))
        if not isinstance(node, Apply):
            used |= {*node.results} if isinstance(node, Stack) else {node.result}

    def others(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
        found: list[Node] = []
        for node in nodes:
            if isinstance(node, Stack):
                bodies = (replace(body, nodes=others(body.nodes)) for body in node.bodies)
                found.append(replace(node, bodies=tuple(bodies)))
            elif isinstance(node, Mixture):
                found.append(replace(node, body=others(node.body)))
            elif not isinstance(node, Apply):
                found.append(node)  # a scan: its weights are outside of it
            elif node.op != "weight" or node.id in used:
                found.append(node)
        return tuple(found)

    return replace(graph, nodes=others(graph.nodes))
