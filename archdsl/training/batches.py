"""The batches of a run: what each process reads of the data."""

from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from archdsl.execution import inputs
from archdsl.execution.losses import Losses
from archdsl.execution.train_step import Batch, TrainStep
from archdsl.graph.cost import flops
from archdsl.graph.nodes import Graph
from archdsl.training.data import Data, Dataset
from archdsl.training.order import lengths_of, order_of
from archdsl.training.processes import Processes
from archdsl.training.settings import Settings

_PASSES = 3  # a backward pass computes twice the products of a forward pass


class Batches:
    """The share of this process in the batches of a run."""

    def __init__(self, data: Data, step: TrainStep, settings: Settings, processes: Processes):
        self._data, self._settings, self._processes = data, settings, processes
        self._graph = step.graph
        self.counter = Counter(step.graph, step.executable.graph)
        self._order = order_of(data.train, settings)

    def of_step(self, number: int) -> list[Batch]:
        """The batches that a step accumulates."""
        count = self._settings.accumulate
        numbers = (self._order.numbers(number * count + i) for i in range(count))
        return [self._batch(self._data.train, self._processes.share(each)) for each in numbers]

    def amounts(self, batches: list[Batch]) -> NDArray[np.float64]:
        """[2]: the tokens or examples of the batches of all processes, and their flops."""
        counts = [self.counter.units, self.counter.flops]
        mine = [float(sum(map(count, batches))) for count in counts]
        return self._processes.add(np.array(mine))

    def validation_loss(self, step: TrainStep) -> Losses:
        """The losses of the batches of an evaluation, of all processes."""
        valid, settings = self._data.valid, self._settings
        assert valid is not None
        numbers = evaluated(len(valid), settings.batch, settings.eval_batches)
        if settings.by_length and (lengths := lengths_of(valid)) is not None:
            numbers = numbers.ravel()[lengths[numbers].argsort(None)].reshape(numbers.shape)
        shares = [self._processes.share(each) for each in numbers]
        weights = np.array([each.weight for each in self._graph.losses])
        none = Losses(np.zeros(len(weights)), np.zeros(len(weights)), weights)
        with step.averaged():
            losses = (step.evaluate(self._batch(valid, each)) for each in shares if len(each))
            return self._processes.total(reduce(add, losses, none))

    def _batch(self, dataset: Dataset, numbers: NDArray[np.int64]) -> Batch:
        return inputs.check(self._graph, dataset.batch(numbers), labels=True)


def evaluated(count: int, batch: int, batches: int) -> NDArray[np.int64]:
    """[batches, batch]: the numbers of the examples of an evaluation, spread over all `count`.

    They are the same in each evaluation. Fewer examples than a batch are one smaller batch.

    >>> evaluated(9, 2, 3).tolist(), evaluated(3, 8, 5).tolist()
    ([[0, 1], [3, 4], [6, 7]], [[0, 1, 2]])
    """
    if count <= batch:
        return np.arange(count, dtype=np.int64)[None]
    total = min(count // batch, batches) * batch
    return (np.arange(total, dtype=np.int64) * count // total).reshape(-1, batch)


class Counter:
    """Counts what a batch has: tokens, or examples if no input of integers varies in length.

    `graph` is the graph that a run trains, `model` that of its model, which has no inputs for
    packing.
    """

    def __init__(self, graph: Graph, model: Graph):
        self._flops = flops(graph)
        self._inputs = graph.inputs
        self._tokens = [
            each for each in model.inputs if each.type.dtype == "int" and each.type.vars
        ]
        self.unit = "tokens" if self._tokens else "examples"

    def units(self, batch: Batch) -> int:
        """The tokens of a batch without padding, of all inputs; or its examples."""
        if not self._tokens:
            return len(next(iter(batch.values())))
        return sum(
            int((batch[each.name] != each.pad).sum())
            if each.pad is not None
            else batch[each.name].size
            for each in self._tokens
        )

    def flops(self, batch: Batch) -> int:
        """The flops of matrix products in training, padding included: a backward pass counted
        as two forward passes (Kaplan et al. 2020, section 2.1)."""
        sizes: dict[str, int] = {}
        for each in self._inputs:
            for axis, size in zip(each.type.axes, batch[each.name].shape[1:], strict=True):
                sizes |= {name: size for name in axis.size.vars if str(axis.size) == name}
        return _PASSES * len(next(iter(batch.values()))) * self._flops.at(sizes)
