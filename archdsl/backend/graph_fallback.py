"""Launches kernels one by one if a driver refuses to run them as one graph.

CUDA refuses some graphs with "invalid argument" (tinygrad issue 9065). tinygrad then gives up,
although the same kernels run when each is launched.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from typing import Any

from tinygrad import UOp

from archdsl.backend.tinygrad_seam import Estimates, run_linear


def or_calls(graph: Any) -> Any:
    """A graph runner of tinygrad that falls back to single launches; None if there is none."""
    if graph is None:
        return None
    runner: Any = graph.func if isinstance(graph, functools.partial) else graph

    class GraphOrCalls(_GraphOrCalls):
        make = staticmethod(graph)
        supports_uop = staticmethod(runner.supports_uop)

    return GraphOrCalls


class _GraphOrCalls:
    make: Any

    def __init__(self, graph: UOp, input_uops: tuple[UOp, ...] = ()):
        self._linear = graph.src[0]
        self._graph: Any = None
        try:
            self._graph = self.make(graph, input_uops=input_uops)
        except RuntimeError as error:
            self._warn(error)

    @property
    def estimates(self) -> Estimates:
        found: Estimates = self._graph.estimates if self._graph else Estimates()
        return found

    def __call__(
        self, input_uops: tuple[UOp, ...], var_vals: Mapping[str, int], wait: bool = False
    ) -> float | None:
        if self._graph:
            try:
                seconds: float | None = self._graph(input_uops, var_vals, wait=wait)
                return seconds
            except RuntimeError as error:
                self._graph = None
                self._warn(error)
        run_linear(self._linear, dict(var_vals), input_uops=input_uops, jit=True)
        return None

    def _warn(self, error: RuntimeError) -> None:
        count = len(self._linear.src)
        what = f"the device refuses a graph of {count} kernels, which are launched one by one"
        warnings.warn(f"{what}: {error}", stacklevel=3)
