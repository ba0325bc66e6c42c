"""Fresh weights: drawn on the host from the seed and the weight's path, so that they are the
same on every device and do not change when another part of a model does."""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from archdsl.graph.signature import Weight

if TYPE_CHECKING:
    from concurrent.futures import Future


def drawn(
    weights: Mapping[str, Weight], rule: str, numbers: Mapping[str, float], seed: int
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Every weight's first value by its path, in order; a few are drawn ahead, on all cores."""
    from concurrent.futures import ThreadPoolExecutor  # which weights from a file do not need

    cores = os.cpu_count() or 1
    ahead: deque[tuple[str, Future[NDArray[np.float32]]]] = deque()
    with ThreadPoolExecutor(cores) as pool:
        for path, weight in weights.items():
            ahead.append((path, pool.submit(draw, path, weight, rule, numbers, seed)))
            if len(ahead) > cores:
                first, value = ahead.popleft()
                yield first, value.result()
        for path, value in ahead:
            yield path, value.result()


def draw(
    path: str, weight: Weight, rule: str, numbers: Mapping[str, float], seed: int
) -> NDArray[np.float32]:
    """A weight's first value, float32 of the weight's shape.

    `normal(std)`: matrices and embeddings from N(0, std), 0.02 when not said, as in Radford
    et al. 2018, section 4.1. `xavier`: matrices uniform within sqrt(6 / (in + out)) (Glorot
    and Bengio 2010, equation 16), and embeddings from N(0, 1 / sqrt(D)), of unit length in
    the mean. Biases start at 0 and scales at 1, or at the number that their operator says.
    """
    match weight.init:
        case float():
            return np.full(weight.shape, weight.init, np.float32)
        case "zeros":
            return np.zeros(weight.shape, np.float32)
        case "ones":
            return np.ones(weight.shape, np.float32)
    words = np.random.SeedSequence([seed, zlib.crc32(path.encode())])
    random = np.random.Generator(np.random.Philox(words))
    if rule == "xavier" and weight.init == "matrix":
        reach = np.float32(np.sqrt(6 / (weight.shape[0] + weight.shape[1])))
        return (2 * random.random(weight.shape, np.float32) - 1) * reach
    std = weight.shape[-1] ** -0.5 if rule == "xavier" else numbers["std"]
    value = random.standard_normal(weight.shape, np.float32)
    value *= np.float32(std)  # in place: the largest would else be in memory twice
    return value
