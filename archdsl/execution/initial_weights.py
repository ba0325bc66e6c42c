"""Initial weights, drawn on the host from the seed and the weight's path. So they are equal on
every device, and a change elsewhere in the model does not change them."""

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


def initial_weights(
    weights: Mapping[str, Weight], rule: str, numbers: Mapping[str, float], seed: int
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The initial value of every weight, by path, in order. All cores draw a few ahead."""
    from concurrent.futures import (
        ThreadPoolExecutor,
    )  # not needed when weights come from a file

    cores = os.cpu_count() or 1
    ahead: deque[tuple[str, Future[NDArray[np.float32]]]] = deque()
    with ThreadPoolExecutor(cores) as pool:
        for path, weight in weights.items():
            ahead.append((path, pool.submit(draw_weight, path, weight, rule, numbers, seed)))
            if len(ahead) > cores:
                first, value = ahead.popleft()
                yield first, value.result()
        for path, value in ahead:
            yield path, value.result()


def random_numbers(path: str, seed: int) -> np.random.Generator:
    """The random numbers of the weight at a path; no other weight has them."""
    words = np.random.SeedSequence([seed, zlib.crc32(path.encode())])
    return np.random.Generator(np.random.Philox(words))


def draw_weight(
    path: str, weight: Weight, rule: str, numbers: Mapping[str, float], seed: int
) -> NDArray[np.float32]:
    """The initial value of a weight, float32, of the weight's shape.

    `normal(std)`: matrices and embeddings from N(0, std), by default 0.02 (Radford et al. 2018,
    section 4.1). `xavier`: matrices uniform within ±sqrt(6 / (in + out)) (Glorot and Bengio
    2010, equation 16), embeddings from N(0, 1 / sqrt(D)), of unit length on average. Biases
    start at 0 and scales at 1, unless their operator states another number. A weight with a
    `std` of its own is drawn from N(0, std).
    """
    match weight.init:
        case float():
            return np.full(weight.shape, weight.init, np.float32)
        case "zeros":
            return np.zeros(weight.shape, np.float32)
        case "ones":
            return np.ones(weight.shape, np.float32)
    random = random_numbers(path, seed)
    if rule == "xavier" and weight.init == "matrix":
        reach = np.float32(np.sqrt(6 / (weight.shape[0] + weight.shape[1])))
        return (2 * random.random(weight.shape, np.float32) - 1) * reach
    std = weight.std
    if std is None:
        width = weight.shape[-1] if weight.shape else 1
        std = width**-0.5 if rule == "xavier" else numbers["std"]
    value = random.standard_normal(weight.shape, np.float32)
    value *= np.float32(std)  # in place, so that the largest weight is not in memory twice
    return value
