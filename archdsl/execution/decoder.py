"""A model's tokens, a few at a time: the caches that it keeps, and the logits of what is next.

What is cached and what is computed anew is derived by passes/split_decoding.py. Programs are
captured once for a number of rows and of new tokens, and serve all positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tinygrad import Tensor, UOp

from archdsl.backend import interpret
from archdsl.backend.program import Program as Capture
from archdsl.backend.tensors import copied, get, placed, put, zeros
from archdsl.backend.use import TILE
from archdsl.diagnostics import did_you_mean, fail
from archdsl.execution import inputs
from archdsl.execution.executable import Executable
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
            True: keep_last_position(self.plan.step, self.plan.axis),
            False: self.plan.step,
        }
        self._states = {state.name: state for state in self.plan.states}
        self._past = UOp.variable("past", 0, self.room - 1)
        shapes = {s.name: self._shape(s) for s in self.plan.states if s.cache}
        self._caches = {name: self._cache(name, shape) for name, shape in shapes.items()}
        # How many columns a ring has beside those of its window.
        windows = ((shapes[s.name][1], s.window) for s in self.plan.states if s.window)
        self._slack = [places - window for places, window in windows]
        self._captures: dict[tuple[object, ...], Capture[Any]] = {}
        self._version = executable.version()
        # What each step is given: new tokens, by how many there are, and where rows begin.
        self._new: dict[tuple[str, int], Tensor] = {}
        self._begins = self._room((rows,))
        self._text = show(self.plan.step)
        state = dict(_leaves(self._caches))
        self._state = {f"cache {name}": each for name, each in state.items()}
        self._moved = executable.capture(self._move, self._key("move"), self._state)
        self._once: dict[str, Any] = {}
        self._sizes: dict[str, int] = {}
        self.reset()

    def _input(self, name: str) -> Input:
        return next(each for each in self.plan.step.inputs if each.name == name)

    def _shape(self, state: State) -> tuple[int, ...]:
        """[rows, columns, …]: of one layer's cache."""
        sizes = {axis.name: self.room for axis in self.plan.step.varying}
        axes = self._input(state.name).type.axes[len(state.stacks) :]
        return (self.rows, *(axis.size.at(sizes) for axis in axes))

    def _cache(self, name: str, shape: tuple[int, ...]) -> Any:
        return self._nested(name, lambda _: self._room(shape, self.executable.dtype))

    def _nested(self, name: str, leaf: Callable[[str], Tensor]) -> Any:
        """The value of an input of the step: of each layer what `leaf` gives for its name."""
        state = self._states.get(name)
        return _nested(name, state.stacks if state else (), leaf)

    def _room(self, shape: tuple[int, ...], dtype: str = "int32") -> Tensor:
        return zeros(shape, self.executable.device, dtype)

    def _key(self, *program: object) -> tuple[object, ...]:
        """What tells a program of the decoder from others."""
        return ("decoder", self._text, self.rows, *program)

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
        if not tokens or self.columns - columns > min(self._slack, default=self.columns):
            self.reset()
            return 0
        self.columns = columns
        return max(columns - int(self._starts[0]) - lead, 0)

    def begin(self, **given: Any) -> None:
        """Takes the inputs that do not come step by step, each [rows, …], and starts anew."""
        self.reset()
        if self.plan.along and given.keys() & set(self.plan.along):
            self._refuse_missing(next(name for name in self.plan.along if name in given))
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
        for name, _ in self.plan.once.outputs:
            self._once[name] = self._nested(name, lambda each: copied(made[each]))

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
        self._check_along({})
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
        self._check_along(along)
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

    def _check_along(self, along: Mapping[str, Any]) -> None:
        """Refuses tokens without the other inputs that have a value for each of them."""
        for name in self.plan.along:
            if name not in along:
                self._refuse_missing(name)
        for name in along.keys() - set(self.plan.along):
            fail(
                "input",
                f"no input `{name}` comes with the tokens",
                expected=", ".join(self.plan.along) or "tokens alone",
                help=did_you_mean(name, self.plan.along),
            )

    def _refuse_missing(self, name: str) -> NoReturn:
        fail(
            "generation",
            f"`{name}` has a value for each token, and must be given with them",
            self._input(name).span,
            expected=f"feed(tokens, {name}=…), with a value for each new token",
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
        if self._slack and self.columns % CHUNK:
            return 1  # a chunk stands whole in a ring: it begins where one may begin
        chunks = CHUNKS[-1:] if self._slack else CHUNKS
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
            self._new[name, n] = self._room((self.rows, n))
        return self._new[name, n]

    def lowered(self, n: int, last: bool) -> Program:
        """The program of a step of n tokens, for the logits of all or of the `last`."""
        sizes = {**self._sizes, self.plan.axis: n}
        sizes |= {v.name: self.room for v in self.plan.step.varying if v.name not in sizes}
        graph, executable = self._ended[last], self.executable
        return lower(graph, self.rows, sizes, executable.dtype, executable.target)

    def _program(self, n: int, last: bool) -> Callable[..., Tensor]:
        def step(starts: Tensor, past: Any, **given: Tensor) -> Tensor:
            values: dict[str, Any] = {
                name: given[name] for name in (self.plan.tokens, *self.plan.along)
            }
            values |= {LEFT_PAD: starts, PAST: past, CACHE_POSITIONS: None}
            values |= {name: self._nested(name, given.__getitem__) for name in self._once}
            run = self.executable.run(self.lowered(n, last))
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


def _nested(name: str, stacks: tuple[int, ...], leaf: Callable[[str], Tensor]) -> Any:
    """One tensor, or in a stack a tuple with that of each layer, in stacks tuples of tuples."""
    if not stacks:
        return leaf(name)
    return tuple(_nested(f"{name}_{i}", stacks[1:], leaf) for i in range(stacks[0]))


def _leaves(values: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of values by their names, as `_nested` names them."""
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
