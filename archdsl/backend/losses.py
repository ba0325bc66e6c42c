"""The losses, in float32 for all weights: each is a mean over what counts.

A loss is computed as a total and a count, so that a batch can be computed in parts: the loss of
the whole is the sum of the totals, divided by the sum of the counts.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from math import prod
from typing import NamedTuple

from tinygrad import Tensor, dtypes

from archdsl.backend.context import OpCall
from archdsl.backend.tensors import shape
from archdsl.graph.types import Axis


class Mean(NamedTuple):
    """A mean of numbers: their sum [], and how many there are."""

    total: Tensor
    counted: Tensor | int

    def value(self) -> Tensor:
        mean: Tensor = self.total / self.counted  # []
        return mean


def _mean(op: OpCall, losses: Tensor, axes: tuple[Axis, ...], skip: int = 0) -> Mean:
    """The mean of losses [B, …] over what counts: no padding, and where `where` is true.

    The first `skip` positions of the first axis have no loss.
    """
    masks = [op.tensors["where"]] if "where" in op.tensors else []  # [B, …] each
    for place, axis in enumerate(axes):
        valid = op.context.valid_mask(axis.size)  # [B, n] or None
        if valid is not None:
            sizes = [-1 if each == place else 1 for each in range(len(axes))]
            masks.append(valid.reshape(valid.shape[0], *sizes))  # [B, 1, …, n, …, 1]
    if not masks:
        return Mean(losses.sum(), prod(shape(losses)))
    counted = functools.reduce(operator.and_, masks)  # [B, …]
    counted = (counted[:, skip:] if skip else counted).expand(losses.shape)  # [B, …]
    return Mean(counted.where(losses, 0).sum(), counted.sum())


def _cross_entropy(logits: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """-log p[target], mixed with the mean of -log p: [B, …], as `target`."""
    log_p = logits.cast(dtypes.float32).log_softmax(-1)  # [B, …, classes]
    losses = -log_p.gather(-1, target.unsqueeze(-1)).squeeze(-1)  # [B, …]
    return losses * (1 - smoothing) - log_p.mean(-1) * smoothing if smoothing else losses


def _next_token(op: OpCall) -> Mean:
    logits, tokens = op.tensors["logits"], op.tensors["tokens"]  # [B, T, vocab], [B, T]
    ahead = op.attr["ahead"]
    losses = _cross_entropy(logits[:, :-ahead], tokens[:, ahead:], op.attr["smoothing"])
    return _mean(op, losses, op.types["tokens"].axes, ahead)


def _label_cross_entropy(op: OpCall) -> Mean:
    label = op.tensors["label"]  # [B, …]
    losses = _cross_entropy(op.tensors["logits"], label, op.attr["smoothing"])  # [B, …]
    return _mean(op, losses, op.types["label"].axes)


def _binary_cross_entropy(op: OpCall) -> Mean:
    logits, label = (op.tensors[name].cast(dtypes.float32) for name in ("logits", "label"))
    return _mean(op, _sigmoid_cross_entropy(logits, label), op.types["logits"].axes)


def _sigmoid_cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """-log of the probability of labels from 0 to 1: [B, …], as `logits`."""
    losses: Tensor = logits.relu() - logits * label + (1 + (-logits.abs()).exp()).log()
    return losses


def _squared_error(op: OpCall) -> Mean:
    difference = op.x.cast(dtypes.float32) - op.tensors["target"].cast(dtypes.float32)
    return _mean(op, difference.square(), op.axes)


def _contrastive(op: OpCall) -> Mean:
    x, other = op.x.cast(dtypes.float32), op.tensors["other"].cast(dtypes.float32)  # [B, D]
    logits = x @ other.T  # [B, B]
    examples = int(logits.shape[0])
    if op.attr["kind"] == "sigmoid":
        if "bias" in op.tensors:
            logits = logits + op.tensors["bias"].cast(dtypes.float32).unsqueeze(1)  # [B, B]
        pairs = _sigmoid_cross_entropy(logits, Tensor.eye(examples))  # [B, B]
        return Mean(pairs.sum(), examples)
    right = Tensor.arange(examples)  # [B]
    both = (_cross_entropy(each, right, 0.0) for each in (logits, logits.T))  # [B] each
    losses = functools.reduce(operator.add, both) / 2  # [B]
    return Mean(losses.sum(), examples)


def _z_loss(op: OpCall) -> Mean:
    losses = op.tensors["logits"].cast(dtypes.float32).logsumexp(-1).square()  # [B, …]
    return _mean(op, losses, op.types["logits"].axes[:-1])


def _penalty(op: OpCall) -> Mean:
    return _mean(op, op.x.cast(dtypes.float32), op.axes)


LOSSES: dict[str, Callable[[OpCall], Mean]] = {
    "next_token": _next_token,
    "cross_entropy": _label_cross_entropy,
    "binary_cross_entropy": _binary_cross_entropy,
    "squared_error": _squared_error,
    "contrastive": _contrastive,
    "z_loss": _z_loss,
    "penalty": _penalty,
}


def value_of(loss: Callable[[OpCall], Mean]) -> Callable[[OpCall], Tensor]:
    """The function that computes a loss as a number: []."""
    return lambda op: loss(op).value()
