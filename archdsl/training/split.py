"""Training of a model whose weights are split over devices, in one process: tensor parallel.

Each device has its share of the weights, of their gradients and of the optimizer's numbers, and
computes its share of the values between them, for the whole batch. `passes.split_weights` plans
it. Checkpoints have whole weights, so a run continues with any number of devices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from archdsl.diagnostics import fail
from archdsl.execution.executable import Executable
from archdsl.execution.train_step import loss_graph
from archdsl.frozen import Frozen
from archdsl.graph.cost import BYTES
from archdsl.graph.nodes import Graph
from archdsl.graph.sites import parameters
from archdsl.passes.split_weights import Split, WholeAxis, split_weights
from archdsl.training.data import Data
from archdsl.training.finetuning import trained_graph
from archdsl.training.loop import Result, fit
from archdsl.training.processes import processes
from archdsl.training.settings import Settings

BATCH, TENSOR = "batch", "tensor"


def split_of(
    graph: Graph, settings: Settings, count: int, split: str, frozen: frozenset[str]
) -> Split | None:
    """How a run splits the weights of a model over devices: None if it splits batches.

    `split` is `batch`, `tensor`, or the names of axes with commas in between. Raises
    `ArchError` as `split_weights` does, and for settings that need whole weights.
    """
    if split == BATCH:
        return None
    if count < 2 or processes().count > 1:
        fail(
            "argument-value",
            "`split` needs several devices of one process",
            expected="`devices`, such as CPU:0,CPU:1",
            found="several processes" if count > 1 else f"{count} devices" if count else "none",
        )
    if settings.optimizer == "muon":
        fail(
            "argument-value",
            "muon multiplies whole matrices, which no device has",
            expected="another optimizer, such as adamw",
            help="`--split batch` gives each device the whole model",
        )
    if settings.sample_every:
        fail(
            "argument-value",
            "samples need a whole model, which no device has",
            expected="sample_every = 0",
            help="`archdsl generate` reads the checkpoints of the run",
        )
    names = () if split == TENSOR else tuple(split.split(","))
    return split_weights(loss_graph(trained_graph(graph, settings)), count, names, frozen)


def fit_split(
    executable: Executable,
    devices: Sequence[str],
    split: Split,
    folder: Any,
    data: Data,
    settings: Settings,
    **options: Any,
) -> Result:
    """`loop.fit` of a model over several devices. It takes its weights back when it is used."""
    parts = executable.split_over(devices, split.axis_of)
    return fit(parts, folder, data, settings, **options)


# -- the plan --


class Piece(Frozen):
    """A weight that is split along its axis number `axis`, the one of this `name`.

    `bytes` are those in all layers, `share` those that a device has.
    """

    name: str
    path: str
    shape: tuple[int, ...]
    axis: int
    bytes: int
    share: int


class Traffic(Frozen):
    """Bytes that the devices add up in a step, at an operator."""

    name: str
    at: str
    backward: bool
    bytes: int


class SplitPlan(Frozen):
    """How weights are split over `count` devices, and what the devices add up in a step.

    `bytes` are those of all weights, `share` those of a device. `memory` is what a run on one
    device would need.
    """

    count: int
    weights: tuple[Piece, ...]
    whole: tuple[WholeAxis, ...]
    traffic: tuple[Traffic, ...]
    bytes: int
    share: int
    memory: int

    def as_dict(self) -> dict[str, object]:
        """The plan as plain data."""
        found: dict[str, object] = {name: getattr(self, name) for name in self.__match_args__}
        for name in ("weights", "traffic"):
            rows = getattr(self, name)
            found[name] = [{n: getattr(each, n) for n in each.__match_args__} for each in rows]
        found["whole"] = [
            {"name": each.name, "size": each.size, "why": each.why} for each in self.whole
        ]
        return found


def plan_split(
    graph: Graph,
    split: Split,
    dtype: str,
    rows: int,
    sizes: Mapping[str, int],
    settings: Settings,
    memory: int,
) -> SplitPlan:
    """The table of a split, for batches of `rows` examples of these sizes."""
    width, every = BYTES[dtype], {each.path: each.weight.shape for each in parameters(graph)}
    weights = tuple(
        Piece(
            axis.name,
            weight.path,
            weight.shape,
            weight.axis,
            whole := width * prod(weight.shape) * weight.count,
            whole // split.count,
        )
        for axis in split.axes
        for weight in axis.weights
    )
    traffic = tuple(
        Traffic(
            axis.name,
            each.at,
            each.backward,
            BYTES["float32"] * each.numbers(rows, sizes) * settings.accumulate,
        )
        for axis in split.axes
        for each in axis.sums
    )
    return SplitPlan(
        split.count,
        weights,
        split.whole,
        traffic,
        width * sum(map(prod, every.values())),
        width * sum(prod(shape) // split.share(path) for path, shape in every.items()),
        memory,
    )
