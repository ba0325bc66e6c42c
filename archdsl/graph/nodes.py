"""The typed graph: what a model computes, with all names resolved and all sizes known.

Each value has a unique id: an input's name, or `%` and a number. A `Stack` stores one body for
each kind of its layers; a body may use values from outside. A path is the prefix of the
weights' names; inside a stack it is relative to one layer. Operators with the same path have
the same weights. `names` are other paths by which the spec calls a value: those of edges, as in
`a = …`, and of the blocks that return it. `calls` are the calls of blocks that led to its
operator, outermost first.

Passes rewrite the same graph. They fuse pointwise operators into the matmul before them
(`tail`), choose the kernels of an operator (`kernels`), and give each layer of a stack its
slice of a value such as a cache (`Slice`). A `Scan` is like a stack over positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import TypeAlias

from archdsl.diagnostics import Span
from archdsl.frozen import Frozen
from archdsl.graph.types import Axis, Size, Type, Varying

# The value of an attribute. The sizes of `mlp` and `reshape` are tuples.
Attribute: TypeAlias = (
    int | float | bool | str | tuple[int, ...] | tuple[tuple[str, int], ...] | None
)


class Tail(Frozen):
    """A pointwise operator fused after another one; `other` is its second operand."""

    op: str
    other: str | None = None


class Apply(Frozen):
    """One operator applied to values; `inputs` and `attrs` have the names of its parameters.

    `tail` are the operators fused after it, in order, and `type` is the type of the last one.
    `kernels` are the kernels that it launches, in order, after they are selected.
    """

    id: str
    op: str
    inputs: tuple[tuple[str, str], ...]
    attrs: tuple[tuple[str, Attribute], ...]
    path: str
    type: Type
    span: Span | None = field(default=None, compare=False, repr=False)
    tail: tuple[Tail, ...] = ()
    kernels: tuple[str, ...] = ()
    names: tuple[str, ...] = field(default=(), compare=False, repr=False)
    calls: tuple[Span, ...] = field(default=(), compare=False, repr=False)

    @property
    def attr(self) -> Mapping[str, Attribute]:
        return dict(self.attrs)


class Slice(Frozen):
    """A value of one layer, `id`, and the value of all layers of its kind, `of`, with these
    layers as its first axis."""

    id: str
    of: str
    type: Type


class Body(Frozen):
    """What the layers of one kind compute.

    `carry` is the value that a layer receives and `result` the one that it returns. `takes`
    are slices of outer values: the n-th layer of the kind sees slice n of `of` as `id`. `gives`
    stack a value of the body over the layers of the kind: `of` in the body becomes `id`
    outside, with the outer type.
    """

    carry: str
    carry_type: Type
    nodes: tuple[Node, ...]
    result: str
    takes: tuple[Slice, ...] = ()
    gives: tuple[Slice, ...] = ()


class Stack(Frozen):
    """`count` layers in a row. Layer i has its own weights under `path.i`; those of a `tied`
    stack have the same weights, under `path`.

    `kinds` has for each layer the index of its body, in the order in which they first occur;
    it is empty if there is one body.
    """

    id: str
    input: str
    count: int
    path: str
    bodies: tuple[Body, ...]
    type: Type
    span: Span | None = field(default=None, compare=False, repr=False)
    kinds: tuple[int, ...] = ()
    tied: bool = False
    names: tuple[str, ...] = field(default=(), compare=False, repr=False)
    calls: tuple[Span, ...] = field(default=(), compare=False, repr=False)

    def place(self, layer: int | str) -> str:
        """The path of a layer within the body around the stack."""
        return self.path if self.tied else f"{self.path}.{layer}"

    def kind(self, layer: int) -> int:
        """The index of the body of a layer."""
        return self.kinds[layer] if self.kinds else 0

    def layers(self, kind: int) -> Sequence[int]:
        """The numbers of the layers of a kind."""
        if not self.kinds:
            return range(self.count)
        return [layer for layer, each in enumerate(self.kinds) if each == kind]

    def how_many(self, kind: int) -> int:
        """How many layers of a kind there are. A range has no length beyond 2^63."""
        return self.kinds.count(kind) if self.kinds else self.count

    @property
    def last(self) -> Body:
        """The body of the last layer."""
        return self.bodies[self.kind(self.count - 1)]

    @property
    def results(self) -> tuple[str, ...]:
        return tuple(body.result for body in self.bodies)

    @property
    def takes(self) -> tuple[Slice, ...]:
        """The slices that all bodies take."""
        return tuple(each for body in self.bodies for each in body.takes)

    @property
    def gives(self) -> tuple[Slice, ...]:
        """The slices that all bodies give."""
        return tuple(each for body in self.bodies for each in body.gives)


class Mixture(Frozen):
    """The sum of `count` copies of a body, the experts, each multiplied by its gate; expert e
    has its own weights under `path.e`.

    `gates` has a number for each expert along its last axis. At most `chosen` of them are not 0
    for one vector, and only these experts need to be computed. The body is that of a single
    vector: `carry` is one vector of `input`, `result` one of the value. It uses no value from
    outside.
    """

    id: str
    input: str
    gates: str
    count: int
    chosen: int
    path: str
    carry: str
    carry_type: Type
    body: tuple[Node, ...]
    result: str
    type: Type
    span: Span | None = field(default=None, compare=False, repr=False)
    names: tuple[str, ...] = field(default=(), compare=False, repr=False)
    calls: tuple[Span, ...] = field(default=(), compare=False, repr=False)

    @property
    def inside(self) -> Body:
        return Body(self.carry, self.carry_type, self.body, self.result)

    def place(self, number: int | str) -> str:
        """The path of an expert within the body around the mixture."""
        return f"{self.path}.{number}"


class Scan(Frozen):
    """A body that is computed at each position along an axis, in order.

    `carry` is the value that a position receives from the one before it, `start` the one that
    the first position receives (None: zeros), and `result` the one that it passes on. `takes`
    are slices of outer values along their first axis: position i sees slice i of `of` as `id`.
    The value of the scan is `output` of all positions, with the axis in front; it is `result`
    until a pass moves what reads the states into the body.

    In a decoding step, positions where `valid` is false pass their carry on unchanged, and
    `final` is the id of the value that the last position passes on.
    """

    id: str
    path: str
    carry: str
    carry_type: Type
    takes: tuple[Slice, ...]
    body: tuple[Apply, ...]
    result: str
    output: str
    type: Type
    start: str | None = None
    valid: str | None = None
    final: str | None = None
    kernels: tuple[str, ...] = ()
    span: Span | None = field(default=None, compare=False, repr=False)
    names: tuple[str, ...] = field(default=(), compare=False, repr=False)
    calls: tuple[Span, ...] = field(default=(), compare=False, repr=False)

    @property
    def along(self) -> Axis:
        """The axis of the positions."""
        return self.type.axes[0]


Node: TypeAlias = Apply | Stack | Mixture | Scan


class Layers(Frozen):
    """The layers of one kind, which a node is inside of: their stack and their body."""

    stack: Stack
    kind: int

    @property
    def inside(self) -> Body:
        return self.stack.bodies[self.kind]

    @property
    def count(self) -> int:
        return self.stack.how_many(self.kind)

    def place(self, number: int | str) -> str:
        """The path of a layer within the body around the stack."""
        return self.stack.place(number)


Repeated: TypeAlias = Layers | Mixture  # what a node is inside of


class Input(Frozen):
    """An input of the model; `pad` is the token that fills a ragged axis, and `default` the
    number that fills an input which is not given."""

    name: str
    type: Type
    pad: int | None = None
    default: int | float | bool | None = None
    span: Span | None = field(default=None, compare=False, repr=False)


class Term(Frozen):
    """A loss and its weight in the sum of losses."""

    weight: float
    loss: Apply


class Table(Frozen):
    """The table [vocab, dim] of an `embed` in another graph of the same model."""

    path: str
    vocab: int
    dim: int


class Graph(Frozen):
    """A model with fixed parameters.

    `init` is the initialization rule: its name and its numbers. `labels` are inputs that only
    the loss uses. `tables` belong to the other graph of a model that was split.
    """

    name: str
    varying: tuple[Varying, ...]
    inputs: tuple[Input, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[tuple[str, str], ...]
    labels: tuple[Input, ...] = ()
    losses: tuple[Term, ...] = ()
    init: tuple[str, tuple[tuple[str, float], ...]] = ("normal", (("std", 0.02),))
    tables: tuple[Table, ...] = ()

    @property
    def required(self) -> tuple[Input, ...]:
        """The inputs without a default."""
        return tuple(each for each in self.inputs if each.default is None)

    @property
    def bounds(self) -> dict[str, int]:
        """The largest size of each varying axis, by name."""
        return {axis.name: axis.bound for axis in self.varying}

    def objective(self, op: str) -> Apply | None:
        """The first loss of this operator; None if there is none."""
        return next((each.loss for each in self.losses if each.loss.op == op), None)

    def types(self) -> dict[str, Type]:
        """The type of every value, by id."""
        types = {i.name: i.type for i in (*self.inputs, *self.labels)}
        for node, _ in walk(self.nodes):
            types[node.id] = node.type
            if isinstance(node, Mixture):
                types[node.carry] = node.carry_type
            if isinstance(node, Stack):
                types |= {body.carry: body.carry_type for body in node.bodies}
                types |= {each.id: each.type for each in (*node.takes, *node.gives)}
            if isinstance(node, Scan):
                types[node.carry] = node.carry_type
                types |= {each.id: each.type for each in node.takes}
                if node.final is not None:
                    types[node.final] = node.carry_type
        return types


def positions(nodes: tuple[Node, ...]) -> dict[str, Size]:
    """The number of positions of the scan around each operator that is in the body of one."""
    scans = (node for node, _ in walk(nodes) if isinstance(node, Scan))
    return {each.id: scan.along.size for scan in scans for each in scan.body}


def walk(
    nodes: tuple[Node, ...], prefix: tuple[Repeated, ...] = ()
) -> Iterator[tuple[Node, tuple[Repeated, ...]]]:
    """Every node with the layers and mixtures that it is inside of, outermost first, in the
    order of execution. The nodes of a scan's body come after the scan."""
    for node in nodes:
        yield node, prefix
        match node:
            case Stack():
                for kind, body in enumerate(node.bodies):
                    yield from walk(body.nodes, (*prefix, Layers(node, kind)))
            case Mixture():
                yield from walk(node.body, (*prefix, node))
            case Scan():
                yield from ((each, prefix) for each in node.body)


def refs(node: Node) -> tuple[str, ...]:
    """The ids that a node uses but does not define, in order."""
    match node:
        case Apply():
            fused = (each.other for each in node.tail if each.other is not None)
            return (*(ref for _, ref in node.inputs), *fused)
        case Stack():
            sliced = (each.of for each in node.takes)
            outside = (ref for body in node.bodies for ref in outer_refs(body))
            return tuple(dict.fromkeys((node.input, *sliced, *outside)))
        case Mixture():
            return (node.input, node.gates)
        case Scan():
            own = {node.carry, *(each.id for each in node.takes)}
            own |= {each.id for each in node.body}
            used = [*(ref for inner in node.body for ref in refs(inner))]
            used += [node.result, node.output]
            given = (ref for ref in (node.start, node.valid) if ref is not None)
            sliced = (each.of for each in node.takes)
            outside = (ref for ref in used if ref not in own)
            return tuple(dict.fromkeys((*given, *sliced, *outside)))


def outer_refs(body: Body) -> tuple[str, ...]:
    """The outer values that a body uses whole, in order."""
    own = {body.carry, *(each.id for each in body.takes), *defined_ids(body.nodes)}
    used = (*(ref for inner in body.nodes for ref in refs(inner)), body.result)
    return tuple(dict.fromkeys(ref for ref in used if ref not in own))


def defined_ids(nodes: Iterable[Node]) -> Iterator[str]:
    """The ids that nodes define, with those that a stack gives and the last of a scan."""
    for node in nodes:
        yield node.id
        if isinstance(node, Stack):
            yield from (each.id for each in node.gives)
        elif isinstance(node, Scan) and node.final is not None:
            yield node.final


def describe_losses(graph: Graph) -> str:
    """The operators of the losses with their weights: `next_token + 0.1 * z_loss`."""
    return " + ".join(
        each.loss.op if each.weight == 1 else f"{each.weight:g} * {each.loss.op}"
        for each in graph.losses
    )
