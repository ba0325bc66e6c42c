"""A model's tokens, a few at a time: the state that it keeps, and the logits of what is next.

What is kept and what is computed anew is derived by passes/decoding.py. Programs are captured
once for a number of rows and of new tokens, and serve all positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tinygrad import Tensor, UOp

from archdsl.backend import step
from archdsl.backend.program import Program
from archdsl.backend.tensors import copied, get, placed, put, zeros
from archdsl.backend.use import TILE, Run
from archdsl.backend.walk import prepared
from archdsl.diagnostics import ArchError, Diagnostic
from archdsl.graph.nodes import Graph, Input, walk
from archdsl.passes.decoding import Decoding, State, decoding
from archdsl.progress import doing
from archdsl.runtime import inputs
from archdsl.runtime.model import Model

Rows: TypeAlias = NDArray[np.int64]
Logits: TypeAlias = NDArray[np.float32]
# A value's id, and the copies of the stacks around it.
Key: TypeAlias = tuple[str, tuple[int, ...]]

CHUNK = 32  # new tokens that are computed together
CHUNKS = (4 * CHUNK, CHUNK)  # where there is no window: fewer programs, longer ones
FEW = 8  # fewer than these go one by one


class Decoder:
    """A model fed with its tokens step by step, `rows` sequences at once.

    `limit` is how many tokens a row can have, the model's bound where None. Raises `ArchError`
    for a model that does not predict tokens, or not causally.
    """

    def __init__(self, model: Model, rows: int, limit: int | None = None):
        self.model = model
        self.plan: Decoding = decoding(model.graph)
        self.rows = rows
        self.bound = {v.name: v.bound for v in model.graph.varying}[self.plan.axis]
        self.limit = self.bound if limit is None else limit
        if not 1 <= self.limit <= self.bound:
            raise ArchError(
                Diagnostic(
                    "generation",
                    f"`{model.graph.name}` has no sequences of {limit} tokens",
                    expected=f"1 to {self.bound}",
                )
            )
        # Rows that are shorter than others, and the last chunk, need room in front; whole
        # tiles of columns are seen.
        self.room = -(-(self.limit + CHUNK) // TILE) * TILE
        self._rings = any(state.window for state in self.plan.states)
        self._past = UOp.variable("past", 0, self.room - 1)
        self._keys, self._values = (self._buffers(i) for i in (0, 1))
        self._steps: dict[tuple[object, ...], Program[Any]] = {}
        # What each step is given: new tokens, by how many there are, and where rows begin.
        self._new: dict[int, Tensor] = {}
        self._begins = self._room((rows,))
        self._moved = model.program(self._move, self._key("move"), self._state())
        self._kept: dict[Key, Tensor] = {}
        self._sizes: dict[str, int] = {}
        self._lengths: dict[str, Tensor] = {}
        self.reset()

    def _buffers(self, part: int) -> dict[Key, Tensor]:
        """Room for the keys or the values of every copy of every causal attention."""
        found = {}
        for state in self.plan.states:
            if state.past:
                _, *sizes = (axis.size for axis in state.types[part].axes)
                columns = self._ring(state.window) if state.window else self.room
                for copy in _copies(self.plan, state):
                    shape = (self.rows, columns, *(size.at({}) for size in sizes))
                    found[state.ref, copy] = self._room(shape, self.model.dtype)
        return found

    def _room(self, shape: tuple[int, ...], dtype: str = "int32") -> Tensor:
        return zeros(shape, self.model.device, dtype)

    def _state(self) -> dict[str, Tensor]:
        """What programs write in place, by name."""
        both = (("keys", self._keys), ("values", self._values))
        return {f"{name} {key}": room for name, each in both for key, room in each.items()}

    def _key(self, *program: object) -> tuple[object, ...]:
        """What tells a program of the decoder from the model's others."""
        return ("decoder", self.rows, self.limit, *program)

    def _ring(self, window: int) -> int:
        """Places for the columns in a window and those of a chunk, whole chunks of them."""
        return min(-(-(window + CHUNK) // CHUNK) * CHUNK, self.room)

    def reset(self) -> None:
        """Forgets every token; what was made of the other inputs stays."""
        self.columns = 0
        self._starts = np.zeros(self.rows, np.int32)

    def keep(self, tokens: int) -> int:
        """Forgets all but the first `tokens` of every row, which are of one length.

        How many are left is returned: none where a window has moved beyond them.
        """
        columns = min(self.columns, int(self._starts[0]) + tokens)
        slack = [self._ring(w) - w for s in self.plan.states if (w := s.window)]
        if self.columns - columns > min(slack, default=self.columns):
            self.reset()
            return 0
        self.columns = columns
        return columns - int(self._starts[0])

    def begin(self, **given: Any) -> None:
        """Takes the inputs that do not come step by step, each [rows, …], and starts anew."""
        self.reset()
        graph = self.plan.graph
        others = tuple(each for each in graph.inputs if each.name != self.plan.tokens)
        arrays = inputs.check(_of(graph, others), given)
        tensors = {name: self.model._given(array).realize() for name, array in arrays.items()}
        run = self._run()
        prepared(run, tensors)
        self._sizes, self._lengths = (
            dict(run.sizes),
            {
                name: length.cast("int").contiguous().realize()
                for name, length in run.lengths.items()
            },
        )
        if not any(not state.past for state in self.plan.states):
            return
        shapes = tuple((name, tensor.shape) for name, tensor in tensors.items())
        once = self.model.program(self._once, self._key("once"))
        made = self._steps.setdefault(("once", shapes), once)(**tensors)
        self._kept = {key: copied(made[_name(*key)]) for key in self._kept_keys()}

    def _kept_keys(self) -> list[Key]:
        return [
            (state.ref, copy)
            for state in self.plan.states
            if not state.past
            for copy in _copies(self.plan, state)
        ]

    def _once(self, **tensors: Tensor) -> dict[str, Tensor]:
        made = step.once(self._run(), self.plan, tensors)
        found = {_name(*key): made[key].clone() for key in self._kept_keys()}
        Tensor.realize(*found.values())
        return found

    def _run(self) -> Run:
        return self.model.running(self.plan.graph)

    # -- tokens --

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Logits:
        """Feeds a prompt to each row, of whatever length each is: logits [rows, vocab] of the
        token after each."""
        self.reset()
        longest = max(map(len, prompts))
        self._fits(longest)
        size = longest if longest < FEW else -(-longest // CHUNK) * CHUNK
        tokens = np.zeros((self.rows, size), np.int64)
        for row, prompt in enumerate(prompts):
            tokens[row, size - len(prompt) :] = prompt
            self._starts[row] = size - len(prompt)
        return self._feed(tokens, last=True)[:, -1]

    def feed(self, tokens: Rows, last: bool = False) -> Logits:
        """Feeds [rows, n] new tokens: logits [rows, n, vocab] of the token after each, or
        [rows, 1, vocab] of that after the `last`."""
        longest = self.columns - int(self._starts.min()) + tokens.shape[1]
        self._fits(longest)
        return self._feed(tokens, last)

    def _feed(self, tokens: Rows, last: bool) -> Logits:
        found: list[Logits] = []
        before = self.columns
        with doing("reading", "tokens", tokens.shape[1], lambda: self.columns - before):
            while tokens.size:
                n = self._next(tokens.shape[1])
                found.append(self._step(tokens[:, :n], last))
                tokens = tokens[:, n:]
        return found[-1][:, -1:] if last else np.concatenate(found, axis=1)

    def _next(self, count: int) -> int:
        """How many of so many new tokens are computed together now."""
        if self._rings and self.columns % CHUNK:
            return 1  # a chunk stands whole in a ring: it begins where one may begin
        chunks = CHUNKS[-1:] if self._rings else CHUNKS
        room = min(count, self.room - self.columns)
        return next((chunk for chunk in chunks if chunk <= room), 1)

    def _step(self, tokens: Rows, last: bool) -> Logits:
        n = tokens.shape[1]
        last = last and n > 1
        sizes = tuple(sorted(self._sizes.items()))
        key = (n, last, sizes)
        if key not in self._steps:
            named = self._key("step", *key)
            self._steps[key] = self.model.program(self._program(last), named, self._state())
        if n not in self._new:
            self._new[n] = self._room((self.rows, n))
        put(self._new[n], tokens.astype(np.int32))
        put(self._begins, self._starts)
        given = {_name(*name): tensor for name, tensor in self._kept.items()}
        given |= {f"length_{name}": length for name, length in self._lengths.items()}
        logits = self._steps[key](
            self._new[n], self._begins, self._past.bind(self.columns), **given
        )
        self.columns += n
        return get(logits)

    def _program(self, last: bool) -> Any:
        def program(tokens: Tensor, starts: Tensor, past: Any, **given: Tensor) -> Tensor:
            run = self._run()
            run.sizes |= self._sizes
            run.lengths |= {name: given[f"length_{name}"] for name in self._lengths}
            kept = {key: given[_name(*key)] for key in self._kept}
            here = step.Step(
                run, self.plan, past, self.room, starts, kept, self._keys, self._values
            )
            logits = step.step(here, tokens, last)
            return logits.cast("float").contiguous().realize()

        return program

    def reorder(self, parents: Sequence[int]) -> None:
        """Row i goes on as a copy of the row `parents[i]`: keys, values and all."""
        if list(parents) == list(range(self.rows)):
            return
        index = placed(np.asarray(parents, np.int32), self.model.device, "int32")
        self._moved(index)
        self._starts = self._starts[np.asarray(parents)]

    def _move(self, index: Tensor) -> None:
        buffers = (*self._keys.values(), *self._values.values())
        Tensor.realize(*(each.assign(each[index].contiguous()) for each in buffers))

    def _fits(self, tokens: int) -> None:
        if tokens > self.limit:
            raise ArchError(
                Diagnostic(
                    "generation",
                    f"the context of `{self.model.graph.name}` ends after {self.limit} tokens",
                    found=f"{tokens} tokens",
                )
            )


def _copies(plan: Decoding, state: State) -> list[tuple[int, ...]]:
    """The numbers of the copies of the stacks around a value, for each of its copies."""
    for node, around in walk(plan.graph.nodes):
        if node.id == state.ref:
            return list(product(*(range(stack.count) for stack in around)))
    return [()]


def _name(ref: str, copy: tuple[int, ...]) -> str:
    return "_".join(["kept", ref.removeprefix("%"), *map(str, copy)])


def _of(graph: Graph, others: tuple[Input, ...]) -> Graph:
    """A graph of these inputs alone, to hold values against."""
    names = {name for each in others for name in each.type.vars}
    varying = tuple(v for v in graph.varying if v.name in names)
    return replace(graph, inputs=others, varying=varying)
