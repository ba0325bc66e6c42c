"""Which weights of a model can have 8 bits: matrices, in which most of it lies."""

from __future__ import annotations

from archdsl.graph.nodes import Apply, Graph, walk
from archdsl.graph.sites import parameters

GROUP = 32  # numbers that share a scale


def select_quantizable(graph: Graph) -> frozenset[str]:
    """The paths of matrices of products, tables that make logits among them, whose rows are
    whole groups."""
    nodes = (node for node, _ in walk(graph.nodes) if isinstance(node, Apply))
    tables = {f"{node.attr['tied']}.weight" for node in nodes if node.op == "unembed"}
    return frozenset(
        each.path
        for each in parameters(graph)
        if (each.weight.init == "matrix" or each.path in tables)
        and len(each.weight.shape) == 2
        and each.weight.shape[1] % GROUP == 0
    )
