"""Passes over the typed graph, in the order in which they run.

A pass is a pure function: a valid graph in, a valid graph out, with the same outputs. Behind
PIPELINE, `split_decoding` makes two graphs of one for decoding, `last_position` shortens a
step, and `program.lower` fuses, selects kernels and gives the program that runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from archdsl.graph.nodes import Graph
from archdsl.graph.verify import verify
from archdsl.passes.decompose import decompose
from archdsl.passes.eliminate_common_subexpressions import eliminate_common_subexpressions
from archdsl.passes.eliminate_dead_code import eliminate_dead_code

Pass = Callable[[Graph], Graph]

PIPELINE: tuple[Pass, ...] = (eliminate_dead_code, eliminate_common_subexpressions, decompose)


def apply_all(graph: Graph) -> Iterator[Graph]:
    """The graph after each pass of the pipeline, verified."""
    for step in PIPELINE:
        graph = verify(step(graph))
        yield graph


def optimise(graph: Graph) -> Graph:
    """The graph after all passes."""
    *_, last = apply_all(graph)
    return last
