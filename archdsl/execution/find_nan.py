"""Names what is NaN or infinite in a step of training that moved no weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
from tinygrad import Tensor

from archdsl.backend.tensors import make_contiguous
from archdsl.diagnostics import Span, fail
from archdsl.execution.losses import Losses
from archdsl.execution.train_step import Batch, TrainStep, dropout_key
from archdsl.graph.nodes import Apply, walk

_LONGEST = 1e18  # the square of a larger gradient may be infinite in float32
_HELP = "lower the learning rate, or raise `warmup`"


def report_not_finite(
    step: TrainStep,
    batches: Sequence[Batch],
    seed: Sequence[int],
    about: str = "",
    help: str = _HELP,
) -> None:
    """Raises `ArchError` for the first number of a step that is not finite.

    Call it after a step that did not move, with its batches and seed. The forward pass runs
    again, operator by operator, with the same dropout. The error names the operator, its layer
    and its line, or, if all values are finite, the first weight of the backward pass whose
    gradient is not. Its code is "overflow", or "input" if nothing of the batches counts in the
    loss. Returns if all numbers are finite. `about` ends the message, as in " in step 7".
    """
    found = _Search(step, about, help)
    losses: Losses | None = None
    for number, batch in enumerate(batches):
        one = found.forward(batch, dropout_key(seed, number))
        losses = one if losses is None else losses + one
    if losses is not None and not losses.counts.any():
        fail(
            "input",
            f"nothing counts in the loss{about}",
            step.graph.losses[0].loss.span,
            expected="a position that is no padding, and where `where` is true",
            found=f"{len(step.graph.losses)} losses, each the mean of 0 numbers",
            help="check the padding and the mask of the data",
        )
    found.gradients()


class _Search:
    def __init__(self, step: TrainStep, about: str, help: str):
        self.step, self.about, self.help = step, about, help
        self.dtype = step.executable.dtype

    def forward(self, batch: Batch, key: Any) -> Losses:
        """Raises at the first operator, or loss, whose value is not finite."""
        for each in (*self.step.graph.inputs, *self.step.graph.labels):
            array = batch.get(each.name)
            if array is not None and (place := _first(self._rounded(array))):
                self._fail(f"the input `{each.name}` is not finite", each.span, place)

        def probe(node: Apply, path: str, value: Any) -> None:
            if not isinstance(value, Tensor) or not value.is_floating_point():
                return
            # What follows reads this buffer, and does not compute the value again.
            value.replace(make_contiguous(value).realize())
            if place := _first(value):
                operator = " then ".join([node.op, *(tail.op for tail in node.tail)])
                message = f"`{operator}` at `{path}` gives a number that is not finite"
                self._fail(message, node.span, place + self._weights(path))

        losses = self.step.probed(batch, key, probe)
        for term, total in zip(self.step.graph.losses, losses.totals, strict=True):
            if not np.isfinite(total):
                message = f"the loss `{term.loss.op}` is not finite"
                self._fail(message, term.loss.span, f"{total:g}")
        return losses

    def gradients(self) -> None:
        """Raises for the last weight in the order of the spec whose gradient is not finite: its
        gradient is the first in the backward pass."""
        step = self.step
        for place, (path, gradient) in reversed(list(enumerate(step.gradients.items()))):
            if found := _first(gradient):
                after = len(step.gradients) - place - 1
                if after:
                    found += f"; the gradients of the {after} weights after it are finite"
                self._fail(f"the gradient of `{path}` is not finite", self._span(path), found)

        path, largest = self._largest()
        if largest > _LONGEST:
            message = "the length of the gradient is not finite"
            self._fail(message, self._span(path), f"{largest:g} in the gradient of `{path}`")

    def _largest(self) -> tuple[str, float]:
        """The largest number of all gradients, and its weight."""
        gradients = self.step.gradients.items()
        found = {path: float(np.abs(each.numpy()).max()) for path, each in gradients}
        return max(found.items(), key=lambda item: item[1])

    def _rounded(self, array: Any) -> Tensor:
        tensor = Tensor(array, device=self.step.executable.device)
        return self.step.executable.cast(tensor).contiguous().realize()

    def _weights(self, path: str) -> str:
        """What is wrong with the weights of an operator, if anything is."""
        weights: Mapping[str, Tensor] = self.step.executable.parameters
        found = (
            f"; its weight `{name}` has {place}"
            for name in weights
            if name.startswith(f"{path}.") and (place := _first(weights[name]))
        )
        return "".join(found)

    def _span(self, path: str) -> Span | None:
        node = self.step.executable.weights[path].node
        return next(
            (each.span for each, _ in walk(self.step.graph.nodes) if each.id == node), None
        )

    def _fail(self, message: str, span: Span | None, found: str) -> NoReturn:
        fail(
            "overflow",
            f"{message} in {self.dtype}{self.about}",
            span,
            expected="finite numbers",
            found=found,
            help=self.help,
        )


def _first(tensor: Tensor) -> str | None:
    """The first number of a realized float tensor that is not finite, with its place."""
    if not tensor.is_floating_point():
        return None
    numbers = tensor.cast("float32").numpy()
    places = np.argwhere(~np.isfinite(numbers))
    if not len(places):
        return None
    place = places[0].tolist()
    return f"{numbers[tuple(place)]} at {place}" if place else f"{numbers}"
