"""The graph of a step: the new positions alone, with caches and positions as inputs."""

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


def build_step_graph(of: Analysis) -> Graph:
    """The graph of the logits of new tokens. A cache is an input and an output by one name."""
    return _Step(of).graph()


class _Step:
    """Makes the nodes of a step; values keep their ids.

    `caches` are the caches with the new positions in them, by the value that is kept;
    `slices` the layer's parts of inputs, for each of the stacks that we are in.
    """

    def __init__(self, of: Analysis):
        self.of = of
        self.builder = Builder(of.graph, self.varying())
        self.inputs = tuple(self.step_inputs())
        self.builder.types |= {each.name: each.type for each in self.inputs}
        self.renamed: dict[str, str] = {}
        self.caches: dict[str, str] = {}
        self.slices: list[dict[str, Slice]] = []
        self.positions: list[Apply] = []  # the graph's first nodes
        self.left_pads: dict[int, str] = {0: LEFT_PAD}
        self.at: dict[int, str] = {}
        self.paths = {node.path for node in of.graph.nodes}

    def varying(self) -> tuple[Varying, ...]:
        of = self.of
        lengths = {axis.name: name for axis, _, name in of.ragged()}
        used = {name for kept in of.step_inputs.values() for name in kept.type.vars} | {of.axis}
        axes = (
            replace(axis, ragged=lengths.get(axis.name))
            for axis in of.graph.varying
            if axis.name in used
        )
        return (*axes, Varying(of.column_axis, of.columns))

    def step_inputs(self) -> Iterator[Input]:
        of, number = self.of, Type("int")
        yield from (replace(i, pad=None) for i in of.graph.inputs if i.name in of.along)
        yield Input(PAST, number)
        yield Input(LEFT_PAD, number)
        columns = Axis(of.column_axis, Size.of(of.column_axis))
        yield Input(CACHE_POSITIONS, Type("int", (columns,)))
        yield from (Input(name, number) for _, _, name in of.ragged())
        yield from (Input(kept.name, of.layered(kept)) for kept in of.step_inputs.values())

    def graph(self) -> Graph:
        of, graph = self.of, self.of.graph
        nodes = (*self.append_caches(of.inputs), *self.nodes(graph.nodes))
        outputs = [(name, self.ref(ref)) for name, ref in graph.outputs]
        outputs += [(of.step_inputs[ref].name, self.caches[ref]) for ref in of.caches]
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
        """What a value of the model is called in the step."""
        ref = self.renamed.get(ref, ref)
        return self.input(self.of.step_inputs[ref]) if ref in self.of.once else ref

    def input(self, kept: StepInput) -> str:
        """An input of the step, or its part for the layer that we are in."""
        name = kept.name
        for slices, _ in zip(self.slices, self.of.around[kept.ref], strict=False):
            if kept.ref not in slices:
                all = self.builder.types[name]
                type = replace(all, axes=all.axes[1:])
                slices[kept.ref] = Slice(self.builder.id(), name, type)
                self.builder.types[slices[kept.ref].id] = type
            name = slices[kept.ref].id
        return name

    def append_caches(self, refs: Iterable[str]) -> Iterator[Node]:
        """Writes caches of the values that are known where a body begins."""
        for ref in refs:
            if ref in self.of.caches:
                yield self.append(ref, f"{ref.strip('%')}_cache")

    def append(self, ref: str, path: str) -> Apply:
        """The cache of a value with the new positions in it."""
        new, cache = self.renamed.get(ref, ref), self.input(self.of.step_inputs[ref])
        node = self.builder.apply("append", path, {"x": cache, "new": new, "past": PAST})
        self.caches[ref] = node.id
        return node

    # -- positions --

    def position_inputs(self, op: Op, node: Apply) -> Iterator[tuple[str, str]]:
        """The inputs by which an operator learns of positions."""
        if op.cached and not self.caches.keys() & {dict(node.inputs)[p] for p in op.cached}:
            return  # it looks at a memory, where no position counts
        offset = self.of.offset(node.id)
        assert offset is not None
        later = self.of.lead - offset
        for name in op.positions:
            match name:
                case "at":
                    yield name, self.positions_of(later)
                case "left_pad":
                    yield name, self.left_pad_of(later)
                case _:
                    yield name, {"past": PAST, "cache_positions": CACHE_POSITIONS}[name]

    def left_pad_of(self, later: int) -> str:
        """Where rows start on an axis that begins so many columns later."""
        if later not in self.left_pads:
            node = self.position("shift", f"starts_{later}", {"x": LEFT_PAD}, by=later)
            self.left_pads[later] = node.id
        return self.left_pads[later]

    def positions_of(self, later: int) -> str:
        """The position of each new column on an axis that begins so many columns later."""
        if later not in self.at:
            inputs = {"x": self.of.tokens, "past": PAST, "left_pad": self.left_pad_of(later)}
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
            if node.id not in self.of.stepped:
                continue
            match node:
                case Stack():
                    yield self.stack(node)
                case Apply() if OPERATORS[node.op].drops_prefix and self.trims_tokens(node):
                    # What is left out stands in front: the new positions are the same.
                    self.renamed[node.id] = self.ref(node.inputs[0][1])
                case Apply():
                    yield self.apply(node)
            if node.id in self.of.caches:
                yield self.append(node.id, f"{node.path or 'x'}_cache")

    def trims_tokens(self, node: Apply) -> bool:
        index = node.attr["axis"]
        assert isinstance(index, int)
        return self.of.axis in node.type.axes[index].size.vars

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
        for ref in [ref for ref in self.caches if ref not in outside]:  # written in the body
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
        """What a layer takes, of the new positions alone."""
        axes = (
            replace(axis, size=Size.of(self.of.axis), marks=())
            if self.of.axis in axis.size.vars
            else axis
            for axis in node.carry_type.axes
        )
        return replace(node.carry_type, axes=tuple(axes))
