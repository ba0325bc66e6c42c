"""Attention of several sequences, such as the windows of an image, as rows of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tinygrad import Tensor

from archdsl.backend.context import OpCall
from archdsl.backend.tensors import shape
from archdsl.graph import masks

OWN_AXES = {"q": 3, "k": 3, "v": 3, "bias": 3, "sink": 1}


def as_rows(op: OpCall, before: int, own: Mapping[str, int]) -> OpCall:
    """A call on several sequences as one whose batch has a row for each of them.

    `before` axes are those of the sequences. A tensor has the last axes as in `own`, and before
    these all axes of sequences, the first ones or none.
    """
    rows = shape(op.x)[: 1 + before]
    tensors, types = dict(op.tensors), dict(op.types)
    for name, x in op.tensors.items():
        last = own.get(name, masks.OWN_AXES.get(name.partition("_")[0], 0))
        lead = len(types[name].axes) - last
        sizes = shape(x)
        if sizes[0] > 1 or lead:
            spread = [
                sizes[0],
                *sizes[1 : 1 + lead],
                *[1] * (before - lead),
                *sizes[1 + lead :],
            ]
            x = x.reshape(spread).expand(*rows, *sizes[1 + lead :])  # [B, …, own axes]
            tensors[name] = x.reshape(-1, *sizes[1 + lead :])  # [B …, own axes]
        types[name] = replace(types[name], axes=types[name].axes[lead:])
    return replace(op, tensors=tensors, types=types)


def for_rows(x: Tensor, rows: int) -> Tensor:
    """A value for each example, for each row of a batch with several rows per example."""
    several = rows // int(x.shape[0])
    repeated = x.unsqueeze(1).expand(-1, several, *x.shape[1:])
    return x if several == 1 else repeated.reshape(rows, *x.shape[1:])
