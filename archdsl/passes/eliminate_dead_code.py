"""Removes values that no output and no loss depends on."""

from __future__ import annotations

from dataclasses import replace

from archdsl.graph.nodes import Graph
from archdsl.graph.sites import trained
from archdsl.graph.unused import drop_unused, results


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
    used = results(graph) | trained(graph)
    return replace(graph, nodes=drop_unused(graph.nodes, used))
