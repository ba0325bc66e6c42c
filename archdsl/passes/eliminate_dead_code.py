"""Removes values that no output and no loss depends on."""

from __future__ import annotations

from dataclasses import replace

from archdsl.graph.nodes import Graph, Node, Stack, refs, walk
from archdsl.graph.sites import parameters


def eliminate_dead_code(graph: Graph) -> Graph:
    """Removes unused values. Values with weights stay, because checkpoints contain them.

    >>> from archdsl.graph.parser import parse
    >>> from archdsl.graph.printer import show
    >>> graph = parse('''graph G init normal(std = 0.02)
    ... input x: float[4]
    ... %1 = relu(x) @ relu: float[4]
    ... %2 = tanh(x) @ tanh: float[4]
    ... output y = %2
    ... ''')
    >>> print(show(eliminate_dead_code(graph)), end="")
    graph G init normal(std = 0.02)
    input x: float[4]
    %2 = tanh(x) @ tanh: float[4]
    output y = %2
    """
    used = {ref for _, ref in graph.outputs} | {p.node for p in parameters(graph)}
    if graph.loss:
        used |= set(refs(graph.loss))
    return replace(graph, nodes=drop_unused(graph.nodes, used))


def drop_unused(nodes: tuple[Node, ...], used: set[str]) -> tuple[Node, ...]:
    """Removes nodes that `used` does not contain, and adds to `used` what the others use."""
    remaining: list[Node] = []
    for node in reversed(nodes):
        if isinstance(node, Stack):
            gives = tuple(each for each in node.gives if each.id in used)
            if not gives and not used & {node.id, *(each.id for each, _ in walk(node.body))}:
                continue
            used |= {node.result, *(each.of for each in gives)}
            node = replace(node, body=drop_unused(node.body, used), gives=gives)
            node = replace(node, takes=tuple(each for each in node.takes if each.id in used))
        elif node.id not in used:
            continue
        used |= set(refs(node))
        remaining.append(node)
    return tuple(reversed(remaining))
