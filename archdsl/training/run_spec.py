"""The text of a run's model."""

from __future__ import annotations

from pathlib import Path

from archdsl.analysis import analyse
from archdsl.describe.compare import difference
from archdsl.describe.expand import expand
from archdsl.graph.nodes import Graph
from archdsl.graph.sites import parameters
from archdsl.syntax.parser import parse
from archdsl.syntax.printer import format
from archdsl.training.run_folder import read_spec
from archdsl.training.trained import SPEC


def spec_of_run(graph: Graph, folder: Path, resume: bool) -> str:
    """The model as `expand` writes it, or for the same model that of the run to resume.

    The text that a run begins with gives the same graph again, but for names of axes, and
    `expand` may write such a graph with other names and blocks.
    """
    if resume and (folder / SPEC).is_file():
        text = read_spec(folder)
        before = analyse(parse(text, str(folder / SPEC))).graph
        if difference(before, graph) is None and _weights(before) == _weights(graph):
            return text
    return format(expand(graph))


def _weights(graph: Graph) -> list[tuple[str, object]]:
    return [(each.path, each.weight) for each in parameters(graph)]
