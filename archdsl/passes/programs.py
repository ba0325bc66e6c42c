"""The programs of a model on the CPU, one row at a time."""

from __future__ import annotations

from collections.abc import Iterator

from archdsl.graph.nodes import Graph
from archdsl.passes.program import Program, lower
from archdsl.passes.select_kernels import CPU
from archdsl.passes.split_decoding import find_tokens_and_logits, split_decoding


def cpu_programs(graph: Graph) -> Iterator[tuple[str, Program]]:
    """The title and the program of a whole sequence, and for a decoder those of the part that
    runs once and of a step of one token.

    `graph` is one after PIPELINE. Each axis is at its bound.
    """
    yield "whole", lower(graph, 1, graph.bounds, target=CPU)
    if isinstance(find_tokens_and_logits(graph), str):
        return
    plan = split_decoding(graph)
    for title, half in (("once", plan.once), (f"a step along {plan.axis}", plan.step)):
        if half is not None:
            sizes = half.bounds
            yield title, lower(half, 1, {**sizes, plan.axis: 1}, target=CPU)
