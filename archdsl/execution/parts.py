"""Gradients and weights of processes that train together: added up, and made equal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

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


class Request(Protocol):
    """A sum on its way, under MPI's names: `Test` lets it travel, `Wait` waits for it."""

    def Test(self) -> object: ...
    def Wait(self) -> object: ...


# Begins to add up an array over all processes, in place.
Begin = Callable[[NDArray[np.float32]], Request]


class BucketSum:
    """Adds up gradients over processes, in place, while the backward pass computes others.

    Several gradients are one message, a bucket. It is sent when all of them are `ready`; all
    processes send the same buckets in the same order, from the last weights, whose gradients
    come first, to the first ones.
    """

    def __init__(self, gradients: Sequence[Tensor], begin: Begin):
        self._gradients, self._begin = gradients, begin
        self._buckets = list(_buckets([*map(_size, gradients)]))
        self._missing = set(range(len(gradients)))
        self._sent = list[_Sent]()

    def ready(self, number: int) -> None:
        """Sends the buckets that are complete with this gradient, and lets others travel."""
        self._missing.discard(number)
        for each in self._sent:
            each.request.Test()
        while len(self._sent) < len(self._buckets):
            bucket = self._buckets[len(self._sent)]
            if not self._missing.isdisjoint(bucket):
                break
            tensors = [self._gradients[i] for i in bucket]
            numbers = np.concatenate([copy_out(each).ravel() for each in tensors])
            self._sent.append(_Sent(tensors, numbers, self._begin(numbers)))

    def finish(self) -> float:
        """Waits for the sums, all gradients being ready. Gives the sum of their squares."""
        return sum(each.finish() for each in self._sent)


def _size(tensor: Tensor) -> int:
    return int(np.prod(shape(tensor)))


def _buckets(sizes: list[int]) -> Iterator[list[int]]:
    """The numbers of the gradients in each bucket, the last ones first."""
    bucket, total = list[int](), 0
    for i, size in reversed(list(enumerate(sizes))):
        if bucket and total + size > BUCKET:
            yield bucket
            bucket, total = [], 0
        bucket, total = [*bucket, i], total + size
    if bucket:
        yield bucket


class _Sent(Frozen):
    """Gradients on their way: the tensors, their numbers, and the request."""

    bucket: list[Tensor]
    numbers: NDArray[np.float32]
    request: Request

    def finish(self) -> float:
        """Writes the sums to the tensors; gives the sum of their squares."""
        self.request.Wait()
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
