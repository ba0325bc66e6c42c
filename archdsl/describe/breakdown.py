"""The parameters and the flops of each block of a model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from archdsl.frozen import Frozen
from archdsl.graph.cost import flops, operator_flops, operator_parameters
from archdsl.graph.nodes import Graph
from archdsl.graph.types import Size


class Part(Frozen):
    """A block or an operator; `path` has `{}` for the number of each layer.

    `level` counts the blocks around it. `params` and `flops` are those of all its layers.
    """

    path: str
    level: int
    params: int
    flops: Size

    @property
    def name(self) -> str:
        """Its own name: the last part of the path, with the numbers of its layers."""
        return _steps(self.path)[-1]


def breakdown(graph: Graph, levels: int = 2) -> list[Part]:
    """The parts of a model with weights or flops, each before the parts inside it.

    >>> from archdsl.analysis import analyse
    >>> for part in breakdown(analyse("gpt.arch").graph):
    ...     print("  " * part.level + part.name, part.params, part.flops)
    embed 38597376 0
    posenc 786432 0
    self_attention_block.{} 85054464 36864 T^2 + 169_869_312 T
      norm 18432 0
      attention 28348416 36864 T^2 + 56_623_104 T
      norm_2 18432 0
      mlp 56669184 113_246_208 T
    norm 1536 0
    linear 38647633 77_194_752 T
    """
    found: dict[tuple[str, ...], tuple[int, Size]] = {}
    for path, params, size in _operators(graph):
        steps = _steps(path)
        for count in range(1, min(len(steps), levels) + 1):
            before, work = found.get(steps[:count], (0, Size.of(0)))
            found[steps[:count]] = before + params, work + size
    return [
        Part(".".join(steps), len(steps) - 1, params, work)
        for steps, (params, work) in found.items()
        if params or work != Size.of(0)
    ]


def shorten(path: str, most: int = 3) -> str:
    """A path with the first and the last ones of many numbers of layers.

    >>> shorten("h.{0, 2, 4, 6, 8, 10}.mlp"), shorten("h.{}.norm")
    ('h.{0, 2, 4, … 10}.mlp', 'h.{}.norm')
    """

    def fewer(numbers: re.Match[str]) -> str:
        every = numbers[1].split(", ")
        if len(every) <= most + 1:
            return numbers[0]
        return f"{{{', '.join(every[:most])}, … {every[-1]}}}"

    return re.sub(r"\{([^{}]+)\}", fewer, path)


def _operators(graph: Graph) -> Iterator[tuple[str, int, Size]]:
    """The path, the parameters and the flops of each operator, in the order of execution."""
    params = dict(operator_parameters(graph))
    for path, size in operator_flops(graph):
        yield path, params.pop(path, 0), size


def _steps(path: str) -> tuple[str, ...]:
    """The names in a path; the numbers of layers belong to the name before them.

    >>> _steps("h.{0, 2}.mlp.experts.{}.gate")
    ('h.{0, 2}', 'mlp', 'experts.{}', 'gate')
    """
    steps = list[str]()
    for step in path.split("."):
        if step.startswith("{") and steps:
            steps[-1] += f".{step}"
        else:
            steps.append(step)
    return tuple(steps)


class PartAt(Frozen):
    """A part at given sizes of the varying axes; its shares in the model are from 0 to 1."""

    part: Part
    flops: int
    params_share: float
    flops_share: float


def breakdown_at(graph: Graph, sizes: Mapping[str, int], levels: int = 2) -> list[PartAt]:
    """The parts of `breakdown`, with their flops at these sizes."""
    params = sum(count for _, count in operator_parameters(graph)) or 1
    work = flops(graph).at(sizes) or 1
    parts = [(part, part.flops.at(sizes)) for part in breakdown(graph, levels)]
    return [PartAt(part, own, part.params / params, own / work) for part, own in parts]
