"""Builds the graph of a step: only new positions, with caches and positions as inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from archdsl.graph.nodes import Apply, Graph, Input, Node, Slice, Stack
from archdsl.graph.ops import OPERATORS
from archdsl.graph.signature import Op
from archdsl.graph.types import Axis, Size, Type, Varying
from archdsl.passes.decoding_analysis import (
    Analysis,
    StepInput,
    layers_axis,
    tied_tables,
    unused_name,
)
from archdsl.passes.rewrite import Builder

PAST, LEFT_PAD, CACHE_POSITIONS = "past", "left_pad", "cache_positions"  # inputs of a step


def build_step_graph(analysis: Analysis) -> Graph:
    """Builds the graph that computes the logits of new tokens and updates the caches."""
    return _Step(analysis).graph()


class _Step:
    """Builds the nodes of a step; values keep their ids.

    `caches` has the id of the updated cache for each cached value. `slices` has, for each
    enclosing stack, one layer's slices of inputs.
    """

    def __init__(self, analysis: Analysis):
        self.analysis = analysis
        self.builder = Builder(analysis.graph, self.varying())
        self.inputs = tuple(self.step_inputs())
        self.builder.types |= {each.name: each.type for each in self.inputs}
        self.renamed: dict[str, str] = {}
        self.caches: dict[str, str] = {}
        self.slices: list[dict[str, Slice]] = []
        self.positions: list[Apply] = []  # the graph's first nodes
        self.left_pads: dict[int, str] = {0: LEFT_PAD}
        self.at: dict[int, str] = {}
        self.paths = {node.path for node in analysis.graph.nodes}

    def varying(self) -> tuple[Varying, ...]:
        analysis = self.analysis
        lengths = {axis.name: name for axis, _, name in analysis.ragged()}
        values = analysis.step_inputs.values()
        used = {analysis.axis, *(name for value in values for name in value.type.vars)}
        axes = (
            replace(axis, ragged=lengths.get(axis.name))
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
        yield from (
            Input(value.name, analysis.layered(value))
            for value in analysis.step_inputs.values()
        )

    def graph(self) -> Graph:
        analysis, graph = self.analysis, self.analysis.graph
        nodes = (*self.append_caches(analysis.inputs), *self.nodes(graph.nodes))
        outputs = [(name, self.ref(ref)) for name, ref in graph.outputs]
        outputs += [
            (analysis.step_inputs[ref].name, self.caches[ref]) for ref in analysis.caches
        ]
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
            if value.ref not in slices:
                all = self.builder.types[name]
                type = replace(all, axes=all.axes[1:])
                slices[value.ref] = Slice(self.builder.id(), name, type)
                self.builder.types[slices[value.ref].id] = type
            name = slices[value.ref].id
        return name

    def append_caches(self, refs: Iterable[str]) -> Iterator[Node]:
        """Updates the caches of values that exist before a body."""
        for ref in refs:
            if ref in self.analysis.caches:
                yield self.append(ref, f"{ref.strip('%')}_cache")

    def append(self, ref: str, path: str) -> Apply:
        """Updates the cache of a value with the new positions."""
        new, cache = self.renamed.get(ref, ref), self.input(self.analysis.step_inputs[ref])
        node = self.builder.apply("append", path, {"x": cache, "new": new, "past": PAST})
        self.caches[ref] = node.id
        return node

    # -- positions --

    def position_inputs(self, op: Op, node: Apply) -> Iterator[tuple[str, str]]:
        """The position inputs that an operator needs."""
        if op.cached and not self.caches.keys() & {dict(node.inputs)[p] for p in op.cached}:
            return  # attention to a memory needs no positions
        offset = self.analysis.offset(node.id)
        assert offset is not None
        later = self.analysis.lead - offset
        for name in op.positions:
            match name:
                case "at":
                    yield name, self.positions_of(later)
                case "left_pad":
                    yield name, self.left_pad_of(later)
                case _:
                    yield name, {"past": PAST, "cache_positions": CACHE_POSITIONS}[name]

    def left_pad_of(self, later: int) -> str:
        """The left padding on an axis that starts `later` positions later."""
        if later not in self.left_pads:
            node = self.position("shift", f"left_pad_{later}", {"x": LEFT_PAD}, by=later)
            self.left_pads[later] = node.id
        return self.left_pads[later]

    def positions_of(self, later: int) -> str:
        """The position of each new token on an axis that starts `later` positions later."""
        if later not in self.at:
            inputs = {
                "x": self.analysis.tokens,
                "past": PAST,
                "left_pad": self.left_pad_of(later),
            }
            name = f"positions_{later}" if later else "positions"
            self.at[later] = self.position("positions", name, inputs).id
        return self.at[later]

    def position(self, op: str, name: str, inputs: dict[str, str], **attr: int) -> Apply:
        node = self.builder.apply(op, unused_name(name, self.paths), inputs, None, **attr)
        self.positions.append(node)
        return node

    # -- nodes --

    def nodes(self, nodes: tuple[Node, ...]) -> Iterator[Node]:
        for node in nodes:
            if node.id not in self.analysis.stepped:
                continue
            match node:
                case Stack():
                    yield self.stack(node)
                case Apply() if OPERATORS[node.op].drops_prefix and self.drops_tokens(node):
                    # Only positions at the start are dropped: the new positions are the same.
                    self.renamed[node.id] = self.ref(node.inputs[0][1])
                case Apply():
                    yield self.apply(node)
            if node.id in self.analysis.caches:
                yield self.append(node.id, f"{node.path or 'x'}_cache")

    def drops_tokens(self, node: Apply) -> bool:
        index = node.attr["axis"]
        assert isinstance(index, int)
        return self.analysis.axis in node.type.axes[index].size.vars

    def apply(self, node: Apply) -> Apply:
        op, seen = OPERATORS[node.op], self.caches
        inputs = {
            param: seen[ref] if param in op.cached and ref in seen else self.ref(ref)
            for param, ref in node.inputs
        }
        inputs |= self.position_inputs(op, node)
        return self.builder.typed(replace(node, inputs=tuple(inputs.items())))

    def stack(self, node: Stack) -> Stack:
        types = self.builder.types
        types[node.carry] = carry_type = self.carry_type(node)
        self.slices.append({})
        outside = set(self.caches)
        body = (*self.append_caches([node.carry]), *self.nodes(node.body))
        takes = tuple(self.slices.pop().values())
        gives = []
        for ref in [ref for ref in self.caches if ref not in outside]:  # updated in the body
            type = types[self.caches[ref]]
            all = replace(type, axes=(layers_axis(node), *type.axes))
            gives.append(Slice(self.builder.id(), self.caches[ref], all))
            types[gives[-1].id] = all
            self.caches[ref] = gives[-1].id
        result = self.ref(node.result)
        types[node.id] = types[result]
        return replace(
            node,
            input=self.ref(node.input),
            carry_type=carry_type,
            body=body,
            result=result,
            type=types[result],
            takes=takes,
            gives=tuple(gives),
        )

    def carry_type(self, node: Stack) -> Type:
        """The type that a layer receives, with only the new positions."""
        axes = (
            replace(axis, size=Size.of(self.analysis.axis), marks=())
            if self.analysis.axis in axis.size.vars
            else axis
            for axis in node.carry_type.axes
        )
        return replace(node.carry_type, axes=tuple(axes))
