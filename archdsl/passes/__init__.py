"""Passes over the typed graph, in the order in which they run.

A pass is a pure function from a valid graph to a valid graph with the same outputs. After
PIPELINE, `split_decoding` splits a model for decoding, `keep_last_position` shortens a step,
and `program.lower` fuses operators, selects kernels and returns the program that runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from archdsl.graph.nodes import Graph
from archdsl.graph.verify import verify
from archdsl.passes.decompose import decompose
from archdsl.passes.eliminate_common_subexpressions import eliminate_common_subexpressions
from archdsl.passes.eliminate_dead_code import eliminate_dead_code
from archdsl.passes.move_reads import move_reads

Pass = Callable[[Graph], Graph]

PIPELINE: tuple[Pass, ...] = (
    eliminate_dead_code,
    eliminate_common_subexpressions,
    decompose,
    move_reads,
)


def apply_all(graph: Graph) -> Iterator[Graph]:
    """Runs PIPELINE; yields the verified graph after each pass."""
    for step in PIPELINE:
        graph = verify(step(graph))
        yield graph


def optimise(graph: Graph) -> Graph:
    """Runs PIPELINE and returns the last graph."""
    *_, last = apply_all(graph)
    return last
