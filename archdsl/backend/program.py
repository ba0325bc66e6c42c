"""Programs: functions of tensors that are made into kernels once, and run again and again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, TypeVar

from tinygrad import Tensor, TinyJit
from tinygrad.codegen import to_program_cache
from tinygrad.helpers import TRAINING, Context

from archdsl.progress import doing

# tinygrad's settings for making kernels of these tensors. TC_OPT: sizes that are no multiple
# of a tensor core's are filled up. SPLIT_REDUCEOP: a lookup in a large table, a sum until
# tinygrad sees that it is none, is not cut into partial sums before.
OPTIONS = {"TC_OPT": 2, "SPLIT_REDUCEOP": 0}

T = TypeVar("T")


class Program(Generic[T]):
    """A function of realized tensors, all of whose calls have tensors of the same shapes.

    What it returns is realized, and is written over by the next call.
    """

    def __init__(self, function: Callable[..., T], device: str):
        self._run: Any = TinyJit(function)
        # tinygrad would capture the second call, and so make everything twice.
        self._run.cnt = 1
        self._device = device
        self._new = True
        if TRAINING:
            # A device's counter of random numbers is no part of a program either.
            Tensor.rand(1, device=device).realize()

    def __call__(self, *given: Any, **named: Any) -> T:
        telling = self._compiling() if self._new else nullcontext()
        with telling, Context(**OPTIONS):  # type: ignore[no-untyped-call]  # not typed there
            found: T = self._run(*given, **named)
        self._new = False
        return found

    def _compiling(self) -> AbstractContextManager[object]:
        before = len(to_program_cache)
        what = f"compiling for {self._device}"
        return doing(what, "kernels", None, lambda: len(to_program_cache) - before)


def kept(tensor: Tensor) -> Tensor:
    """The tensor, made now and for good: no part of a program in whose making it is needed."""
    with Context(CAPTURING=0):  # type: ignore[no-untyped-call]
        return tensor.realize()
