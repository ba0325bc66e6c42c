"""Rotary position encodings: rotates pairs of features by angles that grow with position."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, floor, log, pi, sqrt
from typing import Any

import numpy as np
from tinygrad import Tensor, dtypes

from archdsl.backend.context import OpCall
from archdsl.backend.tensors import shape
from archdsl.graph.rotary import numbers


def rotary(op: OpCall) -> Tensor:
    T = shape(op.x)[1]
    if "at" in op.tensors:
        return rotate(op, op.context.rows(angles(op, T), op.tensors["at"], 1))  # [B, n, …, h]
    return rotate(op, angles(op, T)[:, :T].unsqueeze(1))  # [B, T, …, h]


def angles(op: OpCall, length: int) -> Tensor:
    """[2, bound, size / 2]: cosine and sine for each possible position.

    `length` is that of a whole sequence. A decoding step has at most `original` positions,
    so it uses the angles of a short sequence.
    """
    at = op.types.get("at")
    bound = op.context.bound(op.axes[0].size) if at is None else at.below
    assert bound is not None
    attr = dict(op.attr)
    long = attr["scaling"] in ("dynamic", "longrope") and length > attr["original"]
    if not long:
        length = 0
    elif attr["scaling"] == "longrope":
        length = attr["original"] + 1  # one table for all long sequences
    key = ("rotary", bound, length, *(v for name, v in attr.items() if name != "layout"))
    return op.context.constant(key, lambda: rotations(attr, bound, length))


def rotate(op: OpCall, table: Tensor) -> Tensor:
    """Rotates x [B, T, …, h] by cosines and sines [2, B or 1, T, size / 2]."""
    x: Tensor = op.x.cast(dtypes.float32)  # [B, T, …, h]
    size, axis = op.attr["size"], -2 if op.attr["layout"] == "halves" else -1
    one = [1] * (x.ndim - 3)
    table = table.reshape(*table.shape[:3], *one, size // 2)  # [2, B or 1, T, …, size / 2]
    cos, sin = table[0], table[1]  # [B or 1, T, …, size / 2] each

    pairs = (2, size // 2) if axis == -2 else (size // 2, 2)
    both = x[..., :size].reshape(*x.shape[:-1], *pairs)  # [B, T, …, *pairs]
    a, b = (half.squeeze(axis) for half in both.chunk(2, axis))  # [B, T, …, size / 2] each
    both = (a * cos - b * sin).stack(b * cos + a * sin, dim=axis)  # [B, T, …, *pairs]
    both = both.flatten(-2)  # [B, T, …, size]
    if size < shape(x)[-1]:
        both = both.cat(x[..., size:], dim=-1)  # [B, T, …, h]
    return both.cast(op.x.dtype).contiguous()  # [B, T, …, h]


def rotations(attr: Mapping[str, Any], bound: int, length: int = 0) -> np.ndarray:
    """[2, bound, size / 2]: cos and sin of the angle of each position and pair of features
    (Su et al. 2021, equation 15), with the scaling of the operator's documentation, for a
    sequence of this length."""
    angles = np.arange(bound)[:, None] * rates(attr, length)  # [bound, size / 2]
    both = np.stack([np.cos(angles), np.sin(angles)]) * scale(attr)  # [2, bound, size / 2]
    return both.astype(np.float32)


def rates(attr: Mapping[str, Any], length: int = 0) -> np.ndarray:
    """[size / 2]: the angle between neighbouring positions, for each pair of features."""
    size, factor, original = attr["size"], attr["factor"], attr["original"]
    theta = attr["theta"]
    if attr["scaling"] == "dynamic" and length > original and size > 2:
        theta *= (factor * length / original - (factor - 1)) ** (size / (size - 2))
    rates: np.ndarray = theta ** (-np.arange(0, size, 2) / size)  # [size / 2]
    unscaled: Any = 1.0  # the share of a rate that is not divided by the factor
    if attr["scaling"] == "linear":
        unscaled = 0.0
    elif attr["scaling"] == "llama3":
        turns = original * rates / (2 * pi)  # [size / 2]
        between = attr["high"] - attr["low"]
        unscaled = (turns - attr["low"]) / between if between else turns >= attr["low"]
    elif attr["scaling"] == "yarn":
        first, last = (
            size * log(original / (2 * pi * turns)) / (2 * log(theta))
            for turns in (attr["fast"], attr["slow"])
        )
        if attr["truncate"]:
            first, last = floor(first), ceil(last)
        first, last = max(first, 0), min(last, size - 1)
        width = last - first if last != first else 0.001
        unscaled = 1 - (np.arange(size // 2) - first) / width  # [size / 2]
    unscaled = np.clip(unscaled, 0, 1)
    rates = rates * (unscaled + (1 - unscaled) / factor)  # [size / 2]
    long = attr["scaling"] == "longrope" and length > original
    divisors = attr["long" if long else "factors"]
    return rates / np.array(numbers(divisors)) if divisors else rates


def scale(attr: Mapping[str, Any]) -> float:
    """The factor of the rotated features."""
    factor = attr["factor"]
    if attr["scale"] is not None:
        return float(attr["scale"])
    if attr["scaling"] == "yarn" and factor > 1:
        grown = 0.1 * log(factor)
        if attr["mscale"] and attr["mscale_all"]:
            return float((grown * attr["mscale"] + 1) / (grown * attr["mscale_all"] + 1))
        return grown + 1
    if attr["scaling"] == "longrope" and factor > 1:
        return sqrt(1 + log(factor) / log(attr["original"]))
    return 1.0
