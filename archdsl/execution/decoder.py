"""Step-by-step decoding: the caches of a batch of sequences, and the logits of the next token.

passes/split_decoding.py derives what is cached and what is computed at each step. A program is
captured once per batch size and number of new tokens; it serves all positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tinygrad import Tensor, UOp

from archdsl.backend import interpret
from archdsl.backend.context import TILE, ExecutionContext
from archdsl.backend.program import Program as Capture
from archdsl.backend.tensors import (
    copy_in,
    copy_out,
    copy_tensor,
    fill_zeros,
    to_device,
    zeros,
)
from archdsl.diagnostics import did_you_mean, fail
from archdsl.execution import inputs
from archdsl.execution.executable import Executable
from archdsl.execution.overflow import report_overflow
from archdsl.execution.ranges import LARGEST
from archdsl.graph.nodes import Graph, Input
from archdsl.graph.printer import show
from archdsl.passes.build_step_graph import CACHE_POSITIONS, LEFT_PAD, PAST
from archdsl.passes.decoding_analysis import CHUNK, State
from archdsl.passes.keep_last_position import keep_last_position
from archdsl.passes.program import Program, lower
from archdsl.passes.split_decoding import Decoding, split_decoding
from archdsl.progress import doing

Rows: TypeAlias = NDArray[np.int64]
Logits: TypeAlias = NDArray[np.float32]

CHUNKS = (4 * CHUNK, CHUNK)  # how many tokens of a prompt one step takes: few captures
FEW = 8  # a prompt of fewer tokens is fed token by token


class Decoder:
    """A model that takes its tokens step by step, for a batch of `rows` sequences.

    `limit` is the most tokens of a sequence, by default the plan's `longest`. Raises
    `ArchError` for a model that predicts no tokens, or is not causal.
    """

    def __init__(self, executable: Executable, rows: int, limit: int | None = None):
        self.executable = executable
        self.rows = rows
        graph = executable.graph
        self.plan: Decoding = split_decoding(graph)
        self.bound = self.plan.longest
        self.limit = self.bound if limit is None else limit
        if not 1 <= self.limit <= self.bound:
            fail(
                "generation",
                f"`{graph.name}` has no sequences of {limit} tokens",
                expected=f"1 to {self.bound}",
                help=self.plan.shortened,
            )
        # Cache positions of a row. Shorter rows are padded on the left, and the last chunk may
        # be padded too. Attention reads whole tiles.
        self.capacity = -(-(self.limit + self.plan.lead + CHUNK) // TILE) * TILE
        self.plan = split_decoding(graph, self.capacity)
        self._step_graphs = {
            True: keep_last_position(self.plan.step, self.plan.axis),
            False: self.plan.step,
        }
        self._states = {state.name: state for state in self.plan.states}
        self._past = UOp.variable("past", 0, self.capacity - 1)
        shapes = {s.name: self._shape(s) for s in self.plan.states if s.written}
        self._caches = {name: self._cache(name, shape) for name, shape in shapes.items()}
        # How many positions a sliding-window cache has beyond its window.
        windows = ((shapes[s.name][1], s.window) for s in self.plan.states if s.window)
        self._slack = [places - window for places, window in windows]
        self._carried = [s.name for s in self.plan.states if s.carried]
        self._captures: dict[tuple[object, ...], Capture[Any]] = {}
        self._version = executable.version()
        self.filled = 0
        # Inputs of a step: new tokens, by their number, and the left padding of each row.
        self._new: dict[tuple[str, tuple[int, ...]], Tensor] = {}
        self._left_pad_input = self._zeros((rows,))
        self._text = show(self.plan.step)
        state = dict(_leaves(self._caches))
        self._state = {f"cache {name}": each for name, each in state.items()}
        self._reorder_capture = executable.capture(
            self._reorder_caches, self._key("move"), self._state
        )
        self._once: dict[str, Any] = {}
        self._sizes: dict[str, int] = {}
        along = (self.plan.tokens, *self.plan.along)
        self._given_once = tuple(each for each in graph.inputs if each.name not in along)
        self.reset()
        if all(each.default is not None for each in self._given_once):
            self.begin()

    def _input(self, name: str) -> Input:
        return next(each for each in self.plan.step.inputs if each.name == name)

    def _shape(self, state: State) -> tuple[int, ...]:
        """The shape of one layer's cache: [rows, positions, …]."""
        sizes = {axis.name: self.capacity for axis in self.plan.step.varying}
        axes = self._input(state.name).type.axes[len(state.stacks) :]
        return (self.rows, *(axis.size.at(sizes) for axis in axes))

    def _cache(self, name: str, shape: tuple[int, ...]) -> Any:
        kind = self._input(name).type.dtype
        if kind != "float":
            dtype = inputs.ARRAY_DTYPES[kind].name
        else:
            # A sum over all positions would drift in a smaller dtype.
            carried = self._states[name].carried
            dtype = "float32" if carried else self.executable.dtype
        return self._nested(name, lambda _: self._zeros(shape, dtype))

    def _nested(self, name: str, leaf: Callable[[str], Tensor]) -> Any:
        """A step input, made by `leaf` from a name: one tensor per layer inside a stack."""
        state = self._states.get(name)
        return _nested(name, state.stacks if state else (), leaf)

    def _zeros(self, shape: tuple[int, ...], dtype: str = "int32") -> Tensor:
        return zeros(shape, self.executable.device, dtype)

    def _key(self, *program: object) -> tuple[object, ...]:
        """The key of a stored program of this decoder."""
        return ("decoder", self._text, self.rows, *program)

    def reset(self) -> None:
        """Empties the caches. What `begin` computed from the other inputs stays."""
        if self.filled:
            carried = {name: self._caches[name] for name in self._carried}
            for _, each in _leaves(carried):
                fill_zeros(each)
        self.filled = 0
        self._left_pad = np.zeros(self.rows, np.int32)

    def truncate(self, tokens: int) -> int:
        """Drops all but the first `tokens` of every row. All rows must have one length.

        Returns how many tokens are left: 0 if a sliding window or a carried state has already
        overwritten them.
        """
        lead = self.plan.lead
        filled = min(self.filled, int(self._left_pad[0]) + lead + tokens)
        kept = 0 if self._carried else min(self._slack, default=self.filled)
        if not tokens or self.filled - filled > kept:
            self.reset()
            return 0
        self.filled = filled
        return max(filled - int(self._left_pad[0]) - lead, 0)

    def begin(self, **given: Any) -> None:
        """Empties the caches and takes the inputs that are given once, each [rows, …]."""
        self.reset()
        if self.plan.along and given.keys() & set(self.plan.along):
            self._refuse_missing(next(name for name in self.plan.along if name in given))
        graph = self.executable.graph
        arrays = inputs.check(_of(graph, self._given_once), given, rows=self.rows)
        tensors = {
            name: self.executable.placed(array).realize() for name, array in arrays.items()
        }
        self._once = {name: each for name, each in tensors.items() if self._is_input(name)}
        _, self._sizes = interpret.measured(graph, tensors)
        if self.plan.once is None:
            return
        missing = (each for each in self.plan.once.inputs if each.name not in tensors)
        tensors |= {each.name: self._dummy(each) for each in missing}
        shapes = tuple((name, tensor.shape) for name, tensor in tensors.items())
        key = ("once", shapes)
        self._drop_stale_captures()
        if key not in self._captures:
            named = ("once", show(self.plan.once))
            self._captures[key] = self.executable.capture(self._compute_once, named)
        made = self._captures[key](**tensors)
        for name, _ in self.plan.once.outputs:
            self._once[name] = self._nested(name, lambda each: copy_tensor(made[each]))

    def _dummy(self, each: Input) -> Tensor:
        """One token, for values that are read from a prefix: they depend on no token."""
        sizes = self._sizes | {self.plan.axis: 1}
        shape = (self.rows, *(axis.size.at(sizes) for axis in each.type.axes))
        return self.executable.cast(
            self._zeros(shape, inputs.ARRAY_DTYPES[each.type.dtype].name)
        )

    def _is_input(self, name: str) -> bool:
        return any(each.name == name for each in self.plan.step.inputs)

    def _compute_once(self, **tensors: Tensor) -> dict[str, Tensor]:
        assert self.plan.once is not None
        program = self.executable.lowered(self.plan.once, tensors, rows=self.rows)
        made = interpret.forward(self.executable.run(program), tensors)
        found = {name: self.executable.cast(each).clone() for name, each in _leaves(made)}
        Tensor.realize(*found.values())
        return found

    # -- tokens --

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Logits:
        """Feeds one prompt per row; their lengths may differ. Returns the logits of the next
        token, [rows, vocab]."""
        self.reset()
        longest, lead = max(map(len, prompts)), self.plan.lead
        self._check_length(longest)
        length = longest + lead
        size = length if length < FEW else -(-length // CHUNK) * CHUNK
        tokens = np.zeros((self.rows, size), np.int64)
        for row, prompt in enumerate(prompts):
            tokens[row, size - len(prompt) :] = prompt
            self._left_pad[row] = size - len(prompt) - lead
        return self._feed(self._beside(tokens, {}), last=True)[:, -1]

    def feed(self, tokens: Rows, last: bool = False, **along: Any) -> Logits:
        """Feeds new tokens [rows, n]. Returns the logits of the token after each, [rows, n,
        vocab], or with `last` only after the last one, [rows, 1, vocab].

        `along` are the model's other inputs with one value per token, also [rows, n]. Those
        with a default may be left out.
        """
        new = tokens.shape[1]
        lead = self.plan.lead
        longest = max(self.filled - int(self._left_pad.min()) - lead, 0) + new
        self._check_length(longest)
        values = self._beside(np.asarray(tokens), along)
        if lead and not self.filled:
            values = {
                n: np.pad(v, [(0, 0), (lead, 0), *[(0, 0)] * (v.ndim - 2)])
                for n, v in values.items()
            }
        found = self._feed(values, last)
        return found if last else found[:, -new:]

    def _beside(self, tokens: Rows, along: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """The inputs with one value per token [rows, n, …]: given, or their default."""
        beside = [self._input(name) for name in self.plan.along]
        for each in beside:
            if each.name not in along and each.default is None:
                self._refuse_missing(each.name)
        for name in along.keys() - set(self.plan.along):
            fail(
                "input",
                f"no input `{name}` is given with the tokens",
                expected=", ".join(self.plan.along) or "only tokens",
                help=did_you_mean(name, self.plan.along),
            )
        found: dict[str, NDArray[Any]] = {}
        if along:
            given = (self.plan.tokens, *along)
            graph = _of(self.plan.step, tuple(map(self._input, given)))
            found = inputs.check(graph, {self.plan.tokens: tokens, **along})
        sizes = {"": self.rows, self.plan.axis: tokens.shape[1]}
        missing = (each for each in beside if each.name not in found)
        absent = {each.name: inputs.filled(each, sizes) for each in missing}
        return absent | found | {self.plan.tokens: tokens}

    def _refuse_missing(self, name: str) -> NoReturn:
        fail(
            "generation",
            f"`{name}` has one value per token and must be given with the tokens",
            self._input(name).span,
            expected=f"feed(tokens, {name}=…) with one value per new token",
        )

    def _feed(self, values: dict[str, NDArray[Any]], last: bool) -> Logits:
        found: list[Logits] = []
        before, left = self.filled, values[self.plan.tokens].shape[1]
        with doing("reading", "tokens", left, lambda: self.filled - before):
            while left:
                n = self._next(left)
                found.append(self._step({k: c[:, :n] for k, c in values.items()}, n, last))
                values = {k: c[:, n:] for k, c in values.items()}
                left -= n
        return found[-1][:, -1:] if last else np.concatenate(found, axis=1)

    def _next(self, count: int) -> int:
        """How many of the remaining `count` tokens the next step takes."""
        if self._slack and self.filled % CHUNK:
            return 1  # a chunk may not wrap around in a sliding-window cache
        chunks = CHUNKS[-1:] if self._slack else CHUNKS
        most = min(count, self.capacity - self.filled)
        return next((chunk for chunk in chunks if chunk <= most), 1)

    def _step(self, values: Mapping[str, NDArray[Any]], n: int, last: bool) -> Logits:
        last = last and n > 1
        self._drop_stale_captures()
        key = (n, last, *sorted(self._sizes.items()))
        if key not in self._captures:
            named = self._key("step", *key)
            self._captures[key] = self.executable.capture(
                self._program(n, last), named, self._state
            )
        given = {name: self._input_buffer(name, each.shape) for name, each in values.items()}
        for name, each in values.items():
            copy_in(given[name], each.astype(self._array_dtype(name)))
        copy_in(self._left_pad_input, self._left_pad)
        given |= dict(_leaves(self._once))
        logits = self._captures[key](
            self._left_pad_input, self._past.bind(self.filled), **given
        )
        found = copy_out(logits)
        if self.executable.dtype in LARGEST and not np.isfinite(found).all():
            run, values = self._run_of(n, last, self._left_pad_input, self.filled, given)
            report_overflow(run, values)
        self.filled += n
        return found

    def _drop_stale_captures(self) -> None:
        """Drops the captured programs if the weights have been replaced."""
        if self._version != (version := self.executable.version()):
            self._captures.clear()
            self._version = version

    def _array_dtype(self, name: str) -> np.dtype[Any]:
        return inputs.ARRAY_DTYPES[self._input(name).type.dtype]

    def _input_buffer(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The tensor that holds the new values of an input, [rows, n, …]."""
        if (name, shape) not in self._new:
            self._new[name, shape] = self._zeros(shape, self._array_dtype(name).name)
        return self._new[name, shape]

    def lowered(self, n: int, last: bool) -> Program:
        """The program of a step of n tokens: all logits, or only those of the `last` token."""
        sizes = {**self._sizes, self.plan.axis: n}
        sizes |= {v.name: self.capacity for v in self.plan.step.varying if v.name not in sizes}
        graph, executable = self._step_graphs[last], self.executable
        return lower(graph, self.rows, sizes, executable.dtype, executable.target)

    def _program(self, n: int, last: bool) -> Callable[..., Tensor]:
        def step(left_pad: Tensor, past: Any, **given: Tensor) -> Tensor:
            run, values = self._run_of(n, last, left_pad, past, given)
            logits = interpret.forward(run, values)[self.plan.logits]
            found: Tensor = logits.cast("float").contiguous().realize()
            return found

        return step

    def _run_of(
        self, n: int, last: bool, left_pad: Tensor, past: Any, given: Mapping[str, Tensor]
    ) -> tuple[ExecutionContext, dict[str, Any]]:
        """What a step runs with, and the values of its inputs."""
        values: dict[str, Any] = {
            name: self.executable.cast(given[name])
            for name in (self.plan.tokens, *self.plan.along)
        }
        values |= {LEFT_PAD: left_pad, PAST: past, CACHE_POSITIONS: None}
        values |= {name: self._nested(name, given.__getitem__) for name in self._once}
        return self.executable.run(self.lowered(n, last)), values | self._caches

    def reorder(self, parents: Sequence[int]) -> None:
        """Row i continues as a copy of row `parents[i]`, caches included (beam search)."""
        if list(parents) == list(range(self.rows)):
            return
        index = to_device(np.asarray(parents, np.int32), self.executable.device, "int32")
        self._reorder_capture(index)
        self._left_pad = self._left_pad[np.asarray(parents)]

    def _reorder_caches(self, index: Tensor) -> None:
        buffers = [each for _, each in _leaves(self._caches)]
        Tensor.realize(*(each.assign(each[index].contiguous()) for each in buffers))

    def _check_length(self, tokens: int) -> None:
        if tokens > self.limit:
            fail(
                "generation",
                f"the context of `{self.executable.graph.name}` ends after {self.limit} tokens",
                found=f"{tokens} tokens",
                help=self.plan.shortened,
            )


# -- values with one tensor per layer, as tuples --


def _nested(name: str, stacks: tuple[int, ...], leaf: Callable[[str], Tensor]) -> Any:
    """One tensor; inside a stack a tuple with one per layer; nested stacks nest."""
    if not stacks:
        return leaf(name)
    return tuple(_nested(f"{name}_{i}", stacks[1:], leaf) for i in range(stacks[0]))


def _leaves(values: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """All tensors of nested values, with the names that `_nested` gives them."""
    for name, value in values.items():
        if isinstance(value, tuple):
            yield from _leaves({f"{name}_{i}": each for i, each in enumerate(value)})
        else:
            yield name, value


def _of(graph: Graph, others: tuple[Input, ...]) -> Graph:
    """The graph with only these inputs, to check values against."""
    names = {name for each in others for name in each.type.vars}
    varying = tuple(v for v in graph.varying if v.name in names)
    return replace(graph, inputs=others, varying=varying)
