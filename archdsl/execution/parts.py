"""Gradients and weights of processes that train together: added up, and made equal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from tinygrad import Tensor

from archdsl.backend.tensors import copy_in, copy_out, shape
from archdsl.backend.tinygrad_seam import one_thread
from archdsl.execution.executable import Executable
from archdsl.execution.train_step import TrainStep
from archdsl.formats.host import bits_of
from archdsl.frozen import Frozen

BUCKET = 1 << 22  # numbers that are added up at once, 16 MiB

# Begins to add up an array over all processes, in place; the result waits for the sum.
Begin = Callable[[NDArray[np.float32]], Callable[[], object]]


def add_in_buckets(gradients: Mapping[str, Tensor], begin: Begin) -> float:
    """Adds up gradients over processes, in place. Gives the sum of the squares of the sums.

    Several gradients are one message. While a bucket travels, the next one is copied.
    """
    square, waiting = 0.0, list[_Sent]()
    for bucket in _buckets(list(gradients.values())):
        numbers = np.concatenate([copy_out(each).ravel() for each in bucket])
        waiting.append(_Sent(bucket, numbers, begin(numbers)))
        if len(waiting) > 1:
            square += waiting.pop(0).finish()
    return square + sum(each.finish() for each in waiting)


def _buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    bucket, size = list[Tensor](), 0
    for each in tensors:
        count = int(np.prod(shape(each)))
        if bucket and size + count > BUCKET:
            yield bucket
            bucket, size = [], 0
        bucket, size = [*bucket, each], size + count
    if bucket:
        yield bucket


class _Sent(Frozen):
    """Gradients on their way: the tensors, their numbers, and a function that waits."""

    bucket: list[Tensor]
    numbers: NDArray[np.float32]
    wait: Callable[[], object]

    def finish(self) -> float:
        """Writes the sums to the tensors; gives the sum of their squares."""
        self.wait()
        start = 0
        for each in self.bucket:
            sizes = shape(each)
            end = start + int(np.prod(sizes))
            copy_in(each, self.numbers[start:end].reshape(sizes))
            start = end
        return float(np.square(self.numbers, dtype=np.float64).sum())


def make_equal(
    executable: Executable, step: TrainStep, send: Callable[[NDArray[np.uint8]], None]
) -> None:
    """Gives all processes the weights of the first one, and the state of its training.

    `send` overwrites an array with that of the first process.
    """
    for tensor in (*executable.parameters.in_memory().values(), *step.state().values()):
        with one_thread:
            bits = np.array(bits_of(tensor)).view(np.uint8).ravel()
        send(bits)
        copy_in(tensor, bits)
    numbers = np.array([step.scale, step.since_overflow], np.float64)
    send(numbers.view(np.uint8))
    step.scale, step.since_overflow = float(numbers[0]), int(numbers[1])
