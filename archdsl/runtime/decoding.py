"""A model's tokens, a few at a time: the caches that it keeps, and the logits of what is next.

What is cached and what is computed anew is derived by passes/split_decoding.py. Programs are
captured once for a number of rows and of new tokens, and serve all positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tinygrad import Tensor, UOp

from archdsl.backend import interpret
from archdsl.backend.program import Program as Capture
from archdsl.backend.tensors import copied, get, placed, put, zeros
from archdsl.backend.use import TILE
from archdsl.diagnostics import fail
from archdsl.graph.nodes import Graph, Input
from archdsl.graph.printer import show
from archdsl.graph.types import Type
from archdsl.passes.decoding_analysis import CHUNK
from archdsl.passes.decoding_step import COLUMNS, PAST, STARTS
from archdsl.passes.last_position import last_position
from archdsl.passes.program import Program, lower
from archdsl.passes.split_decoding import Decoding, split_decoding
from archdsl.progress import doing
from archdsl.runtime import inputs
from archdsl.runtime.executable import Executable

Rows: TypeAlias = NDArray[np.int64]
Logits: TypeAlias = NDArray[np.float32]

CHUNKS = (4 * CHUNK, CHUNK)  # tokens fed together where there is no window: fewer programs
FEW = 8  # fewer than these go one by one


class Decoder:
    """A model fed with its tokens step by step, `rows` sequences at once.

    `limit` is how many tokens a row can have, the model's bound where None. Raises `ArchError`
    for a model that does not predict tokens, or not causally.
    """

    def __init__(self, executable: Executable, rows: int, limit: int | None = None):
        self.executable = executable
        self.rows = rows
        graph = executable.graph
        self.plan: Decoding = split_decoding(graph)
        self.bound = {v.name: v.bound for v in graph.varying}[self.plan.axis]
        self.limit = self.bound if limit is None else limit
        if not 1 <= self.limit <= self.bound:
            fail(
                "generation",
                f"`{graph.name}` has no sequences of {limit} tokens",
                expected=f"1 to {self.bound}",
            )
        # Rows that are shorter than others, and the last chunk, need room in front; whole
        # tiles of columns are seen.
        self.room = -(-(self.limit + self.plan.lead + CHUNK) // TILE) * TILE
        self.plan = split_decoding(graph, self.room)
        self._ended = {
            True: last_position(self.plan.step, self.plan.axis),
            False: self.plan.step,
        }
        self._rings = [
            (size, window)
            for name, window in self._windows()
            if (size := self._input(name).type.axes[-3].size.value) is not None
        ]
        self._past = UOp.variable("past", 0, self.room - 1)
        self._caches = {
            each.name: _zeros(each.type, self._cache)
            for each in self.plan.step.inputs
            if each.name in self._cached
        }
        self._captures: dict[tuple[object, ...], Capture[Any]] = {}
        self._version = executable.version()
        # What each step is given: new tokens, by how many there are, and where rows begin.
        self._new: dict[tuple[str, int], Tensor] = {}
        self._begins = self._numbers((rows,))
        self._text = show(self.plan.step)
        state = dict(_leaves(self._caches))
        self._state = {f"cache {name}": each for name, each in state.items()}
        self._moved = executable.capture(self._move, self._key("move"), self._state)
        self._once: dict[str, Any] = {}
        self._sizes: dict[str, int] = {}
        self.reset()

    @property
    def _cached(self) -> frozenset[str]:
        return frozenset(name for name, _ in self.plan.step.outputs) - {self.plan.logits}

    def _windows(self) -> Iterator[tuple[str, int]]:
        for state in self.plan.states:
            if state.window is not None:
                yield state.name, state.window

    def _input(self, name: str) -> Input:
        return next(each for each in self.plan.step.inputs if each.name == name)

    def _cache(self, type: Type) -> Tensor:
        sizes = (
            axis.size.at({v.name: self.room for v in self.plan.step.varying})
            for axis in type.axes
        )
        return zeros((self.rows, *sizes), self.executable.device, self.executable.dtype)

    def _key(self, *program: object) -> tuple[object, ...]:
        """What tells a program of the decoder from others."""
        return ("decoder", self._text, self.rows, *program)

    def _numbers(self, shape: tuple[int, ...]) -> Tensor:
        return zeros(shape, self.executable.device, "int32")

    def reset(self) -> None:
        """Forgets every token; what was made of the other inputs stays."""
        self.columns = 0
        self._starts = np.zeros(self.rows, np.int32)

    def keep(self, tokens: int) -> int:
        """Forgets all but the first `tokens` of every row, which are of one length.

        How many are left is returned: none where a window has moved beyond them.
        """
        lead = self.plan.lead
        columns = min(self.columns, int(self._starts[0]) + lead + tokens)
        slack = [size - window for size, window in self._rings]
        if not tokens or self.columns - columns > min(slack, default=self.columns):
            self.reset()
            return 0
        self.columns = columns
        return max(columns - int(self._starts[0]) - lead, 0)

    def begin(self, **given: Any) -> None:
        """Takes the inputs that do not come step by step, each [rows, …], and starts anew."""
        self.reset()
        graph = self.executable.graph
        along = (self.plan.tokens, *self.plan.along)
        others = tuple(each for each in graph.inputs if each.name not in along)
        arrays = inputs.check(_of(graph, others), given)
        tensors = {
            name: self.executable.placed(array).realize() for name, array in arrays.items()
        }
        self._once = {name: each for name, each in tensors.items() if self._is_input(name)}
        _, self._sizes = interpret.measured(graph, tensors)
        if self.plan.once is None:
            return
        shapes = tuple((name, tensor.shape) for name, tensor in tensors.items())
        key = ("once", shapes)
        self._renew()
        if key not in self._captures:
            named = ("once", show(self.plan.once))
            self._captures[key] = self.executable.capture(self._compute_once, named)
        made = self._captures[key](**tensors)
        self._once |= {
            name: _mapped(lambda one: copied(made[one]), _names(name, each.type))
            for name, _ in self.plan.once.outputs
            for each in (self._input(name),)
        }

    def _is_input(self, name: str) -> bool:
        return any(each.name == name for each in self.plan.step.inputs)

    def _compute_once(self, **tensors: Tensor) -> dict[str, Tensor]:
        assert self.plan.once is not None
        program = self.executable.lowered(self.plan.once, tensors)
        made = interpret.forward(self.executable.run(program), tensors)
        found = {name: each.clone() for name, each in _leaves(made)}
        Tensor.realize(*found.values())
        return found

    # -- tokens --

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Logits:
        """Feeds a prompt to each row, of whatever length each is: logits [rows, vocab] of the
        token after each."""
        self.reset()
        self._no_others()
        longest, lead = max(map(len, prompts)), self.plan.lead
        self._fits(longest)
        columns = longest + lead
        size = columns if columns < FEW else -(-columns // CHUNK) * CHUNK
        tokens = np.zeros((self.rows, size), np.int64)
        for row, prompt in enumerate(prompts):
            tokens[row, size - len(prompt) :] = prompt
            self._starts[row] = size - len(prompt) - lead
        return self._feed({self.plan.tokens: tokens}, last=True)[:, -1]

    def feed(self, tokens: Rows, last: bool = False, **along: Any) -> Logits:
        """Feeds [rows, n] new tokens: logits [rows, n, vocab] of the token after each, or
        [rows, 1, vocab] of that after the `last`.

        `along` are the model's other inputs that have a value for each token, [rows, n] too.
        """
        self._no_others(along)
        new = tokens.shape[1]
        lead = self.plan.lead
        longest = max(self.columns - int(self._starts.min()) - lead, 0) + new
        self._fits(longest)
        columns = {self.plan.tokens: np.asarray(tokens)}
        columns |= {name: np.asarray(each) for name, each in along.items()}
        if lead and not self.columns:
            columns = {n: np.pad(c, ((0, 0), (lead, 0))) for n, c in columns.items()}
        found = self._feed(columns, last)
        return found if last else found[:, -new:]

    def _no_others(self, along: Mapping[str, Any] | None = None) -> None:
        """Refuses tokens without the other inputs that have a value for each of them."""
        given = set(along or {})
        for name in self.plan.along:
            if name not in given:
                each = self._input(name)
                fail(
                    "generation",
                    f"`{name}` has a value for each token, and is missing",
                    each.span,
                    expected=f"feed(tokens, {name}=…), with a value for each new token",
                )
        for name in given - set(self.plan.along):
            fail(
                "input",
                f"no input `{name}` comes with the tokens",
                expected=", ".join(self.plan.along) or "tokens alone",
            )

    def _feed(self, columns: dict[str, Rows], last: bool) -> Logits:
        found: list[Logits] = []
        before, left = self.columns, columns[self.plan.tokens].shape[1]
        with doing("reading", "tokens", left, lambda: self.columns - before):
            while left:
                n = self._next(left)
                found.append(self._step({k: c[:, :n] for k, c in columns.items()}, n, last))
                columns = {k: c[:, n:] for k, c in columns.items()}
                left -= n
        return found[-1][:, -1:] if last else np.concatenate(found, axis=1)

    def _next(self, count: int) -> int:
        """How many of so many new tokens are computed together now."""
        if self._rings and self.columns % CHUNK:
            return 1  # a chunk stands whole in a ring: it begins where one may begin
        chunks = CHUNKS[-1:] if self._rings else CHUNKS
        room = min(count, self.room - self.columns)
        return next((chunk for chunk in chunks if chunk <= room), 1)

    def _step(self, columns: Mapping[str, Rows], n: int, last: bool) -> Logits:
        last = last and n > 1
        self._renew()
        key = (n, last, *sorted(self._sizes.items()))
        if key not in self._captures:
            named = self._key("step", *key)
            self._captures[key] = self.executable.capture(
                self._program(n, last), named, self._state
            )
        given = {name: self._places(name, n) for name in columns}
        for name, each in columns.items():
            put(given[name], each.astype(np.int32))
        put(self._begins, self._starts)
        given |= dict(_leaves(self._once))
        logits = self._captures[key](self._begins, self._past.bind(self.columns), **given)
        self.columns += n
        return get(logits)

    def _renew(self) -> None:
        """Drops what was captured where the weights are others by now."""
        if self._version != (version := self.executable.version()):
            self._captures.clear()
            self._version = version

    def _places(self, name: str, n: int) -> Tensor:
        """Where the new values of an input are put, [rows, n]."""
        if (name, n) not in self._new:
            self._new[name, n] = self._numbers((self.rows, n))
        return self._new[name, n]

    def lowered(self, n: int, last: bool) -> Program:
        """The program of a step of n tokens, for the logits of all or of the `last`."""
        sizes = {**self._sizes, self.plan.axis: n}
        sizes |= {v.name: self.room for v in self.plan.step.varying if v.name not in sizes}
        graph, executable = self._ended[last], self.executable
        return lower(graph, self.rows, sizes, executable.dtype, executable.target)

    def _program(self, n: int, last: bool) -> Callable[..., Tensor]:
        program = self.lowered(n, last)

        def step(starts: Tensor, past: Any, **given: Tensor) -> Tensor:
            values: dict[str, Any] = {
                name: given[name] for name in (self.plan.tokens, *self.plan.along)
            }
            values |= {STARTS: starts, PAST: past, COLUMNS: None}
            for name in self._once:
                names = _names(name, self._input(name).type)
                values[name] = _mapped(given.__getitem__, names)
            run = self.executable.run(program)
            logits = interpret.forward(run, values | self._caches)[self.plan.logits]
            found: Tensor = logits.cast("float").contiguous().realize()
            return found

        return step

    def reorder(self, parents: Sequence[int]) -> None:
        """Row i goes on as a copy of the row `parents[i]`: keys, values and all."""
        if list(parents) == list(range(self.rows)):
            return
        index = placed(np.asarray(parents, np.int32), self.executable.device, "int32")
        self._moved(index)
        self._starts = self._starts[np.asarray(parents)]

    def _move(self, index: Tensor) -> None:
        buffers = [each for _, each in _leaves(self._caches)]
        Tensor.realize(*(each.assign(each[index].contiguous()) for each in buffers))

    def _fits(self, tokens: int) -> None:
        if tokens > self.limit:
            fail(
                "generation",
                f"the context of `{self.executable.graph.name}` ends after {self.limit} tokens",
                found=f"{tokens} tokens",
            )


# -- values that have one tensor for each layer, as tuples --


def _zeros(type: Type, make: Callable[[Type], Tensor]) -> Any:
    if type.axes and type.axes[0].name == "layers":
        count, inner = type.axes[0].size.at({}), replace(type, axes=type.axes[1:])
        return tuple(_zeros(inner, make) for _ in range(count))
    return make(type)


def _names(name: str, type: Type) -> Any:
    """The names of the tensors of a value."""
    if type.axes and type.axes[0].name == "layers":
        count, inner = type.axes[0].size.at({}), replace(type, axes=type.axes[1:])
        return tuple(_names(f"{name}_{i}", inner) for i in range(count))
    return name


def _mapped(function: Callable[[str], Tensor], names: Any) -> Any:
    if isinstance(names, tuple):
        return tuple(_mapped(function, each) for each in names)
    return function(names)


def _leaves(values: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of values by their names, as `_names` has them."""
    for name, value in values.items():
        if isinstance(value, tuple):
            yield from _leaves({f"{name}_{i}": each for i, each in enumerate(value)})
        else:
            yield name, value


def _of(graph: Graph, others: tuple[Input, ...]) -> Graph:
    """A graph of these inputs alone, to hold values against."""
    names = {name for each in others for name in each.type.vars}
    varying = tuple(v for v in graph.varying if v.name in names)
    return replace(graph, inputs=others, varying=varying)
