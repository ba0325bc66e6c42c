"""Scans that are linear in their state, computed for many positions at once.

`passes/recurrences.py` finds the parts of the update. Values of the body that do not use the
state are computed for all positions at once, which become rows of a batch. The letters of the
shapes are those of `recurrence.py`: H heads, K keys and V values; N are the axes of the state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from math import prod
from typing import Any

from tinygrad import Tensor

from archdsl.backend import recurrence
from archdsl.backend.context import ExecutionContext
from archdsl.backend.scan import first_state, in_float32, positions
from archdsl.backend.tensors import make_contiguous, shape
from archdsl.graph.nodes import Apply, Scan
from archdsl.passes.linear_states import Term
from archdsl.passes.recurrences import Plan
from archdsl.passes.select_kernels import TINYGRAD

Call = Callable[[ExecutionContext, Apply, Mapping[str, Any]], Tensor]

PIECE = 512  # positions at once, if the states of all are needed


def linear_scan(
    context: ExecutionContext, node: Scan, plan: Plan, values: Mapping[str, Any], call: Call
) -> tuple[Tensor, Tensor]:
    """The value of a scan, [B, T, …], and the state after the last position, [B, …]."""
    body = _Body(context, node, values, call, 0, positions(context, node))
    state = body.rows(first_state(context, node, values))
    if plan.q is not None:
        return _attention(body, plan, state)
    found = []
    for first in range(0, body.count, PIECE):
        last = min(first + PIECE, body.count)
        piece = _Body(context, node, values, call, first, last)
        all, end = _states(piece, plan, state)  # [B, T, N]
        found.append(piece.read(all, state))
        state = context.realize_layer(end)
    return found[0] if len(found) == 1 else found[0].cat(*found[1:], dim=1), state


def _states(body: _Body, plan: Plan, start: Tensor) -> tuple[Tensor, Tensor]:
    """All states after their updates, [B, T, N], and the last one, [B, N]."""
    decay = body.total(plan.decays)  # [B, T, N], axes that it lacks have size 1
    writes = body.total(plan.writes)  # [B, T, N]
    decay, writes = body.kept(decay, 1), body.kept(writes, 0)
    writes = writes.expand(body.batch, body.count, *shape(start)[1:])  # [B, T, N]
    found: tuple[Tensor, Tensor] = recurrence.scan(
        make_contiguous(decay), make_contiguous(writes), start, body.kernel
    )
    return found


def _attention(body: _Body, plan: Plan, start: Tensor) -> tuple[Tensor, Tensor]:
    """What is read of the states, [B, T, …], and the last state, [B, N]."""
    assert plan.q is not None
    assert plan.k is not None
    assert plan.v is not None
    heads, keys, values = plan.heads, plan.keys, plan.values
    sizes = shape(start)[1:]
    H, K, V = (prod(sizes[axis] for axis in axes) for axes in (heads, keys, values))

    def vectors(term: Term, valid: float | None = None, shared: bool = False) -> Tensor:
        """A product of factors, [B, T, H, K]."""
        found = body.product(term)
        found = found if valid is None else body.kept(found, valid)
        return body.grouped(found, (heads, keys), sizes, shared)  # [B, T, H, K]

    v = body.grouped(body.product(plan.v), (heads, values), sizes)  # [B, T, H, V]
    v = v.expand(body.batch, body.count, H, V)
    q = vectors(plan.q, shared=True)
    k = vectors(plan.k, 0, shared=True)
    decay = body.kept(body.total(plan.decays), 1)  # [B, T, N]
    per_value = any(shape(decay)[axis + 2] != 1 for axis in values)
    per_key = any(shape(decay)[axis + 2] != 1 for axis in keys)
    groups = (heads, keys, values) if per_value else (heads, keys) if per_key else (heads,)
    decay = body.grouped(decay, groups, sizes)  # [B, T, H], [B, T, H, K] or [B, T, H, K, V]
    order = (*heads, *keys, *values)
    state = start.permute(0, *(axis + 1 for axis in order))  # [B, H, K, V]
    state = make_contiguous(state.reshape(-1, H, K, V))  # [B, H, K, V]
    q, k, v, decay = (make_contiguous(each) for each in (q, k, v, decay))
    if plan.a is None or plan.b is None:
        y, end = recurrence.linear_attention(q, k, v, decay, state, plan.before, body.kernel)
    else:
        a, b = vectors(plan.a, 0), vectors(plan.b)
        y, end = recurrence.delta_rule(
            *(q, k, v, decay, make_contiguous(a), make_contiguous(b)),
            *(state, plan.before, body.kernel),
        )
    kept = (*heads, *values)
    y = y.reshape(body.batch, body.count, *(sizes[axis] for axis in kept))  # [B, T, H, V]
    y = y.permute(0, 1, *(kept.index(axis) + 2 for axis in plan.read_axes))  # [B, T, …]
    end = end.reshape(body.batch, *(sizes[axis] for axis in order))  # [B, H, K, V]
    return y, end.permute(0, *(order.index(axis) + 1 for axis in range(len(order))))


class _Body:
    """The values of a scan's body at the positions `first` to `last`, [B, T, …] each.

    A value that is the same for each example or at each position has the size 1 there.
    """

    def __init__(
        self,
        context: ExecutionContext,
        node: Scan,
        values: Mapping[str, Any],
        call: Call,
        first: int,
        last: int,
    ):
        self.context, self.node, self.values, self.call = context, node, values, call
        self.first, self.last, self.count = first, last, last - first
        self.batch = context.program.batch
        # The kernels have no gradient.
        self.kernel = TINYGRAD if context.trains or not node.kernels else node.kernels[0]
        self.rank = len(node.carry_type.axes)
        self.nodes = {each.id: each for each in node.body}
        self.takes = {each.id: each.of for each in node.takes}
        self.found: dict[str, Tensor] = {}

    def rows(self, state: Tensor) -> Tensor:
        """A state for each example of the batch."""
        return state.expand(self.batch, *state.shape[1:])

    def of(self, ref: str) -> Tensor:
        """A value of the body, or of outside: [B, T, …]."""
        if ref not in self.found:
            if ref in self.takes:
                each = in_float32(self.values[self.takes[ref]])  # [B, T, …]
                self.found[ref] = make_contiguous(each)[:, self.first : self.last]
            elif ref in self.nodes:
                self.found[ref] = self.compute(self.nodes[ref])
            else:
                self.found[ref] = in_float32(self.values[ref]).unsqueeze(1)  # [B, 1, …]
        return self.found[ref]

    def compute(self, node: Apply) -> Tensor:
        """A value of the body from others, with the positions as rows: [B, T, …]."""
        seen = {ref: self.of(ref) for _, ref in node.inputs}
        B, T = (max([1, *(shape(each)[i] for each in seen.values())]) for i in (0, 1))
        rows = {
            ref: each.expand(B, T, *each.shape[2:]).reshape(B * T, *each.shape[2:])
            for ref, each in seen.items()
        }
        found = in_float32(self.call(self.folded(B * T), node, rows))  # [B T, …]
        all: Tensor = found.expand(B * T, *found.shape[1:])
        return all.reshape(B, T, *found.shape[1:])

    def folded(self, rows: int) -> ExecutionContext:
        """The context of operators on this many rows."""
        key = ("folded", rows)
        shared: dict[tuple[object, ...], Any] = self.context.shared
        if key not in shared:
            program = replace(self.context.program, batch=rows)
            shared[key] = replace(self.context, program=program, shared={}, probe=None)
        found: ExecutionContext = shared[key]
        return found

    # -- terms --

    def product(self, term: Term) -> Tensor:
        """The product of a term's factors, [B, T, N]; axes that no factor has are 1."""
        found: Tensor | None = None
        for factor in term.factors:
            each = self.of(factor.ref)
            order = sorted(range(len(factor.axes)), key=lambda i: factor.axes[i])
            each = each.permute(0, 1, *(i + 2 for i in order))
            sizes = [1] * self.rank
            for size, axis in zip(each.shape[2:], sorted(factor.axes), strict=True):
                sizes[axis] = int(size)
            each = each.reshape(*each.shape[:2], *sizes)  # [B, T, N]
            each = each.reciprocal() if factor.inverse else each
            found = each if found is None else found * each
        if found is None:
            ones = (1, 1, *[1] * self.rank)
            return Tensor.full(ones, term.number, device=self.context.device)
        return found if term.number == 1 else found * term.number

    def total(self, terms: Iterable[Term]) -> Tensor:
        """The sum of terms, [B, T, N]; 0 without terms."""
        products = [self.product(term) for term in terms]
        found = products[0] if products else self.product(Term(0.0, ()))
        for each in products[1:]:
            found = found + each
        return found

    def kept(self, value: Tensor, other: float) -> Tensor:
        """A value [B, T, N], and `other` at positions that leave the state unchanged."""
        if self.node.valid is None:
            return value
        valid = self.values[self.node.valid][:, self.first : self.last]  # [B, T]
        valid = valid.reshape(*valid.shape, *[1] * self.rank)  # [B, T, 1, …]
        found: Tensor = valid.where(value, other)  # [B, T, N]
        return found

    def grouped(
        self,
        value: Tensor,
        groups: tuple[tuple[int, ...], ...],
        sizes: tuple[int, ...],
        shared: bool = False,
    ) -> Tensor:
        """A value [B, T, N] with each group of axes as one, for each example and position.

        If heads can be `shared`, the first group keeps the size of its first axes, if the value
        has no others of them.
        """
        axes = [axis for group in groups for axis in group]
        own = shape(value)[2:]
        value = value.permute(0, 1, *(axis + 2 for axis in axes), *self.others(axes))
        wanted, merged = list[int](), list[int]()
        for i, group in enumerate(groups):
            has = [own[axis] != 1 for axis in group]
            if shared and i == 0 and has == sorted(has, reverse=True):
                inside = [own[axis] for axis in group]
            else:
                inside = [sizes[axis] for axis in group]
            wanted += inside
            merged.append(prod(inside))
        value = value.reshape(*value.shape[:2], *(own[axis] for axis in axes))
        value = value.expand(self.batch, self.count, *wanted)
        return value.reshape(self.batch, self.count, *merged)

    def others(self, axes: list[int]) -> list[int]:
        return [axis + 2 for axis in range(self.rank) if axis not in axes]

    # -- values that use the state --

    def read(self, states: Tensor, start: Tensor) -> Tensor:
        """The value of the scan, [B, T, …], from the states after each update, [B, T, N]."""
        node = self.node
        if node.output == node.result:
            return states
        self.found[node.result] = states
        before = start.unsqueeze(1)  # [B, 1, N]
        self.found[node.carry] = before.cat(states[:, :-1], dim=1)  # [B, T, N]
        found = self.of(node.output)
        return found.expand(self.batch, self.count, *found.shape[2:])
