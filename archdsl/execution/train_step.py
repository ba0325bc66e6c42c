"""One step of training: gradients of the loss for some batches, then an update of the weights.

The step is two captured programs. The first adds the gradients of a batch to buffers, and
computes their length. The second updates the weights. Between them the host sees whether all
numbers are finite, so NaN never reaches the weights; it clips the gradients, and sums them over
batches. Several processes add up their gradients as soon as they are computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tinygrad import Context, Tensor, dtypes

from archdsl.backend import interpret
from archdsl.backend.losses import Mean
from archdsl.backend.optimizers import Optimizer, Rule
from archdsl.backend.program import Program as Capture
from archdsl.backend.recompute import Tape
from archdsl.backend.tensors import (
    copy_in,
    copy_out,
    realize_outside_capture,
    zeros_like,
)
from archdsl.backend.tinygrad_devices import split_like
from archdsl.backend.tinygrad_seam import one_thread
from archdsl.diagnostics import fail
from archdsl.execution.executable import Executable
from archdsl.execution.losses import Losses, at_least_1, report, sum_in_groups, sum_of
from archdsl.execution.recent import Recent
from archdsl.execution.train_state import load_tensors, replaced, scale_of
from archdsl.execution.trained_weights import (
    in_layers,
    refuse_contrastive,
    refuse_quantized,
    trained_weights,
)
from archdsl.formats.host import LazyTensor
from archdsl.frozen import Frozen
from archdsl.graph.nodes import Apply, Graph, refs
from archdsl.graph.printer import show
from archdsl.graph.unused import drop_unused

Batch = Mapping[str, NDArray[Any]]
Probe = Callable[[Apply, str, Any], None]
CAPTURES = 16  # programs kept, one per combination of input shapes
LARGEST_SCALE = 2.0**24
STEPS_TO_DOUBLE = 1000  # the loss scale doubles after so many steps without overflow


class Step(Frozen):
    """What a step reports. It `moved` the weights unless a number was not finite."""

    losses: Losses
    norm: float  # the length of the gradient before clipping
    scale: float  # the factor of the loss in float16
    moved: bool

    @property
    def loss(self) -> float:
        return self.losses.value


class Parts(Frozen):
    """How several processes share a step: they add up numbers, and gradients in place, which
    become ready one by one."""

    add: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    sum_of: Callable[[Sequence[Tensor]], GradientSum]


class GradientSum(Protocol):
    """See `parts.BucketSum`."""

    def ready(self, number: int) -> None: ...
    def finish(self) -> float: ...


class TrainStep:
    """Training steps of a model, whose weights they change in place.

    - `rule`: the optimizer.
    - `frozen`: the paths of weights that stay as they are.
    - `clip`: the largest length of the gradient.
    - `ema`: the decay of an average of the weights, such as 0.999.
    - `accumulate`: batches per step. The loss is the mean over all, as if they were one batch.
    - `graph`: what is trained, by default the graph of the executable; it has no other weights.
    - `recompute`: stores only the inputs of layers, and computes each layer twice.

    Weights in bfloat16 or float16 have a copy in float32, which the optimizer changes
    (Micikevicius et al. 2017, section 3.1). In float16 the loss is multiplied by a scale, which
    halves after an overflow (section 3.2).
    """

    def __init__(
        self,
        executable: Executable,
        rule: Rule,
        *,
        frozen: frozenset[str] = frozenset(),
        clip: float | None = 1.0,
        ema: float | None = None,
        accumulate: int = 1,
        parts: Parts | None = None,
        recompute: bool = False,
        graph: Graph | None = None,
    ):
        self.executable, self.clip, self.ema = executable, clip, ema
        self.accumulate, self.parts, self.recompute = accumulate, parts, recompute
        self.graph = loss_graph(graph or executable.graph)
        if accumulate > 1 or parts:
            refuse_contrastive(self.graph)
        self.trained = trained_weights(executable, self.graph, frozen)
        refuse_quantized(self.trained, executable.parameters.quantized)
        self._version = executable.version()
        self.weights = {path: executable.parameters[path] for path in self.trained}
        self.scale, self.since_overflow = 1.0, 0
        if executable.dtype == "float16":
            self.scale = 2.0**16
        half = executable.dtype != "float32"
        self.masters = {
            path: realize_outside_capture(weight.cast(dtypes.float32).contiguous())
            for path, weight in self.weights.items()
            if half
        }
        updated = self.masters or self.weights
        self.averages = {
            path: realize_outside_capture(weight.clone())
            for path, weight in updated.items()
            if ema is not None
        }
        self.gradients = {path: zeros_like(weight) for path, weight in self.weights.items()}
        self.optimizer = Optimizer(rule, updated, in_layers(self.graph))
        self._sum: GradientSum | None = None  # while the last batch of a step is computed
        self._captures: Recent[_Captured] = Recent(CAPTURES)
        key = ("update", rule, ema, tuple(self.trained), tuple(sorted(in_layers(self.graph))))
        self._updating = executable.capture(self._updated, key, self._known())
        self._numbers = executable.copied_in(np.zeros(2, np.float32))

    def __call__(self, batches: Sequence[Batch], rate: float, seed: Sequence[int]) -> Step:
        """One step at a learning rate. `seed` decides the masks of dropout."""
        self._check(batches)
        with self.executable.lock:
            counts = None
            if self.accumulate > 1 or self.parts:
                counts = self._add(np.sum([self.count(each) for each in batches], 0))
            losses, square = None, 0.0
            for number, batch in enumerate(batches):
                key = dropout_key(seed, number)
                if self.parts and number + 1 == len(batches):
                    self._sum = self.parts.sum_of([*self.gradients.values()])
                found, square = self._gradients(batch, counts, key, number)
                losses = found if losses is None else losses + found
            assert losses is not None
            if self.parts and self._sum:
                square = self._sum.finish()
                losses, self._sum = losses.total(self.parts.add), None
            return self._finish(losses, math.sqrt(square) / self.scale, rate)

    def _check(self, batches: Sequence[Batch]) -> None:
        if len(batches) != self.accumulate:
            fail(
                "argument-value",
                "a step takes as many batches as it accumulates",
                expected=f"{self.accumulate}",
                found=f"{len(batches)}",
            )
        self._same_weights()

    def _same_weights(self) -> None:
        if self.executable.version() != self._version:
            fail(
                "model",
                "the model's weights were loaded again; these steps have the old ones",
                help="make a new `TrainStep` after loading, then load its state",
            )

    def _add(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum of numbers over the processes that share the step."""
        return self.parts.add(numbers) if self.parts else numbers

    def _finish(self, losses: Losses, norm: float, rate: float) -> Step:
        """Updates the weights, if all numbers are finite."""
        scale, moved = self.scale, math.isfinite(losses.value) and math.isfinite(norm)
        if moved:
            clipped = 1.0 if self.clip is None or norm <= self.clip else self.clip / norm
            copy_in(self._numbers, np.array([rate, clipped / scale], np.float32))
            self._updating(self._numbers)
        if self.executable.dtype == "float16":
            self.since_overflow = self.since_overflow + 1 if moved else 0
            if not moved:
                self.scale = max(1.0, scale / 2)
            elif self.since_overflow % STEPS_TO_DOUBLE == 0:
                self.scale = min(LARGEST_SCALE, scale * 2)
        return Step(losses, norm, scale, moved)

    # -- programs --

    def count(self, batch: Batch) -> NDArray[np.float64]:
        """[terms]: how many numbers each loss is the mean of."""
        zero = np.zeros(1, np.float32)
        found = self._losses(self._run("count", self._counts, batch, zero))
        return found.counts

    def evaluate(self, batch: Batch) -> Losses:
        """The losses of a batch, without dropout and without gradients."""
        self._same_weights()
        with self.executable.lock:
            return self._losses(self._run("losses", self._evaluated, batch))

    def _gradients(
        self, batch: Batch, counts: NDArray[np.float64] | None, key: NDArray[Any], number: int
    ) -> tuple[Losses, float]:
        """Adds the gradients of a batch to the buffers, or sets them if it is the first.

        Gives the losses, and the sum of the squares of all gradients so far.
        """
        given = [key, np.array([self.scale, number > 0], np.float32)]
        if counts is not None:
            given.append(np.maximum(counts, 1).astype(np.float32))
        found = self._run("gradients", self._differentiated, batch, *given)
        return self._losses(found[:-1]), float(found[-1])

    def _ready(self, number: int) -> None:
        """A gradient has its value from a batch."""
        if self._sum:
            self._sum.ready(number)

    def _run(
        self, what: str, function: Callable[..., Tensor], batch: Batch, *given: NDArray[Any]
    ) -> NDArray[np.float64]:
        """The numbers of a function of `given` and a batch, captured once for their shapes."""
        shapes = tuple((name, array.shape) for name, array in batch.items())
        key = (what, len(given), shapes)
        one = self._captures.get(key, lambda: self._captured(what, function, batch, given))
        for tensor, array in zip(one.given, given, strict=True):
            copy_in(tensor, array)
        for name, array in batch.items():
            copy_in(one.batch[name], array)
        return copy_out(one.program(*one.given, **one.batch)).astype(np.float64)

    def _captured(
        self,
        what: str,
        function: Callable[..., Tensor],
        batch: Batch,
        given: Sequence[NDArray[Any]],
    ) -> _Captured:
        copied_in = self.executable.copied_in
        how = (self.accumulate, self.recompute, self.parts is not None)
        key = (what, show(self.graph), tuple(self.trained), *how)
        program = self.executable.capture(function, key, self._known())
        if self.parts and what == "gradients":
            program.watch([*self.gradients.values()], self._ready)
        return _Captured(
            program,
            [copied_in(each) for each in given],
            {name: copied_in(each) for name, each in batch.items()},
        )

    def _differentiated(
        self, key: Tensor, numbers: Tensor, counts: Tensor | None = None, **batch: Tensor
    ) -> Tensor:
        """Adds gradients to the buffers. [2 terms + 1]: totals, counts, the sum of squares."""
        adds = numbers[1] > 0 if self.accumulate > 1 else None  # []
        tape = None
        if self.recompute:
            device = self.executable.devices or self.executable.device
            tape = Tape(self.weights, self.gradients, device, adds)
        means = self._terms(batch, trains=True, key=key, tape=tape)
        loss = sum_of(
            mean.total * term.weight / (at_least_1(mean) if counts is None else counts[i])
            for i, (term, mean) in enumerate(zip(self.graph.losses, means, strict=True))
        )  # []
        if self.executable.dtype == "float16":
            loss = loss * numbers[0]  # []
        if tape is not None:
            numbers_found = report(means)
            tape.backward(loss, numbers_found)
            square = self._square(self.gradients.values())
            return numbers_found.cat(square).contiguous().realize()
        found = loss.gradient(*self.weights.values())
        written = []
        for buffer, gradient in zip(self.gradients.values(), found, strict=True):
            whole = split_like(gradient.cast(dtypes.float32), buffer)
            if adds is not None:
                whole = whole + adds.where(buffer, 0)
            written.append(buffer.assign(whole))
        whole_report = report(means).cat(self._square(written))  # [2 terms + 1]
        return whole_report.realize(*self.gradients.values())

    def _square(self, gradients: Iterable[Tensor]) -> Tensor:
        """[1]: the sum of the squares of gradients. Several processes compute it of their
        sums, in place of this."""
        if self.parts:
            return Tensor.zeros(1, device=self.executable.device)
        return sum_in_groups([each.square().sum() for each in gradients]).reshape(1)

    def _counts(self, zero: Tensor, **batch: Tensor) -> Tensor:
        """The counts. Without padding they are constants, which cannot be captured, so `zero`
        is added."""
        means = self._terms(batch, trains=False)
        counts = report([Mean(Tensor(0.0), mean.counted) for mean in means])
        return (counts + zero).contiguous().realize()

    def _evaluated(self, **batch: Tensor) -> Tensor:
        with Context(TRAINING=0):  # type: ignore[no-untyped-call]  # no dropout
            return report(self._terms(batch, trains=False)).realize()

    def _terms(
        self,
        batch: Mapping[str, Tensor],
        trains: bool,
        key: Tensor | None = None,
        probe: Probe | None = None,
        tape: Tape | None = None,
    ) -> list[Mean]:
        given = {name: self.executable.cast(each) for name, each in batch.items()}
        context = self.executable.run(self.executable.lowered(self.graph, given, trains))
        context.key, context.probe, context.tape = key, probe, tape
        context.frozen = True  # only full-precision weights are trained
        return interpret.loss_terms(context, given)

    def probed(self, batch: Batch, key: NDArray[Any], probe: Probe) -> Losses:
        """The losses of a batch as in a step, operator by operator: nothing is captured.

        `probe` is called with each operator, its path and its value.
        """
        copied_in = self.executable.copied_in
        with self.executable.lock, one_thread:
            tensors = {name: copied_in(each) for name, each in batch.items()}
            means = self._terms(tensors, True, copied_in(key), probe)
            return self._losses(report(means).numpy().astype(np.float64))

    def _updated(self, numbers: Tensor) -> Tensor:
        """Updates the weights from the gradients; `numbers` are the rate and a factor."""
        rate, factor = numbers[0:1], numbers[1]
        scaled = {path: each * factor for path, each in self.gradients.items()}
        changed = self.optimizer.update(scaled, rate)
        for path, master in self.masters.items():
            changed.append(self.weights[path].assign(master.cast(self.executable.dtype)))
        for path, mean in self.averages.items():
            assert self.ema is not None
            now = (self.masters or self.weights)[path]
            changed.append(mean.assign(mean * self.ema + now * (1 - self.ema)))
        return (rate + 0).contiguous().realize(*changed)

    def _losses(self, report: NDArray[np.float64]) -> Losses:
        totals, counts = report.reshape(2, -1)
        return Losses(totals, counts, np.array([term.weight for term in self.graph.losses]))

    # -- state --

    def _known(self) -> dict[str, Tensor]:
        """The tensors besides the weights that the programs read or write, by name."""
        gradients = {f"gradient {path}": each for path, each in self.gradients.items()}
        return gradients | self.state()

    def state(self) -> dict[str, Tensor]:
        """The tensors that training continues from, besides the weights, by name: float32."""
        parts = {"master": self.masters, "average": self.averages}
        found = {
            f"{k} {path}": each for k, part in parts.items() for path, each in part.items()
        }
        return found | self.optimizer.state()

    def numbers(self) -> dict[str, float]:
        """The numbers that training continues from."""
        return {"scale": self.scale, "since_overflow": self.since_overflow}

    def load_state(
        self, stored: Mapping[str, LazyTensor], numbers: Mapping[str, float]
    ) -> None:
        """Continues from a saved `state` and its `numbers`.

        The model has the weights that were saved with them. Raises `ArchError` "checkpoint" if
        names, shapes or dtypes differ; then nothing has changed.
        """
        with self.executable.lock:
            loaded = scale_of(numbers)
            load_tensors(self.state(), stored)
            self.scale, self.since_overflow = loaded.scale, loaded.since_overflow

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The model has the averages of its weights inside of this context, for evaluation and
        saving. Without `ema` it has its weights."""
        with self.executable.lock, replaced(self.weights, self.averages):
            yield


class _Captured(Frozen):
    """A captured function, and the tensors that hold what it is given."""

    program: Capture[Tensor]
    given: Sequence[Tensor]
    batch: Mapping[str, Tensor]


def loss_graph(graph: Graph) -> Graph:
    """The part of a graph that its losses need."""
    used = {ref for term in graph.losses for ref in refs(term.loss)}
    return replace(graph, outputs=(), nodes=drop_unused(graph.nodes, used))


def dropout_key(seed: Sequence[int], number: int) -> NDArray[np.uint32]:
    """[2]: the key of dropout for a batch of a step, from the run's seed and the step."""
    state = np.random.SeedSequence([*seed, number]).generate_state(2, np.uint32)
    return state.astype(np.uint32)
