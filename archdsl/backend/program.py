"""Programs: functions of tensors that are compiled to kernels once and run many times."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tinygrad import Tensor, UOp

from archdsl.backend.fork import refuse_forked_process
from archdsl.backend.graph_fallback import or_calls
from archdsl.backend.kernels.graph_runner import runner_for, unused_from
from archdsl.backend.program_cache import ProgramCache, is_cacheable
from archdsl.backend.stored_program import Constants, Known, StoredProgram, graph_of
from archdsl.backend.tensors import refuse_full_device
from archdsl.backend.tinygrad_memory import forget_kernels
from archdsl.backend.tinygrad_seam import (
    TRAINING,
    JitBase,
    Ops,
    current_capture,
    graph_runner,
    one_thread,
    to_program_cache,
)
from archdsl.progress import doing

# tinygrad's settings for compilation. TC_OPT=2 pads sizes to multiples of a tensor core's.
# Without SPLIT_REDUCEOP=0, tinygrad splits a lookup in a large table into partial sums before
# it sees that it is a lookup.
OPTIONS = {"TC_OPT": 2, "SPLIT_REDUCEOP": 0}

if TYPE_CHECKING:
    from archdsl.backend.tuning import Tuner

T = TypeVar("T")


class Program(Generic[T]):
    """A function of realized tensors, which is always called with the same shapes.

    Its results are realized tensors, and the next call overwrites them. A `tuner` searches
    faster kernels.

    With a `key`, which describes the function, the program is stored, and a later process runs
    it without tracing: see `stored_program.py`. `known` returns the other tensors that the
    function uses, by name; `constants` are tables by the values they depend on. A program whose
    tensors are `spread` over several devices is run by tinygrad, and not stored.
    """

    def __init__(
        self,
        function: Callable[..., T],
        device: str,
        tuner: Tuner | None = None,
        *,
        key: tuple[object, ...] | None = None,
        known: Callable[[], Known] = dict,
        constants: Constants | None = None,
        spread: bool = False,
    ):
        self._run: Any = _Jit(function, device, tuner)
        self._cache = None
        if key is not None and tuner is None and not spread and is_cacheable(device):
            self._cache = ProgramCache(
                key, function, known, {} if constants is None else constants
            )
        # tinygrad would capture only the second call, and compute everything twice.
        self._run.cnt = 1
        self._watched: Sequence[Tensor] = ()
        self._device = device
        # Of ours; None if tinygrad runs its own.
        self._runner = None if spread else runner_for(device)
        # It takes the whole program, not batches of calls.
        self._options = OPTIONS | ({"JIT_BATCH_SIZE": 0} if self._runner else {})
        if TRAINING:
            # Create the device's counter of random numbers now, outside the program.
            Tensor.rand(1, device=device).realize()

    def __call__(self, *given: Any, **named: Any) -> T:
        try:
            found = self._called(*given, **named)
            if self._watched:
                self._watch()
            return found
        except (MemoryError, RuntimeError) as error:
            refuse_full_device(error, self._device)
            raise

    def watch(self, tensors: Sequence[Tensor], ready: Callable[[int], None]) -> None:
        """In each run, `ready(i)` is called when no kernel that follows uses tensor i.

        The first run, and a program that does not run as one table of kernels on the CPU, make
        these calls at the end.
        """
        self._watched, self._ready = tensors, ready

    def _watch(self) -> None:
        """Calls what waits for tensors, and sets the pauses of the next runs."""
        stored = isinstance(self._run, StoredProgram)
        graph = self._run if stored else graph_of(self._run.captured)
        calls = [partial(self._ready, i) for i in range(len(self._watched))]
        if graph is not None:
            rows = [unused_from(graph.table, each) for each in self._watched]
            graph.pauses = sorted(zip(rows, calls, strict=True), key=itemgetter(0))
            self._watched = ()
        for call in calls:
            call()

    def _called(self, *given: Any, **named: Any) -> T:
        if self._cache:
            with one_thread:  # it opens devices, which a compilation in another thread forbids
                stored = self._cache.load(given, named)
            if stored:
                self._run, self._cache = stored, None
        found: T
        if isinstance(self._run, StoredProgram) or self._run.captured:
            found = self._run(*given, **named)
            return found
        refuse_forked_process()
        newest = next(UOp.unique_num)
        with self._compiling(), graph_runner(self._device, self._graph, self._options):
            found = self._run(*given, **named)
            forget_kernels()
        if self._cache:
            self._cache.save(self._run.captured, newest)
            self._cache = None
        return found

    def _graph(self, own: Any) -> Any:
        """The graph runner: ours, or tinygrad's own."""
        return self._runner or or_calls(own)

    def _compiling(self) -> AbstractContextManager[object]:
        before = len(to_program_cache)
        what = f"compiling for {self._device}"
        return doing(what, "kernels", None, lambda: len(to_program_cache) - before)


class _Jit(JitBase[Any]):
    """tinygrad's JIT, with tuning of captured programs and faster repeated calls."""

    def __init__(self, function: Callable[..., Any], device: str, tuner: Tuner | None):
        super().__init__(function if tuner is None else self._tuned)
        self._function, self._device, self._tuner = function, device, tuner
        self._known: list[UOp] = []

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Skips tinygrad's checks of arguments if they are the tensors of the last call.

        The checks take as long as a small model.
        """
        everything = (*given, *(named[name] for name in sorted(named)))
        uops = [each.uop for each in everything if isinstance(each, Tensor)]
        bound = [each for each in everything if isinstance(each, UOp)]
        known = len(uops) == len(self._known) and all(map(operator.is_, uops, self._known))
        if self.captured is None or not known or len(uops) + len(bound) < len(everything):
            found = super().__call__(*given, **named)
            self._known = [each.uop for each in everything if isinstance(each, Tensor)]
            return found
        values = {variable.expr: value for variable, value in (b.unbind() for b in bound)}
        return self.captured([uop.base for uop in uops], values)

    def _tuned(self, *given: Any, **named: Any) -> Any:
        found = self._function(*given, **named)
        if current_capture() and self._tuner:
            calls = UOp(Ops.LINEAR, src=tuple(c for part in self._linears for c in part.src))
            self._linears = [self._tuner.tuned(calls, self._device)]
        return found
