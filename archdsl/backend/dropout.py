"""Dropout (Srivastava et al. 2014) whose random numbers follow from a key and a place.

The same key gives the same mask at the same place of a model. So a step of training can be
computed again, in another process too, and nothing but the key must be stored.
"""

from __future__ import annotations

import zlib
from math import prod

from tinygrad import Tensor, dtypes

from archdsl.backend.context import OpCall
from archdsl.backend.tensors import shape


def dropout(op: OpCall) -> Tensor:
    """x [B, …] with a share of `rate` numbers set to 0, and the others divided by 1 - rate.

    Without a key, tinygrad's TRAINING and its random numbers decide.
    """
    rate, key = op.attr["rate"], op.context.key
    if key is None:
        return op.x.dropout(rate)  # as x
    if rate == 0:
        return op.x
    first = Tensor.arange(2, dtype=dtypes.uint32) == 0  # [2]
    layer, *inner = op.layer or (0,)
    name = zlib.crc32(f"{inner} {op.place}".encode())
    place = first.where(name, op.context.layer_number(layer)).cast(dtypes.uint32)  # [2]
    bits = Tensor.random_bits(key, place, prod(shape(op.x)))  # [B …]
    kept = (bits >= round(rate * 2**32)).reshape(op.x.shape).contiguous()  # [B, …]
    dropped: Tensor = kept.where(op.x / (1 - rate), 0).cast(op.x.dtype)  # as x
    return dropped
