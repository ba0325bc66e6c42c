"""Splits a model for decoding: a graph that is computed once, and one that is stepped.

A model that is proved causal along its tokens can be fed a few at a time. What does not depend
on the tokens is computed once for a sequence: the memory of an encoder, and the keys and values
that each layer makes of it. All else is computed for the new positions alone; where an operator
needs the past ones, they are in a cache. Both graphs are ordinary ones. Caches, positions and
what the first graph gives are inputs of the second, so that no operator has a rule of its own
for decoding: its row in graph/ops.py says which of these inputs it takes.

The positions of all rows stand in columns. Rows of unequal length are padded in front, so row b
begins in column `starts[b]`, and `past` columns were fed before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod

from archdsl.diagnostics import ArchError, Diagnostic, Note
from archdsl.graph.nodes import (
    Apply,
    Graph,
    Input,
    Node,
    Slice,
    Stack,
    Table,
    refs,
    walk,
)
from archdsl.graph.ops import OPERATORS
from archdsl.graph.signature import Op
from archdsl.graph.sites import place, site, sites
from archdsl.graph.types import Axis, Size, Type, Varying
from archdsl.passes.decompose import decompose
from archdsl.passes.prune import live
from archdsl.passes.rewrite import Builder

PAST, STARTS, COLUMNS = "past", "starts", "columns"  # inputs of a step
CHUNK = 32  # positions that a ring leaves free beside its window, for those fed together


@dataclass(frozen=True)
class State:
    """What decoding keeps, as an input of the step: `name`, for each of `layers` layers.

    A `cache` grows with each token, up to the last `window` ones where no operator looks
    further back. All else is computed once for a sequence. `path` is where it is made, `{}`
    standing for the number of a layer.
    """

    name: str
    path: str
    layers: int
    type: Type
    cache: bool
    window: int | None = None

    @property
    def elements(self) -> Size:
        """How many numbers it has, in the sizes of the varying axes."""
        type = self.type
        if self.window:
            type = _with_axis(type, Axis(None, Size.of(self.window)))
        return type.elements * self.layers

    def __str__(self) -> str:
        times = f" * {self.layers}" if self.layers > 1 else ""
        how = "grows" if self.cache else "once"
        how += f" to the last {self.window}" if self.window else ""
        return f"{self.path}: {self.type}{times}, {how}"


@dataclass(frozen=True)
class Decoding:
    """A model as it is decoded.

    `tokens` is the input that comes step by step along `axis`, `along` are the other inputs
    that do, and `logits` is the output. `once` is the graph that is computed once, None where
    there is nothing to compute; its outputs are inputs of `step`. A cache is an input and an
    output of `step` by one name. A row begins with `lead` columns that are no tokens, where
    vectors are prepended.
    """

    once: Graph | None
    step: Graph
    tokens: str
    along: tuple[str, ...]
    axis: str
    logits: str
    lead: int
    states: tuple[State, ...]


def split_decoding(graph: Graph, columns: int | None = None) -> Decoding:
    """How the logits of a model are computed step by step, with caches of so many columns, as
    many as a sequence can have where None.

    Raises `ArchError`, code `generation`, for a model that predicts no tokens, and code
    `not-causal`, with the line, for what cannot be computed without later tokens.
    """
    tokens, logits = _required(graph)
    (axis,) = next(i.type.vars for i in graph.inputs if i.name == tokens)
    (ref,) = (ref for name, ref in graph.outputs if name == logits)
    alone = decompose(replace(graph, outputs=((logits, ref),), labels=(), loss=None))
    alone = replace(alone, nodes=live(alone.nodes, {ref}))
    return _Splitter(alone, tokens, logits, axis, columns).split()


def predicted(graph: Graph) -> tuple[str, str] | str:
    """The input of tokens and the output of logits for the one after each, by the loss; or
    why there are none."""
    loss = graph.loss
    if loss is None or loss.op != "next_token":
        return "its loss is not `next_token`"
    given = dict(loss.inputs)
    tokens = next((i.name for i in graph.inputs if i.name == given["tokens"]), None)
    logits = next((name for name, ref in graph.outputs if ref == given["logits"]), None)
    if tokens is None or logits is None:
        return "its loss is not of an input and an output"
    return tokens, logits


def _required(graph: Graph) -> tuple[str, str]:
    found = predicted(graph)
    if not isinstance(found, str):
        return found
    raise ArchError(
        Diagnostic(
            "generation",
            f"`{graph.name}` generates nothing: {found}",
            expected="`loss next_token(logits, tokens)` of an output and an input",
        )
    )


class _Splitter:
    """What is known of a graph while it is split."""

    def __init__(
        self, graph: Graph, tokens: str, logits: str, axis: str, columns: int | None
    ) -> None:
        self.graph, self.tokens, self.logits, self.axis = graph, tokens, logits, axis
        self.types = graph.types()
        self.along = {i.name for i in graph.inputs if axis in i.type.vars}
        self.stepped = _depending(graph, self.along)
        self.around = _around(graph)
        leads = [self.offset(ref) for ref in self.stepped if self.offset(ref) is not None]
        self.total = max([0, *(lead for lead in leads if lead is not None)])
        bound = next(v.bound for v in graph.varying if v.name == axis)
        self.columns = columns or bound + self.total
        self.names: set[str] = {i.name for i in graph.inputs}
        self.column_axis = self.free("C", {v.name for v in graph.varying})

    def split(self) -> Decoding:
        self.check()
        self.kept = dict(self.kept_refs())
        self.once_refs = list(self.computed_once())
        self.inputs = {kept.ref: kept for kept in self.states()}
        step = _Step(self, self.inputs).graph()
        once = self.once()
        along = tuple(i.name for i in self.graph.inputs if i.name in self.along - {self.tokens})
        found = tuple(kept.state for kept in self.inputs.values())
        return Decoding(
            once, step, self.tokens, along, self.axis, self.logits, self.total, found
        )

    def free(self, name: str, taken: set[str]) -> str:
        """A name like this one that nothing has."""
        number = 2
        found = name
        while found in taken:
            found, number = f"{name}_{number}", number + 1
        taken.add(found)
        return found

    # -- what can be stepped --

    def offset(self, ref: str) -> int | None:
        """How many positions more than there are tokens a value has along the tokens' axis."""
        offsets = {
            (axis.size - Size.of(self.axis)).value
            for axis in self.types[ref].axes
            if self.axis in axis.size.vars
        }
        return offsets.pop() if len(offsets) == 1 else None

    def check(self) -> None:
        """Refuses what needs more than the new positions and the caches of the old ones."""
        for each in self.graph.inputs:
            if each.name in self.along and self.offset(each.name) != 0:
                raise self.refused(each, f"`{each.name}` has no value for each token")
        applied = (node for node, _ in walk(self.graph.nodes) if isinstance(node, Apply))
        for node in applied:
            if node.id in self.stepped and (why := self.obstacle(node)):
                raise self.refused(node, f"{node.op} {why}")

    def refused(self, at: Apply | Input, why: str) -> ArchError:
        return ArchError(
            Diagnostic(
                "not-causal",
                f"`{self.graph.name}` cannot be computed step by step: {why}",
                at.span,
                found=str(at.type),
                notes=(Note("decoding feeds the tokens one after the other", None),),
            )
        )

    def obstacle(self, node: Apply) -> str | None:
        """Why an operator cannot be computed for the new positions alone, None where it can."""
        op = OPERATORS[node.op]
        if self.axis in node.type.mixed:
            return "looks at later positions"
        along = [axis for axis in node.type.axes if self.axis in axis.size.vars]
        if not along or self.offset(node.id) is None:
            return f"has no position for each of `{self.axis}`"
        keeps = {dict(node.inputs)[param] for param in op.keeps}
        if keeps & self.stepped and not keeps <= self.stepped:
            return "looks at positions of which only some depend on the tokens"
        offsets = {self.offset(ref) for ref in refs(node) if ref in self.stepped}
        moves = ("at" in op.positions or op.trims) and len(offsets) == 1
        if offsets != {self.offset(node.id)} and not moves:
            return f"has other positions along `{self.axis}` than its inputs"
        return None

    # -- what is kept --

    def kept_refs(self) -> Iterator[tuple[str, int | None]]:
        """The values whose past positions are kept, and how many of the last; None for all."""
        reaches: dict[str, list[int | None]] = {}
        for node, _ in walk(self.graph.nodes):
            if isinstance(node, Apply) and node.id in self.stepped:
                op, inputs = OPERATORS[node.op], dict(node.inputs)
                for param in op.keeps:
                    if inputs[param] in self.stepped:
                        reach = op.reach(site(self.graph, node, self.types))
                        reaches.setdefault(inputs[param], []).append(reach)
        for ref, found in reaches.items():
            seen = [reach for reach in found if reach is not None]
            yield ref, max(seen) if len(seen) == len(found) else None

    def computed_once(self) -> Iterator[str]:
        """The values that steps use and that do not depend on the tokens."""
        used: list[str] = []
        for node, _ in walk(self.graph.nodes):
            own = (*refs(node),) if isinstance(node, Apply) else (node.input, node.result)
            inside = node.id if isinstance(node, Apply) else node.carry
            if inside in self.stepped:
                used += [ref for ref in own if ref not in self.stepped]
        used += [ref for _, ref in self.graph.outputs if ref not in self.stepped]
        yield from dict.fromkeys(used)

    def states(self) -> Iterator[_Kept]:
        for ref, reach in self.kept.items():
            state = self.state(ref, reach)
            yield _Kept(ref, state.name, self.cache_type(ref, reach), state)
        for ref in self.once_refs:
            if any(ref == i.name for i in self.graph.inputs):
                yield _Kept(ref, ref, self.types[ref], self.state(ref, None, ref))
            else:
                state = self.state(ref, None)
                yield _Kept(ref, state.name, self.types[ref], state)

    def state(self, ref: str, reach: int | None, name: str | None = None) -> State:
        path = self.path(ref)
        around = self.around[ref]
        words = path.replace("{}", "").replace("..", ".").replace(".", "_")
        name = name or self.free(words.lstrip("_0123456789") or "state", self.names)
        layers = prod(stack.count for stack in around)
        return State(name, path, layers, self.types[ref], ref in self.kept, reach)

    def path(self, ref: str) -> str:
        for node, around in walk(self.graph.nodes):
            if node.id == ref:
                return place(node.path, around, ("{}",) * len(around))
            if isinstance(node, Stack) and node.carry == ref:
                return f"{place(node.path, around, ('{}',) * len(around))}.{{}}"
        return ref

    def cache_type(self, ref: str, reach: int | None) -> Type:
        """A cache of a value: as many columns as there are, or a ring for a window of them."""
        if reach is None:
            axis = Axis(self.column_axis, Size.of(self.column_axis))
        else:
            places = min(-(-(reach + CHUNK) // CHUNK) * CHUNK, self.columns)
            axis = Axis(None, Size.of(places))
        # Nothing is causal about it: which columns a query sees is told by positions.
        return replace(_with_axis(self.types[ref], axis), mixed=frozenset())

    def layered(self, ref: str, type: Type) -> Type:
        """The type of the value of all layers of the stacks around a value."""
        layers = tuple(Axis("layers", Size.of(s.count)) for s in self.around[ref])
        return replace(type, axes=(*layers, *type.axes))

    # -- the graph that is computed once --

    def ragged(self) -> Iterator[tuple[Varying, Input, str]]:
        """The ragged axes of what is computed once, the input that says where they end, and
        the name of the length."""
        used = {name for ref in self.once_refs for name in self.types[ref].vars}
        for axis in self.graph.varying:
            if axis.name in used and axis.name != self.axis and axis.ragged is not None:
                (each,) = (i for i in self.graph.inputs if i.name == axis.ragged)
                yield axis, each, f"{axis.name}_length"

    def once(self) -> Graph | None:
        """The graph of the values that do not depend on the tokens, None where it is empty."""
        wanted = [ref for ref in self.once_refs if ref not in self.names_of_inputs]
        lengths = list(self.ragged())
        if not wanted and not lengths:
            return None
        inputs = tuple(i for i in self.graph.inputs if i.name not in self.along)
        varying = tuple(
            v for v in self.graph.varying if v.name in {n for i in inputs for n in i.type.vars}
        )
        builder = Builder(self.graph, varying)
        nodes, given = _Once(self, builder, wanted).nodes(self.graph.nodes)
        measured = [
            builder.apply("length", name, {"x": each.name}, pad=each.pad)
            for _, each, name in lengths
        ]
        outputs = [(self.inputs[ref].name, given[ref]) for ref in wanted]
        outputs += [(node.path, node.id) for node in measured]
        live_nodes = live(nodes, {ref for _, ref in outputs})
        found = replace(
            self.graph,
            varying=varying,
            inputs=inputs,
            nodes=(*live_nodes, *measured),
            outputs=tuple(outputs),
        )
        return replace(found, tables=_tables(self.graph, found))

    @property
    def names_of_inputs(self) -> set[str]:
        return {each.name for each in self.graph.inputs}


@dataclass(frozen=True)
class _Kept:
    """A value of the graph as an input of the step: its name and type, of one layer."""

    ref: str
    name: str
    type: Type
    state: State


class _Once:
    """Keeps the nodes that do not depend on the tokens, and gathers what layers make."""

    def __init__(self, of: _Splitter, builder: Builder, wanted: Iterable[str]):
        self.of, self.builder, self.wanted = of, builder, set(wanted)

    def nodes(self, nodes: tuple[Node, ...]) -> tuple[tuple[Node, ...], dict[str, str]]:
        """The nodes, and each wanted value that they make by its id in the old graph."""
        found: list[Node] = []
        given: dict[str, str] = {}
        for node in nodes:
            if node.id not in self.of.stepped:
                found.append(node)
                if node.id in self.wanted:
                    given[node.id] = node.id
            elif isinstance(node, Stack):
                stack, more = self.stack(node)
                if stack:
                    found.append(stack)
                given |= more
        return tuple(found), given

    def stack(self, node: Stack) -> tuple[Stack | None, dict[str, str]]:
        """A stack that hands on what comes in, and gives what its layers make beside."""
        body, given = self.nodes(node.body)
        used = set(given.values())
        body = live(body, used)
        if not body:
            return None, {}
        gives = []
        outside: dict[str, str] = {}
        for ref, inner in given.items():
            type = self.builder.types[inner]
            layers = Axis("layers", Size.of(node.count))
            all = replace(type, axes=(layers, *type.axes))
            gives.append(Slice(self.builder.id(), inner, all))
            self.builder.types[gives[-1].id] = all
            outside[ref] = gives[-1].id
        # What comes in is anything that is there before: it passes through.
        made = {each.id for each, _ in walk(body)}
        x = next(ref for each in body for ref in refs(each) if ref not in made)
        type = self.builder.types[x]
        carry = self.builder.id()
        stack = Stack(
            self.builder.id(),
            x,
            node.count,
            node.path,
            carry,
            type,
            body,
            carry,
            type,
            node.span,
            gives=tuple(gives),
        )
        return stack, outside


class _Step:
    """Makes the graph of the new positions: operators with caches and positions as inputs."""

    def __init__(self, of: _Splitter, kept: Mapping[str, _Kept]):
        self.of, self.kept = of, kept
        self.columns = Input(
            COLUMNS, Type("int", (Axis(of.column_axis, Size.of(of.column_axis)),))
        )
        self.lengths = [(axis, name) for axis, _, name in of.ragged()]
        self.builder = Builder(of.graph, self.varying())
        self.renamed: dict[str, str] = {}
        self.starts: dict[int, str] = {}  # by the positions that an axis begins later
        self.positions: dict[int, str] = {}
        self.slices: list[dict[str, Slice]] = []  # of the stacks around
        self.caches: dict[str, str] = {}  # with the new positions in them, by what is kept
        self.gives: list[dict[str, str]] = []
        self.before: list[Node] = []  # the graph's first nodes: positions
        for each in (*self.step_inputs(), self.columns):
            self.builder.types[each.name] = each.type

    def varying(self) -> tuple[Varying, ...]:
        of, names = self.of, {axis.name: name for axis, name in self.lengths}
        used = {n for kept in self.kept.values() for n in kept.type.vars}
        axes = [
            replace(axis, ragged=names.get(axis.name))
            for axis in of.graph.varying
            if axis.name == of.axis or axis.name in used
        ]
        return (*axes, Varying(of.column_axis, of.columns))

    def step_inputs(self) -> Iterator[Input]:
        of = self.of
        for each in of.graph.inputs:
            if each.name in of.along:
                yield replace(each, pad=None)
        yield Input(PAST, Type("int"))
        yield Input(STARTS, Type("int"))
        yield self.columns
        yield from (Input(name, Type("int")) for _, name in self.lengths)
        for kept in self.kept.values():
            yield Input(kept.name, of.layered(kept.ref, kept.type))

    def graph(self) -> Graph:
        of = self.of
        nodes = [*self.entering(i.name for i in of.graph.inputs), *self.nodes(of.graph.nodes)]
        ((name, ref),) = of.graph.outputs
        states = [
            (kept.name, self.caches[ref_])
            for ref_, kept in self.kept.items()
            if ref_ in of.kept
        ]
        inputs = tuple(self.step_inputs())
        outputs = ((name, self.ref(ref)), *states)
        made = (*self.before, *nodes)
        found = replace(
            of.graph, varying=self.varying(), inputs=inputs, nodes=made, outputs=outputs
        )
        return replace(found, tables=_tables(of.graph, found))

    # -- values --

    def ref(self, ref: str) -> str:
        """A value of the old graph in the new one."""
        ref = self.renamed.get(ref, ref)
        kept = self.kept.get(ref)
        if kept is None or ref in self.of.kept:
            return ref
        return self.input(kept)

    def input(self, kept: _Kept) -> str:
        """What an input of the step is called here: its part for the layer that we are in."""
        name = kept.name
        for depth, stack in enumerate(self.of.around[kept.ref]):
            slices = self.slices[depth]
            if kept.ref not in slices:
                types = self.builder.types[name]
                type = replace(types, axes=types.axes[1:])
                slices[kept.ref] = Slice(self.builder.id(), name, type)
                self.builder.types[slices[kept.ref].id] = type
            name = slices[kept.ref].id
            assert stack.count
        return name

    def entering(self, refs: Iterable[str]) -> Iterator[Node]:
        """Appends to the caches the values that are known where a body begins."""
        for ref in refs:
            if ref in self.of.kept:
                yield from self.appended(ref)

    def appended(self, ref: str) -> Iterator[Node]:
        """A cache with the new positions in it; layers give theirs to the outside."""
        kept = self.kept[ref]
        path = f"{self.relative(ref)}_cache"
        inputs = {"x": self.input(kept), "new": self.renamed.get(ref, ref), "past": PAST}
        node = self.builder.apply("append", path, inputs)
        self.caches[ref] = node.id
        yield node

    def relative(self, ref: str) -> str:
        """A place for a cache beside the value that is kept."""
        for node, _ in walk(self.of.graph.nodes):
            if node.id == ref:
                return node.path or "x"
        return ref if ref in self.of.names_of_inputs else "x"

    # -- positions --

    def started(self, lead: int) -> str:
        """Where rows start on an axis of which the first `lead` columns are not there."""
        if not lead:
            return STARTS
        if lead not in self.starts:
            node = self.builder.apply("later", f"starts_{lead}", {"x": STARTS}, by=lead)
            self.before.append(node)
            self.starts[lead] = node.id
        return self.starts[lead]

    def at(self, lead: int) -> str:
        if lead not in self.positions:
            inputs = {"x": self.of.tokens, "past": PAST, "starts": self.started(lead)}
            name = f"positions_{lead}" if lead else "positions"
            node = self.builder.apply("positions", self.of.free(name, self.places), inputs)
            self.before.append(node)
            self.positions[lead] = node.id
        return self.positions[lead]

    @property
    def places(self) -> set[str]:
        return {node.path for node in self.of.graph.nodes} | {node.path for node in self.before}

    # -- nodes --

    def nodes(self, nodes: tuple[Node, ...]) -> Iterator[Node]:
        for node in nodes:
            if node.id not in self.of.stepped:
                continue
            match node:
                case Stack():
                    yield from self.stack(node)
                case Apply():
                    yield from self.apply(node)
            if node.id in self.of.kept:
                yield from self.appended(node.id)

    def apply(self, node: Apply) -> Iterator[Apply]:
        op = OPERATORS[node.op]
        if op.trims and self.of.axis in node.type.axes[_index(node)].size.vars:
            # What is left out stands in front: the new positions are the same.
            self.renamed[node.id] = self.ref(node.inputs[0][1])
            return
        inputs = {
            param: self.caches[ref]
            if param in op.keeps and ref in self.of.kept
            else self.ref(ref)
            for param, ref in node.inputs
        }
        inputs |= self.told(op, node)
        yield self.builder.typed(replace(node, inputs=tuple(inputs.items())))

    def told(self, op: Op, node: Apply) -> dict[str, str]:
        """The inputs by which an operator learns of positions."""
        if op.keeps and not {dict(node.inputs)[p] for p in op.keeps} & self.of.kept.keys():
            return {}
        offset = self.of.offset(node.id)
        assert offset is not None
        lead = self.of.total - offset
        known = {PAST: lambda: PAST, COLUMNS: lambda: COLUMNS}
        known |= {STARTS: lambda: self.started(lead), "at": lambda: self.at(lead)}
        return {name: known[name]() for name in op.positions}

    def stack(self, node: Stack) -> Iterator[Stack]:
        self.slices.append({})
        before = dict(self.caches)
        # A cache of this stack's is written in its body, and seen outside as all layers'.
        carry_type = self.types_of(node)
        self.builder.types[node.carry] = carry_type
        body = (*self.entering([node.carry]), *self.nodes(node.body))
        takes = tuple(self.slices.pop().values())
        gives = []
        for ref, inner in self.caches.items():
            if ref not in before:
                type = self.builder.types[inner]
                layers = Axis("layers", Size.of(node.count))
                all = replace(type, axes=(layers, *type.axes))
                gives.append(Slice(self.builder.id(), inner, all))
                self.builder.types[gives[-1].id] = all
                self.caches[ref] = gives[-1].id
        result = self.ref(node.result)
        made = replace(
            node,
            input=self.ref(node.input),
            carry_type=carry_type,
            body=body,
            result=result,
            type=self.builder.types[result],
            takes=takes,
            gives=tuple(gives),
        )
        self.builder.types[node.id] = made.type
        yield made

    def types_of(self, node: Stack) -> Type:
        """What a layer takes, as the new positions have it."""
        offset = self.of.offset(node.carry)
        size = Size.of(self.of.axis)
        old = node.carry_type
        if not offset:
            return old
        axes = tuple(
            Axis(axis.name, size) if self.of.axis in axis.size.vars else axis
            for axis in old.axes
        )
        return replace(old, axes=axes)


def _tables(whole: Graph, part: Graph) -> tuple[Table, ...]:
    """The tables that a part of a model is tied to and does not have itself."""
    embeds = {
        node.path: Table(node.path, here.attr["vocab"], here.attr["dim"])
        for node, _, here in sites(whole)
        if node.op == "embed" and here.attr["tied"] is None
    }
    own = {node.path for node in part.nodes if isinstance(node, Apply) and node.op == "embed"}
    nodes = (node for node, _ in walk(part.nodes) if isinstance(node, Apply))
    tied = {str(node.attr["tied"]) for node in nodes if node.attr.get("tied") is not None}
    return tuple(table for path, table in embeds.items() if path in tied - own)


def _index(node: Apply) -> int:
    """The axis that a node's setting `axis` names."""
    index = node.attr["axis"]
    assert isinstance(index, int)
    return index


def _depending(graph: Graph, inputs: set[str]) -> set[str]:
    """The values that depend on any of these inputs."""
    found = set(inputs)
    before = 0
    while len(found) > before:  # what one layer gives depending on them, the next one takes
        before = len(found)
        for node, _ in walk(graph.nodes):
            if isinstance(node, Stack):
                if found & {node.input, node.result}:
                    found |= {node.carry, node.id}
                if node.result in found:
                    found.add(node.id)
            elif found & set(refs(node)):
                found.add(node.id)
    return found


def _around(graph: Graph) -> dict[str, tuple[Stack, ...]]:
    """The stacks around each value, outermost first."""
    found: dict[str, tuple[Stack, ...]] = {each.name: () for each in graph.inputs}
    for node, around in walk(graph.nodes):
        found[node.id] = around
        if isinstance(node, Stack):
            found[node.carry] = (*around, node)
    return found


def _with_axis(type: Type, axis: Axis) -> Type:
    """A type with another first axis, the sequence."""
    return replace(type, axes=(axis, *type.axes[1:]))
