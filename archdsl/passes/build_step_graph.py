"""Builds the graph of a step: only new positions, with caches and positions as inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from archdsl.graph.nodes import (
    Apply,
    Body,
    Graph,
    Input,
    Layers,
    Mixture,
    Node,
    Scan,
    Slice,
    Stack,
)
from archdsl.graph.ops import OPERATORS
from archdsl.graph.signature import Op
from archdsl.graph.sites import site
from archdsl.graph.types import Axis, Size, Type, Varying
from archdsl.passes.decoding_analysis import (
    Analysis,
    StepInput,
    layers_axis,
    tied_tables,
    unused_name,
)
from archdsl.passes.rewrite import Builder, join_path

PAST, LEFT_PAD, CACHE_POSITIONS = "past", "left_pad", "cache_positions"  # inputs of a step


def build_step_graph(analysis: Analysis) -> Graph:
    """Builds the graph that computes the logits of new tokens and updates the caches."""
    return _Step(analysis).graph()


class _Step:
    """Builds the nodes of a step; values keep their ids.

    `updated` has the id of each state after the step, by the state's name, and `extended` that
    of each value with the earlier positions before the new ones. `slices` has, for each
    enclosing stack, one layer's slices of inputs, by their names.
    """

    def __init__(self, analysis: Analysis):
        self.analysis = analysis
        self.builder = Builder(analysis.graph, self.varying())
        self.inputs = tuple(self.step_inputs())
        self.builder.types |= {each.name: each.type for each in self.inputs}
        self.renamed: dict[str, str] = {}
        self.updated: dict[str, str] = {}
        self.extended: dict[str, str] = {}
        self.slices: list[dict[str, Slice]] = []
        self.positions: list[Apply] = []  # the graph's first nodes
        self.left_pads: dict[int, str] = {0: LEFT_PAD}
        self.at: dict[int, str] = {}
        self.valid: dict[int, str] = {}
        self.paths = {node.path for node in analysis.graph.nodes}

    def varying(self) -> tuple[Varying, ...]:
        analysis = self.analysis
        lengths = {axis.name: name for axis, _, name in analysis.ragged()}
        used = {analysis.axis, *(name for each in analysis.states for name in each.type.vars)}
        axes = (
            replace(
                axis,
                ragged=lengths.get(axis.name),
                least=1 if axis.name == analysis.axis else axis.least,
            )
            for axis in analysis.graph.varying
            if axis.name in used
        )
        return (*axes, Varying(analysis.cache_axis, analysis.capacity))

    def step_inputs(self) -> Iterator[Input]:
        analysis, number = self.analysis, Type("int")
        yield from (
            replace(i, pad=None) for i in analysis.graph.inputs if i.name in analysis.along
        )
        yield Input(PAST, number)
        yield Input(LEFT_PAD, number)
        cached = Axis(analysis.cache_axis, Size.of(analysis.cache_axis))
        yield Input(CACHE_POSITIONS, Type("int", (cached,)))
        yield from (Input(name, number) for _, _, name in analysis.ragged())
        yield from (Input(value.name, analysis.layered(value)) for value in analysis.states)

    def graph(self) -> Graph:
        analysis, graph = self.analysis, self.analysis.graph
        nodes = (*self.update_all(analysis.inputs), *self.nodes(graph.nodes))
        outputs = [(name, self.ref(ref)) for name, ref in graph.outputs]
        written = (each.name for each in analysis.states if each.state.written)
        outputs += [(name, self.updated[name]) for name in written]
        step = replace(
            graph,
            varying=self.varying(),
            inputs=self.inputs,
            nodes=(*self.positions, *nodes),
            outputs=tuple(outputs),
        )
        return replace(step, tables=tied_tables(graph, step))

    # -- values --

    def ref(self, ref: str) -> str:
        """The id of a model's value in the step."""
        ref = self.renamed.get(ref, ref)
        return self.input(self.analysis.step_inputs[ref]) if ref in self.analysis.once else ref

    def input(self, value: StepInput) -> str:
        """The id of a step's input, or of its slice inside stacks."""
        name = value.name
        for slices, _ in zip(self.slices, self.analysis.around[value.ref], strict=False):
            if value.name not in slices:
                all = self.builder.types[name]
                type = replace(all, axes=all.axes[1:])
                slices[value.name] = Slice(self.builder.id(), name, type)
                self.builder.types[slices[value.name].id] = type
            name = slices[value.name].id
        return name

    def update_all(self, refs: Iterable[str]) -> Iterator[Node]:
        """Updates the states of values that exist before a body."""
        for ref in refs:
            yield from self.update(ref, ref.replace("%", "x_"))

    def update(self, ref: str, path: str) -> Iterator[Apply]:
        """Updates the states of a value with its new positions: its cache, and its tail."""
        new = self.renamed.get(ref, ref)
        if ref in self.analysis.caches:
            cache = self.analysis.step_inputs[ref]
            inputs = {"x": self.input(cache), "new": new, "past": PAST}
            node = self.builder.apply("append", f"{path}_cache", inputs)
            self.updated[cache.name] = node.id
            yield node
        if tail := self.analysis.tails.get(ref):
            inputs = {"x": self.input(tail), "new": new, "past": PAST}
            left_pad = {"left_pad": self.left_pad_of(self.later(ref))}
            longer = self.builder.apply("extend", f"{path}_extended", inputs | left_pad)
            node = self.builder.apply("store", f"{path}_tail", inputs | {"new": longer.id})
            self.extended[ref], self.updated[tail.name] = longer.id, node.id
            yield from (longer, node)

    def later(self, ref: str) -> int:
        """How many positions later than the longest axis that of a value starts."""
        offset = self.analysis.offset(ref)
        assert offset is not None
        return self.analysis.lead - offset

    # -- positions --

    def position_inputs(self, op: Op, node: Apply) -> Iterator[tuple[str, str]]:
        """The position inputs that an operator needs and the spec does not give."""
        caches, given = self.analysis.caches.keys(), dict(node.inputs)
        if op.cached and not caches & {given[p] for p in op.cached_among(given)}:
            return  # attention to a memory needs no positions
        if op.masked and not op.cached and node.attr["mask"] is None:
            return  # nor does a softmax without a mask
        for name in op.positions:
            match name:
                case "at" if name not in given:
                    yield name, self.positions_of(self.later(node.id))
                case "left_pad":
                    yield name, self.left_pad_of(self.later(node.id))
                case "past" | "cache_positions":
                    yield name, {"past": PAST, "cache_positions": CACHE_POSITIONS}[name]

    def left_pad_of(self, later: int) -> str:
        """The left padding on an axis that starts `later` positions later."""
        if later not in self.left_pads:
            shifted = self.position(
                "renumber", f"left_pad_{later}", {"x": LEFT_PAD}, plus=later
            )
            self.left_pads[later] = shifted.id
        return self.left_pads[later]

    def positions_of(self, later: int) -> str:
        """The position of each new vector on an axis that starts `later` positions later.

        The only place where a step derives positions: from the cache positions in use, without
        the left padding.
        """
        if later not in self.at:
            inputs = {"past": PAST, "left_pad": self.left_pad_of(later)}
            name = f"positions_{later}" if later else "positions"
            size = Size.of(self.analysis.axis) + self.analysis.lead - later
            self.at[later] = self.position("positions", name, inputs, size=str(size)).id
        return self.at[later]

    def position(self, op: str, name: str, inputs: dict[str, str], **attr: int | str) -> Apply:
        node = self.builder.apply(op, unused_name(name, self.paths), inputs, None, **attr)
        self.positions.append(node)
        return node

    # -- nodes --

    def nodes(self, nodes: tuple[Node, ...]) -> Iterator[Node]:
        for node in nodes:
            if node.id in self.analysis.free:
                yield node
            if node.id not in self.analysis.stepped:
                continue
            match node:
                case Stack():
                    yield self.stack(node)
                case Mixture():
                    x, gates = self.ref(node.input), self.ref(node.gates)
                    yield self.builder.mixed(replace(node, input=x, gates=gates))
                case Apply(op="positions") if node.id in self.analysis.stepped:
                    self.renamed[node.id] = self.positions_of(self.later(node.id))
                case Apply() if self.analysis.drops_prefix(node):
                    # Only positions at the start are dropped: the new positions are the same.
                    self.renamed[node.id] = self.ref(node.inputs[0][1])
                case Apply() if self.analysis.adds_prefix(node):
                    yield self.prefixed(node)
                case Scan():
                    yield from self.scan(node)
                case Apply():
                    yield from self.apply(node)
            yield from self.update(node.id, node.path or "x")

    def prefixed(self, node: Apply) -> Apply:
        """A prefix joined to the tokens: cache positions are fed for it as for all others."""
        prefix, x = (self.ref(ref) for _, ref in node.inputs)
        inputs = {"x": x, "prefix": prefix, "at": self.positions_of(self.later(node.id))}
        axis = node.attr["axis"]
        index = len(node.type.axes) - 1 if axis is None else axis
        joined = self.builder.apply("prefixed", node.path, inputs, node.span, axis=index)
        self.builder.types[node.id] = joined.type
        return replace(joined, id=node.id)

    def scan(self, node: Scan) -> Iterator[Node]:
        """A scan of the new positions, which begins with the carried state and stores the last
        one; left padding leaves the state as it is."""
        if not self.analysis.is_stepped(node):
            yield self.renamed_scan(node)
            return
        carried = self.analysis.scans[node.carry]
        state = start = self.input(carried)
        if node.start is not None:
            inputs = {"x": state, "start": self.ref(node.start), "past": PAST}
            begin = self.builder.apply("begin", join_path(node.path, "begin"), inputs)
            yield begin
            start = begin.id
        types, final = self.builder.types, self.builder.id()
        types[final] = node.carry_type
        new = self.renamed_scan(node, start)
        valid = self.valid_of(self.later(node.id))
        yield replace(new, start=start, valid=valid, final=final)
        inputs = {"x": state, "new": final, "past": PAST}
        stored = self.builder.apply("store", join_path(node.path, "end"), inputs)
        self.updated[carried.name] = stored.id
        yield stored

    def renamed_scan(self, node: Scan, start: str | None = None) -> Scan:
        """A scan with the values of the step."""
        types = self.builder.types
        takes = tuple(replace(each, of=self.ref(each.of)) for each in node.takes)
        lengths = [types[each.of].axes[0] for each in takes]
        along = lengths[0] if lengths else Axis(None, Size.of(self.analysis.axis))
        body = tuple(
            replace(each, inputs=tuple((p, self.ref(r)) for p, r in each.inputs))
            for each in node.body
        )
        if start is None and node.start is not None:
            start = self.ref(node.start)
        type = replace(node.type, axes=(along, *node.type.axes[1:]))
        types[node.id] = type
        result, output = self.ref(node.result), self.ref(node.output)
        return replace(
            node, takes=takes, body=body, result=result, output=output, start=start, type=type
        )

    def valid_of(self, later: int) -> str:
        """Whether each new position, on an axis that starts `later` positions later, is not
        left padding."""
        if later not in self.valid:
            inputs = {"x": self.analysis.tokens, "past": PAST}
            inputs["left_pad"] = self.left_pad_of(later)
            name = f"valid_{later}" if later else "valid"
            self.valid[later] = self.position("valid", name, inputs).id
        return self.valid[later]

    def apply(self, node: Apply) -> Iterator[Apply]:
        op = OPERATORS[node.op]
        inputs = {param: self.argument(op, param, ref) for param, ref in node.inputs}
        attrs = dict(node.attrs)
        if count := op.tail(site(self.analysis.graph, node, self.analysis.types)):
            x, ref = node.inputs[0]
            more = self.analysis.tails[ref].type.axes[0].size - count
            inputs[x] = self.extended[ref]
            if start := more.value:  # another operator needs more positions
                path = join_path(node.path, "tail")
                part = self.builder.apply("slice", path, {"x": inputs[x]}, axis=0, start=start)
                inputs[x] = part.id
                yield part
            attrs |= dict.fromkeys(op.without_tail, False)
        inputs |= self.position_inputs(op, node)
        new = replace(node, inputs=tuple(inputs.items()), attrs=tuple(attrs.items()))
        yield self.builder.typed(new)

    def argument(self, op: Op, param: str, ref: str) -> str:
        """The id that a step gives to an operator for a value: of its cache, or the value."""
        if op.caches(param) and ref in self.analysis.caches:
            return self.updated[self.analysis.step_inputs[ref].name]
        return self.ref(ref)

    def stack(self, node: Stack) -> Stack:
        layers = (Layers(node, kind) for kind in range(len(node.bodies)))
        bodies = tuple(map(self.body, layers))
        new = replace(node, input=self.ref(node.input), bodies=bodies)
        type = self.builder.types[node.id] = self.builder.types[new.last.result]
        return replace(new, type=type)

    def body(self, layers: Layers) -> Body:
        types, body = self.builder.types, layers.inside
        types[body.carry] = carry_type = self.carry_type(body)
        self.slices.append({})
        outside = set(self.updated)
        nodes = (*self.update_all([body.carry]), *self.nodes(body.nodes))
        takes = tuple(self.slices.pop().values())
        gives = []
        for name in [name for name in self.updated if name not in outside]:  # in the body
            type = types[self.updated[name]]
            all = replace(type, axes=(layers_axis(layers), *type.axes))
            gives.append(Slice(self.builder.id(), self.updated[name], all))
            types[gives[-1].id] = all
            self.updated[name] = gives[-1].id
        result = self.ref(body.result)
        return Body(body.carry, carry_type, nodes, result, takes, tuple(gives))

    def carry_type(self, node: Body) -> Type:
        """The type that a layer receives, with only the new positions."""
        axes = (
            replace(axis, size=Size.of(self.analysis.axis), marks=())
            if self.analysis.axis in axis.size.vars
            else axis
            for axis in node.carry_type.axes
        )
        return replace(node.carry_type, axes=tuple(axes))
