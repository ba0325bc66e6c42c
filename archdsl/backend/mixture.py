"""Mixtures of experts: all experts for all vectors, or on the CPU each for those that chose it.

tinygrad's kernels have fixed sizes, so it computes all experts, and gates of 0 remove what was
not chosen. The C kernels compute the first vectors of an expert's batch, as many as chose it:
none of its weights are read if none did.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tinygrad import Tensor, dtypes

from archdsl.backend.context import ExecutionContext
from archdsl.backend.kernels import experts
from archdsl.backend.tensors import make_contiguous, shape
from archdsl.graph.nodes import Mixture
from archdsl.passes.select_kernels import CPU

Expert = Callable[[int, Tensor], Tensor]  # the values of expert i for vectors [N, D]: [N, D']


def mixture(
    context: ExecutionContext, node: Mixture, x: Tensor, gates: Tensor, expert: Expert
) -> Tensor:
    """The sum of the experts for x [B, …, D], times their gates [B, …, count]: [B, …, D']."""
    vectors = make_contiguous(x).reshape(-1, shape(x)[-1])  # [N, D]
    weights = gates.cast(dtypes.float32).reshape(-1, node.count).contiguous()  # [N, count]
    few = context.target == CPU and not context.trains and node.chosen < node.count
    total = (_chosen if few else _all)(context, node, vectors, weights, expert)  # [N, D']
    dtype = dtypes.float32 if node.id in context.wide else x.dtype
    result: Tensor = total.reshape(*shape(x)[:-1], shape(total)[-1]).cast(dtype)
    return result


def _all(
    context: ExecutionContext, node: Mixture, x: Tensor, gates: Tensor, expert: Expert
) -> Tensor:
    total = None
    for i in range(node.count):
        part = expert(i, x).cast(dtypes.float32) * gates[:, i : i + 1]  # [N, D']
        total = part if total is None else total + part
    assert total is not None
    return total


def _chosen(
    context: ExecutionContext, node: Mixture, x: Tensor, gates: Tensor, expert: Expert
) -> Tensor:
    dtype, total = x.dtype, None
    x = x.cast(dtypes.float32).contiguous()  # [N, D]
    for i in range(node.count):
        which = context.constant(("expert", i), lambda i=i: np.array([i], np.int32))  # type: ignore[misc]
        own, rows = experts.gather_rows(x, gates, which)  # [N, D], [1 + N]
        outer, context.chosen_rows = context.chosen_rows, rows
        part = expert(i, own.cast(dtype)).cast(dtypes.float32)  # [N, D']
        context.chosen_rows = outer
        total = experts.scatter_rows(total, part.contiguous(), gates, which, rows)
    assert total is not None
    return total
