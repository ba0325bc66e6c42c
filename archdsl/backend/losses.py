"""The losses, in float32 for all weights."""

from __future__ import annotations

import functools
import operator

from tinygrad import Tensor, dtypes

from archdsl.backend.context import OpCall
from archdsl.graph.types import Axis


def _mean(op: OpCall, losses: Tensor, axes: tuple[Axis, ...], skip: int = 0) -> Tensor:
    """The mean of losses [B, …] over what counts: no padding, and where `where` is true: [].

    The first `skip` positions of the first axis have no loss.
    """
    masks = [op.tensors["where"]] if "where" in op.tensors else []  # [B, …] each
    for place, axis in enumerate(axes):
        valid = op.context.valid_mask(axis.size)  # [B, n] or None
        if valid is not None:
            sizes = [-1 if each == place else 1 for each in range(len(axes))]
            masks.append(valid.reshape(valid.shape[0], *sizes))  # [B, 1, …, n, …, 1]
    if not masks:
        return losses.mean()  # []
    counted = functools.reduce(operator.and_, masks)  # [B, …]
    counted = (counted[:, skip:] if skip else counted).expand(losses.shape)  # [B, …]
    mean: Tensor = counted.where(losses, 0).sum() / counted.sum()  # []
    return mean


def _cross_entropy(logits: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """-log p[target], mixed with the mean of -log p: [B, …], as `target`."""
    log_p = logits.cast(dtypes.float32).log_softmax(-1)  # [B, …, classes]
    losses = -log_p.gather(-1, target.unsqueeze(-1)).squeeze(-1)  # [B, …]
    return losses * (1 - smoothing) - log_p.mean(-1) * smoothing if smoothing else losses


def next_token(op: OpCall) -> Tensor:
    logits, tokens = op.tensors["logits"], op.tensors["tokens"]  # [B, T, vocab], [B, T]
    ahead = op.attr["ahead"]
    losses = _cross_entropy(logits[:, :-ahead], tokens[:, ahead:], op.attr["smoothing"])
    return _mean(op, losses, op.types["tokens"].axes, ahead)  # []


def cross_entropy(op: OpCall) -> Tensor:
    label = op.tensors["label"]  # [B, …]
    losses = _cross_entropy(op.tensors["logits"], label, op.attr["smoothing"])  # [B, …]
    return _mean(op, losses, op.types["label"].axes)  # []


def binary_cross_entropy(op: OpCall) -> Tensor:
    logits, label = (op.tensors[name].cast(dtypes.float32) for name in ("logits", "label"))
    losses = logits.relu() - logits * label + (1 + (-logits.abs()).exp()).log()  # [B, …]
    return _mean(op, losses, op.types["logits"].axes)  # []


def squared_error(op: OpCall) -> Tensor:
    difference = op.x.cast(dtypes.float32) - op.tensors["target"].cast(dtypes.float32)
    return _mean(op, difference.square(), op.axes)  # []


def contrastive(op: OpCall) -> Tensor:
    x, other = op.x.cast(dtypes.float32), op.tensors["other"].cast(dtypes.float32)  # [B, D]
    logits = x @ other.T  # [B, B]
    right = Tensor.arange(logits.shape[0])  # [B]
    both = (_cross_entropy(each, right, 0.0).mean() for each in (logits, logits.T))
    return functools.reduce(operator.add, both) / 2  # []


def z_loss(op: OpCall) -> Tensor:
    losses = op.tensors["logits"].cast(dtypes.float32).logsumexp(-1).square()  # [B, …]
    return _mean(op, losses, op.types["logits"].axes[:-1])  # []


def penalty(op: OpCall) -> Tensor:
    return _mean(op, op.x.cast(dtypes.float32), op.axes)  # []
