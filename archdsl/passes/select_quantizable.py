"""Selects the weights of a model that can be quantized to 8 bits."""

from __future__ import annotations

from archdsl.graph.nodes import Apply, Graph, walk
from archdsl.graph.sites import parameters

GROUP = 32  # numbers that share a scale


def select_quantizable(graph: Graph) -> frozenset[str]:
    """The paths of matmul weights and `unembed` tables whose rows are whole groups.

    >>> from archdsl.graph.parser import parse
    >>> graph = parse('''graph G init normal(std = 0.02)
    ... input x: float[64]
    ... %1 = linear(x; dim = 9, bias = true) @ up: float[9]
    ... %2 = linear(%1; dim = 4, bias = false) @ down: float[4]
    ... output y = %2
    ... ''')
    >>> select_quantizable(graph)
    frozenset({'up.weight'})
    """
    nodes = (node for node, _ in walk(graph.nodes) if isinstance(node, Apply))
    tables = {f"{node.attr['tied']}.weight" for node in nodes if node.op == "unembed"}
    return frozenset(
        each.path
        for each in parameters(graph)
        if (each.weight.init == "matrix" or each.path in tables)
        and len(each.weight.shape) == 2
        and each.weight.shape[1] % GROUP == 0
    )
