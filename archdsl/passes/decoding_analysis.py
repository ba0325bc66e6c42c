"""Finds the values of a model that depend on its tokens, and those that decoding keeps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from math import prod
from typing import NoReturn

from archdsl.diagnostics import Note, fail
from archdsl.frozen import Frozen
from archdsl.graph import attention, masks
from archdsl.graph.nodes import (
    Apply,
    Graph,
    Input,
    Layers,
    Mixture,
    Repeated,
    Scan,
    Stack,
    Table,
    positions,
    refs,
    walk,
)
from archdsl.graph.ops import OPERATORS
from archdsl.graph.rules import POINTWISE
from archdsl.graph.sites import common_path, site, sites
from archdsl.graph.types import Axis, Size, Type, Varying

_LIGHT = POINTWISE | {"reshape", "slice"}
CHUNK = 32  # tokens fed at once; a sliding-window cache has room for its window and this many


class State(Frozen):
    """A value that decoding keeps, an input of the step by its `name`; `type` is for one layer.

    `stacks` are the layer counts of the enclosing stacks, outermost first. `path` is where the
    value is computed, with `{}` for the number of a layer, or `{0-4, 6}` for the numbers of its
    kind. There are three kinds:

    - A `cache` grows with each token; with a `window`, no operator needs more than the last
      `window` positions.
    - A `carried` state has a fixed size, and each step replaces it.
    - All other states are computed once per sequence.
    """

    name: str
    path: str
    stacks: tuple[int, ...]
    type: Type
    cache: bool
    window: int | None = None
    carried: bool = False

    @property
    def written(self) -> bool:
        """Whether steps write it in place."""
        return self.cache or self.carried

    @property
    def layers(self) -> int:
        return prod(self.stacks)

    @property
    def elements(self) -> Size:
        """The number of elements over all layers, as a formula in the varying axes."""
        type = self.type
        if self.window:
            type = _with_sequence(type, Axis(None, Size.of(self.window)))
        return type.elements * self.layers

    def __str__(self) -> str:
        times = f" * {self.layers}" if self.layers > 1 else ""
        span = f"the last {self.window}" if self.window else "all"
        how = f"cache of {span} positions" if self.cache else "computed once"
        how = "carried from step to step" if self.carried else how
        return f"{self.path}: {self.type}{times}, {how}"


class StepInput(Frozen):
    """A value `ref` of the model as an input of the step; `type` is for one layer."""

    ref: str
    type: Type
    state: State

    @property
    def name(self) -> str:
        return self.state.name


class Analysis:
    """Facts about a graph along the axis of its tokens.

    - `depending`: values that depend on the tokens, or on their positions.
    - `stepped`: those that the outputs need, not only what is read from a prefix.
    - `free`: values of weights and fixed positions alone that steps use, such as `1 + w`; a
      step and the graph that runs once both compute them.
    - `caches`: stepped values whose past positions are cached, with their windows.
    - `once`: values that steps use and that depend on no token, without the free ones.
    - `step_inputs`: both of these, as inputs of a step.
    - `scans`: the carries of stepped scans, as inputs of a step.
    - `tails`: stepped values whose last positions are carried, as inputs of a step.
    - `capacity`: the number of cache positions, the size of the axis `cache_axis`.
    - `lead`: the number of prepended positions at the start of a row, which are not tokens.
    - `longest`: the most tokens of a sequence; `shortened`: why that is less than the bound.

    Raises `ArchError` "not-causal" if a value cannot be computed step by step.
    """

    def __init__(self, graph: Graph, tokens: str, capacity: int | None):
        self.graph, self.tokens = graph, tokens
        (self.axis,) = next(i.type.vars for i in graph.inputs if i.name == tokens)
        self.types = graph.types()
        self.inputs = {each.name: each for each in graph.inputs}
        self.along = {i.name for i in graph.inputs if self.axis in i.type.vars}
        self.depending = _depending(graph, self.along, self.axis)
        self.stepped = self.depending & _needed(graph, self.depending)
        self.inside = positions(graph.nodes)  # of bodies of scans
        self.around = _around(graph)
        self._check()
        offsets = (self.offset(ref) for ref in self.stepped)
        self.lead = max([0, *(offset for offset in offsets if offset is not None)])
        bound = next(v.bound for v in graph.varying if v.name == self.axis)
        self.longest, self.shortened = self._longest(bound)
        self.capacity = capacity or bound + self.lead
        self.cache_axis = unused_name("C", {v.name for v in graph.varying})
        self.caches = dict(self._caches())
        self.free = self._free()
        self.once = list(dict.fromkeys(self._once()))
        names = set(self.inputs)
        self.step_inputs = {each.ref: each for each in self._step_inputs(names)}
        self.tails = {each.ref: each for each in self._tails(names)}
        self.scans = {each.ref: each for each in self._scans(names)}

    @property
    def states(self) -> tuple[StepInput, ...]:
        """All values that decoding keeps, as inputs of a step."""
        return (*self.step_inputs.values(), *self.tails.values(), *self.scans.values())

    def offset(self, ref: str) -> int | None:
        """How many positions more than tokens a value has along the tokens' axis."""
        offsets = {
            (axis.size - Size.of(self.axis)).value
            for axis in self.types[ref].axes
            if self.axis in axis.size.vars
        }
        return offsets.pop() if len(offsets) == 1 else None

    def ragged(self) -> Iterator[tuple[Varying, Input, str]]:
        """The ragged axes of the values computed once, each with the input that defines its
        length and the name of the length."""
        used = {name for ref in self.once for name in self.types[ref].vars}
        for axis in self.graph.varying:
            if axis.name in used and axis.ragged is not None:
                yield axis, self.inputs[axis.ragged], f"{axis.name}_length"

    # -- which values can be stepped --

    def _check(self) -> None:
        """Rejects values that need more than new positions and caches of past ones."""
        for name in self.along:
            first, *others = self.types[name].axes
            varies = any(axis.size.vars for axis in others)
            if first.size != Size.of(self.axis) or varies:
                self._reject(
                    self.inputs[name], f"the input `{name}` does not have one value per token"
                )
        for node, _ in walk(self.graph.nodes):
            if node.id not in self.stepped or isinstance(node, Stack | Mixture):
                continue
            if isinstance(node, Scan):
                if why := self._scan_obstacle(node):
                    self._reject(node, f"the state `{node.path.rpartition('.')[2]}` {why}")
            elif node.id not in self.inside and (why := self._obstacle(node)):
                self._reject(node, f"{node.op} {why}")

    def _scan_obstacle(self, node: Scan) -> str | None:
        """Why a scan cannot be computed at the new positions only; None if it can."""
        if self.axis in node.type.noncausal:
            return "uses later positions"
        if self.offset(node.id) is None:
            return f"does not have one position for each of `{self.axis}`"
        starts = node.start in self.stepped and self.is_stepped(node)
        return "starts with a value of tokens" if starts else None

    def _reject(self, at: Apply | Scan | Input, why: str) -> NoReturn:
        fail(
            "not-causal",
            f"`{self.graph.name}` cannot be decoded step by step: {why}",
            at.span,
            found=str(at.type),
            notes=(Note("decoding feeds the tokens in order, one at a time", None),),
        )

    def _obstacle(self, node: Apply) -> str | None:
        """Why an operator cannot be computed at the new positions only; None if it can."""
        op = OPERATORS[node.op]
        if self.axis in node.type.noncausal:
            return "uses later positions"
        along = [axis for axis in node.type.axes if self.axis in axis.size.vars]
        if not along or self.offset(node.id) is None:
            return f"does not have one position for each of `{self.axis}`"
        given = dict(node.inputs)
        cached = {given[param] for param in op.cached_among(given)}
        if cached & self.stepped and not cached <= self.stepped:
            return "uses positions of which only some depend on the tokens"
        if any(attention.is_of_several(p, self.types[ref]) for p, ref in given.items()):
            return "is over several sequences at once, which no cache holds"
        sees = node.attr.get("mask")
        whole = isinstance(sees, str) and masks.ahead(masks.parse(sees)) != 0
        if cached & self.stepped and whole:
            return "sees a prefix as a whole, which may come in several steps"
        offsets = {self.offset(ref) for ref in refs(node) if ref in self.stepped}
        moves = "at" in op.positions or op.drops_prefix or self.adds_prefix(node)
        if not node.inputs or (moves and len(offsets) == 1):
            return None
        if offsets != {self.offset(node.id)}:
            return f"has different positions along `{self.axis}` than its inputs"
        return None

    def drops_prefix(self, node: Apply) -> bool:
        """Whether a node only drops positions before the tokens."""
        return OPERATORS[node.op].drops_prefix and self._is_along(node)

    def adds_prefix(self, node: Apply) -> bool:
        """Whether a node only adds positions before the tokens."""
        return OPERATORS[node.op].adds_prefix and self._is_along(node)

    def _is_along(self, node: Apply) -> bool:
        """Whether the axis that a node changes is that of the tokens."""
        index = node.attr["axis"]
        axis = node.type.axes[-1 if index is None else int(str(index))]
        return self.axis in axis.size.vars

    def _longest(self, bound: int) -> tuple[int, str | None]:
        """The longest sequence whose length changes no value of a past position."""
        longest, shortened = bound, None
        for node, _, here in sites(self.graph):
            same = OPERATORS[node.op].same_up_to(here) if node.id in self.stepped else None
            if same is not None and same - self.lead < longest:
                longest = same - self.lead
                shortened = (
                    f"in a longer sequence `{node.op}` changes the values of all positions, "
                    "but decoding keeps those of the past; call the model on whole sequences"
                )
        return longest, shortened

    # -- which values are kept --

    def _caches(self) -> Iterator[tuple[str, int | None]]:
        """The cached values, each with the number of last positions needed; None for all."""
        windows: dict[str, list[int | None]] = {}
        for node, _ in walk(self.graph.nodes):
            if isinstance(node, Apply) and node.id in self.stepped:
                op, inputs = OPERATORS[node.op], dict(node.inputs)
                for param in op.cached_among(inputs):
                    if inputs[param] in self.stepped:
                        window = op.cache_window(site(self.graph, node, self.types))
                        windows.setdefault(inputs[param], []).append(window)
        for ref, found in windows.items():
            seen = [window for window in found if window is not None]
            yield ref, max(seen) if len(seen) == len(found) else None

    def _free(self) -> set[str]:
        """The values that steps use and that depend on no input.

        Outside of stacks, all but elementwise functions and views are computed once per
        sequence.
        """
        found: dict[str, tuple[str, ...]] = {}
        for node, around in walk(self.graph.nodes):
            if not isinstance(node, Apply) or node.id in self.stepped:
                continue
            light = around or not node.inputs or node.op in _LIGHT
            if light and all(ref in found for ref in refs(node)):
                found[node.id] = refs(node)
        used: set[str] = set()
        todo = [ref for ref in self._used_by_steps() if ref in found]
        while todo:
            ref = todo.pop()
            if ref not in used:
                used.add(ref)
                todo += found[ref]
        return used

    def _once(self) -> Iterator[str]:
        return (ref for ref in self._used_by_steps() if ref not in self.free)

    def _used_by_steps(self) -> Iterator[str]:
        """The values that steps use and that depend on no token."""
        for node, _ in walk(self.graph.nodes):
            if node.id in self.inside:
                continue
            used = (node.input, *node.results) if isinstance(node, Stack) else refs(node)
            if node.id in self.stepped:
                yield from (ref for ref in used if ref not in self.stepped)
        yield from (ref for _, ref in self.graph.outputs if ref not in self.stepped)

    def _scans(self, names: set[str]) -> Iterator[StepInput]:
        """The carries of scans along the tokens."""
        for node, around in walk(self.graph.nodes):
            if isinstance(node, Scan) and node.id in self.stepped and self.is_stepped(node):
                path = common_path(node.path, around)
                counts = tuple(stack.count for stack in around)
                type = replace(node.carry_type, noncausal=frozenset())
                name = _name(path, names)
                state = State(name, path, counts, type, cache=False, carried=True)
                yield StepInput(node.carry, type, state)

    def is_stepped(self, node: Scan) -> bool:
        """Whether the positions of a scan are those of tokens."""
        return self.axis in node.along.size.vars

    def _tails(self, names: set[str]) -> Iterator[StepInput]:
        """The values of which an operator needs earlier positions, with as many as it needs."""
        most: dict[str, int] = {}
        for node, _, here in sites(self.graph):
            if node.id in self.stepped and (count := OPERATORS[node.op].tail(here)):
                ref = node.inputs[0][1]
                most[ref] = max(count, most.get(ref, 0))
        for ref, count in most.items():
            type = _with_sequence(self.types[ref], Axis(None, Size.of(count)))
            type = replace(type, noncausal=frozenset())
            path, stacks = self._path(ref), self._counts(ref)
            state = State(
                _name(f"{path}.tail", names), path, stacks, type, cache=False, carried=True
            )
            yield StepInput(ref, type, state)

    def _step_inputs(self, names: set[str]) -> Iterator[StepInput]:
        for ref, window in self.caches.items():
            state = self._state(ref, names, window)
            yield StepInput(ref, self._cache_type(ref, window), state)
        for ref in self.once:
            yield StepInput(ref, self.types[ref], self._state(ref, names))

    def _state(self, ref: str, names: set[str], window: int | None = None) -> State:
        path, stacks = self._path(ref), self._counts(ref)
        name = ref if ref in self.inputs and ref in self.once else _name(path, names)
        return State(name, path, stacks, self.types[ref], ref in self.caches, window)

    def _counts(self, ref: str) -> tuple[int, ...]:
        """The layer counts of the stacks around a value."""
        return tuple(stack.count for stack in self.around[ref])

    def _path(self, ref: str) -> str:
        for node, around in walk(self.graph.nodes):
            if node.id == ref:
                return common_path(node.path, around)
            if isinstance(node, Stack):
                for kind, body in enumerate(node.bodies):
                    if body.carry == ref:
                        return common_path("x", (*around, Layers(node, kind)))
        return f"{ref}.x"

    def _cache_type(self, ref: str, window: int | None) -> Type:
        """The type of a value's cache: of all positions, or of a sliding window."""
        if window is None:
            axis = Axis(self.cache_axis, Size.of(self.cache_axis))
        else:
            size = min(-(-(window + CHUNK) // CHUNK) * CHUNK, self.capacity)
            axis = Axis(None, Size.of(size))
        # Causality of a step follows from the position inputs, not from types.
        return replace(_with_sequence(self.types[ref], axis), noncausal=frozenset())

    def layered(self, each: StepInput) -> Type:
        """The type of a step's input, for all layers of the enclosing stacks."""
        layers = map(layers_axis, self.around[each.ref])
        return replace(each.type, axes=(*layers, *each.type.axes))


def layers_axis(layers: Repeated) -> Axis:
    """The first axis of a value for all layers of a kind."""
    return Axis("layers", Size.of(layers.count))


def _name(path: str, taken: set[str]) -> str:
    """An unused name of a step's input for the value at a path."""
    return unused_name(
        "_".join(word for word in path.split(".") if not word.startswith("{")), taken
    )


def unused_name(name: str, taken: set[str]) -> str:
    """Returns `name`, with a number if it is taken, and adds it to `taken`."""
    found, number = name, 2
    while found in taken:
        found, number = f"{name}_{number}", number + 1
    taken.add(found)
    return found


def tied_tables(whole: Graph, part: Graph) -> tuple[Table, ...]:
    """The tables that a part of a model uses but does not contain."""
    embeds = {
        node.path: Table(node.path, here.attr["vocab"], here.attr["dim"])
        for node, _, here in sites(whole)
        if node.op == "embed" and here.attr["tied"] is None
    }
    own = {node.path for node in part.nodes if isinstance(node, Apply) and node.op == "embed"}
    nodes = (node for node, _ in walk(part.nodes) if isinstance(node, Apply))
    tied = {str(node.attr["tied"]) for node in nodes if node.attr.get("tied") is not None}
    return tuple(table for path, table in embeds.items() if path in tied - own)


def _depending(graph: Graph, inputs: Iterable[str], along: str) -> set[str]:
    """The values that depend on any of the given inputs, or on the positions of their axis.

    A value that neither has the axis nor is noncausal along it was read from a prefix.
    """
    found = set(inputs)
    before = 0
    while len(found) > before:  # until stable: the output of a layer is the input of the next
        before = len(found)
        for node, _ in walk(graph.nodes):
            if along not in node.type.vars | node.type.noncausal:
                continue
            if isinstance(node, Stack):
                if found & {node.input, *node.results}:
                    found |= {*(body.carry for body in node.bodies), node.id}
            elif found & set(refs(node)) or not refs(node):
                found.add(node.id)
    return found


def _needed(graph: Graph, depending: set[str]) -> set[str]:
    """The values from which the outputs follow through values that depend on the tokens."""
    found = {ref for _, ref in graph.outputs}
    before = 0
    while len(found) > before:
        before = len(found)
        for node, _ in walk(graph.nodes):
            if node.id not in found & depending:
                continue
            if isinstance(node, Stack):
                found |= {node.input, *node.results, *(body.carry for body in node.bodies)}
            else:
                found |= set(refs(node))
    return found


def _around(graph: Graph) -> dict[str, tuple[Repeated, ...]]:
    """The layers and mixtures around each value, outermost first."""
    found: dict[str, tuple[Repeated, ...]] = {each.name: () for each in graph.inputs}
    for node, around in walk(graph.nodes):
        found[node.id] = around
        if isinstance(node, Stack):
            for kind, body in enumerate(node.bodies):
                found[body.carry] = (*around, Layers(node, kind))
        elif isinstance(node, Scan):
            found[node.carry] = around
    return found


def _with_sequence(type: Type, axis: Axis) -> Type:
    """A type with another first axis, the sequence axis."""
    return replace(type, axes=(axis, *type.axes[1:]))
