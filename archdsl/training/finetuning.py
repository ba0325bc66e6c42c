"""What a run trains of a model: all of its weights, some of them, or an adapter."""

from __future__ import annotations

from collections.abc import Iterable

from archdsl.diagnostics import fail
from archdsl.execution.adapters import with_lora
from archdsl.execution.executable import Executable
from archdsl.graph.nodes import Graph
from archdsl.graph.path_patterns import select
from archdsl.graph.sites import parameters
from archdsl.passes.lora import adapted
from archdsl.passes.pack import pack
from archdsl.training.settings import Settings


def prepare_finetuning(
    executable: Executable, settings: Settings
) -> tuple[Executable, frozenset[str]]:
    """The model that a run trains, and the paths of its frozen weights.

    With `lora_rank` it is another model, which has an adapter and shares the weights of the
    first. Raises `ArchError` for patterns that match nothing, and for settings of an adapter
    without a rank.
    """
    if settings.lora_rank is not None:
        executable = with_lora(
            executable,
            settings.lora_rank,
            settings.lora_alpha,
            settings.lora_targets,
            settings.seed,
        )
    elif settings.lora_targets:
        fail(
            "argument-value",
            "lora_targets has no effect without lora_rank",
            expected="a rank, such as lora_rank = 8",
        )
    return executable, frozen_weights(executable.graph, settings.freeze)


def trained_graph(graph: Graph, settings: Settings) -> Graph:
    """The graph that a run trains: with `pack`, one for windows of several texts.

    Raises `ArchError` (`model`) if such a graph would mix the texts.
    """
    return pack(graph).graph if settings.pack else graph


def frozen_weights(graph: Graph, patterns: Iterable[str]) -> frozenset[str]:
    """The paths of the weights that stay as they are: those that patterns match, and if the
    graph has an adapter, all but those of the adapter.

    Raises `ArchError` for a pattern that matches no weight.

    >>> from archdsl.graph.parser import parse
    >>> graph = parse('''graph G init normal(std = 0.02)
    ... input x: float[4]
    ... %1 = linear(x; dim = 8, bias = true) @ up: float[8]
    ... %2 = linear(%1; dim = 4, bias = false) @ down: float[4]
    ... output y = %2
    ... ''')
    >>> sorted(frozen_weights(graph, ["up"]))
    ['up.bias', 'up.weight']
    """
    paths = [each.path for each in parameters(graph)]
    trained = {path for pair in adapted(graph).values() for path in pair}
    rest = frozenset(paths) - trained if trained else frozenset()
    return rest | select(patterns, paths, "weight")
