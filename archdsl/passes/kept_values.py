"""What the backward pass needs of a program: the values that are stored until then.

The gradients of an operator need its inputs, unless it is linear in all of them, as `add` and
`reshape` are. A value that is computed pointwise, and that only pointwise operators need, is
not stored: it is computed again from their inputs, in the same kernel.

A frozen weight has no gradient. So a product with it does not need its other factor, and what
no trained weight is behind needs nothing: no gradient flows there. The layers of a stack count
as if the same weights were trained in all of them, from the first layer with one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import prod
from types import MappingProxyType

from archdsl.frozen import Frozen
from archdsl.graph.mixture import vectors
from archdsl.graph.nodes import (
    Apply,
    Graph,
    Layers,
    Mixture,
    Repeated,
    Scan,
    Slice,
    Stack,
    positions,
    refs,
    walk,
)
from archdsl.graph.ops import OPERATORS
from archdsl.graph.rules import POINTWISE
from archdsl.graph.sites import site, weight_uses
from archdsl.graph.types import Size
from archdsl.passes.program import Program
from archdsl.passes.select_kernels import TINYGRAD

# Operators whose result or its gradient is a sum or a copy: their gradients need no value.
LINEAR = frozenset(
    {
        *("add", "subtract", "scale", "shift", "sum", "mean"),
        *("reshape", "slice", "concat", "delay", "take", "at", "at_end", "last", "readout"),
        *("patches", "posenc", "embed", "dropout"),
    }
)
# Products: the gradient of a factor needs the other factors.
PRODUCTS = frozenset({"linear", "unembed", "conv1d", "contract", "scores", "mix", "multiply"})
# Those whose result is the memory of their first input.
VIEWS = frozenset({"reshape", "slice", "at", "at_end", "readout"})


class Kept(Frozen):
    """Elements of a training step, for all examples of a batch.

    - `stored`: what is stored from the forward pass to the backward pass.
    - `passing`: the gradients that are alive at once in the backward pass.
    - `logits`: the inputs of the losses, which are float32 there.
    """

    stored: int
    passing: int
    logits: int


def kept_values(
    program: Program,
    recompute: bool = False,
    frozen: frozenset[str] = frozenset(),
    parts: Mapping[str, int] = MappingProxyType({}),
) -> Kept:
    """Counts the elements that the gradients of a program need; the weights at `frozen` have
    none. `parts` has over how many devices a value is split: then they are those of one.

    With `recompute`, of the layers of a stack only the input is stored, and the values of one
    layer are there at a time (Chen et al. 2016, section 4.2).

    >>> from archdsl.analysis import analyse
    >>> from archdsl.passes import optimise
    >>> from archdsl.passes.program import lower
    >>> sizes = {"vocab": 50, "context": 8, "D": 4, "heads": 1, "depth": 3}
    >>> graph = optimise(analyse("gpt.arch", settings=sizes).graph)
    >>> program = lower(graph, batch=2, sizes={"T": 8}, target="cpu", trains=True)
    >>> kept_values(program).logits == 2 * 8 * 50
    True
    >>> kept_values(program).stored // (2 * 8)  # 3 (16 D + 1) + 2 D + vocab
    253
    """
    return _Counts(program, frozen, parts).total(recompute)


class _Counts:
    def __init__(self, program: Program, frozen: frozenset[str], parts: Mapping[str, int]):
        self.parts = parts
        self.graph: Graph = program.graph
        self.at: Mapping[str, int] = dict(program.sizes)
        self.batch = program.batch
        self.types = self.graph.types()
        self.made = {node.id: node for node, _ in walk(self.graph.nodes)}
        given = (*self.graph.inputs, *self.graph.labels)
        self.given = depending(self.graph, {each.name for each in given})
        self.times = positions(self.graph.nodes)
        uses = [each for each in weight_uses(self.graph) if each.path not in frozen]
        self.trained = {each.node for each in uses}
        self.flowing = depending(self.graph, self.trained)  # the values with a gradient
        paths = [f"{each.path}." for each in uses]
        self.first = {
            node.id: 0 if node.input in self.flowing else _first_trained(node, paths)
            for node in self.graph.nodes
            if isinstance(node, Stack)
        }

    def total(self, recompute: bool) -> Kept:
        outside, layers = 0, dict[str, int]()  # of one layer, by outermost stack
        for elements, around in self.stored():
            count = prod(map(self.repeats, around))
            if recompute and around and isinstance(around[0], Layers):
                stack = around[0].stack
                before = layers.get(stack.id, 0)
                layers[stack.id] = before + elements * count // max(1, self.repeats(around[0]))
            else:
                outside += elements * count
        for id, one in layers.items():
            outside += one + self.carried(id)
        logits = {ref for term in self.graph.losses for ref in refs(term.loss)}
        return Kept(
            stored=outside,
            passing=self.passing(),
            logits=sum(self.elements(ref) for ref in logits if self.is_float(ref)),
        )

    def carried(self, stack: str) -> int:
        """The elements of what all layers of a stack receive."""
        node = self.made[stack]
        assert isinstance(node, Stack)
        kinds = enumerate(node.bodies)
        return sum(
            self.elements(body.carry) * self.repeats(Layers(node, kind)) for kind, body in kinds
        )

    def stored(self) -> Iterator[tuple[int, tuple[Repeated, ...]]]:
        """What is stored, in elements of one layer, and the layers that it is inside of."""
        needed = self.needed()
        for value, around in self.places():
            if value in needed:
                yield self.elements(value), around
        for node, around in walk(self.graph.nodes):
            if isinstance(node, Apply) and node.id in self.flowing:
                inside = self.inside(node).at(self.at) * self.rows(node.id)
                yield inside // self.parts.get(node.id, 1), around

    # -- values --

    def is_float(self, ref: str) -> bool:
        return self.types[ref].dtype == "float"

    def rows(self, value: str) -> int:
        return self.batch if value in self.given else 1

    def elements(self, value: str) -> int:
        """The elements of a value at all positions of a scan around it."""
        times = self.times.get(value, Size.of(1))
        found = (self.types[value].elements * times).at(self.at) * self.rows(value)
        return found // self.parts.get(value, 1)

    def inside(self, node: Apply) -> Size:
        """What an operator itself stores: scores, or their logarithms of sums."""
        if node.op != "attend" or TINYGRAD in node.kernels or not node.kernels:
            return OPERATORS[node.op].scratch(site(self.graph, node, self.types))
        return prod((axis.size for axis in node.type.axes[:-1]), start=Size.of(1))

    def source(self, ref: str) -> str:
        """The value whose memory a value is."""
        while isinstance(node := self.made.get(ref), Apply) and node.op in VIEWS:
            ref = node.inputs[0][1]
        return ref

    def needed(self) -> set[str]:
        """The values that the backward pass needs and that are stored."""
        needs: dict[str, bool] = {}  # whether only pointwise operators need it
        for term in self.graph.losses:
            self.ask(needs, refs(term.loss), pointwise=False)
        for node, _ in reversed(list(walk(self.graph.nodes))):
            if node.id not in self.flowing:
                continue
            match node:
                case Apply() if node.op not in LINEAR:
                    self.ask(needs, self.factors(node), node.op in POINTWISE)
                    if node.op == "attend":
                        self.ask(needs, [node.id], pointwise=False)
                case Mixture():
                    self.ask(needs, (node.input, node.gates), pointwise=False)
                case Scan():
                    self.ask(needs, [node.result, node.output], pointwise=False)
                case _:
                    pass
        stored = set[str]()
        waiting = list(needs)
        while waiting:
            ref = waiting.pop()
            match self.made.get(ref):
                case Apply(op=op) as node if op in POINTWISE and needs[ref]:
                    for other in map(self.source, refs(node)):
                        if self.is_float(other) and other not in needs:
                            needs[other] = True
                            waiting.append(other)
                case _:
                    stored.add(ref)
        return stored

    def factors(self, node: Apply) -> list[str]:
        """The inputs that the gradients of an operator need."""
        inputs = refs(node)
        if node.op not in PRODUCTS:
            return [*inputs]
        flowing = [ref in self.flowing for ref in inputs]
        others = sum(flowing) + (node.id in self.trained)
        return [ref for ref, own in zip(inputs, flowing, strict=True) if others > own]

    def ask(self, needs: dict[str, bool], values: Iterable[str], pointwise: bool) -> None:
        for ref in map(self.source, values):
            trained = isinstance(node := self.made.get(ref), Apply) and node.op == "weight"
            if self.is_float(ref) and not trained:
                needs[ref] = needs.get(ref, True) and pointwise

    # -- places --

    def places(self) -> Iterable[tuple[str, tuple[Repeated, ...]]]:
        """Each value with the layers and mixtures that it is inside of."""
        given = (*self.graph.inputs, *self.graph.labels)
        around: dict[str, tuple[Repeated, ...]] = {each.name: () for each in given}
        for node, here in walk(self.graph.nodes):
            around[node.id] = here
            match node:
                case Stack():
                    for kind, body in enumerate(node.bodies):
                        inside = (*here, Layers(node, kind))
                        around |= dict.fromkeys((body.carry, *_ids(body.takes)), inside)
                    around |= dict.fromkeys(_ids(node.gives), here)
                case Mixture():
                    around[node.carry] = (*here, node)
                case Scan():
                    around |= dict.fromkeys((node.carry, *_ids(node.takes)), here)
        return around.items()

    def repeats(self, around: Repeated) -> int:
        """How often a body is computed: in training, each expert computes all vectors."""
        if isinstance(around, Mixture):
            return vectors(self.types[around.input]).at(self.at) * around.count
        first = self.first.get(around.stack.id, 0)
        return sum(layer >= first for layer in around.stack.layers(around.kind))

    def passing(self) -> int:
        """The most gradients at once: of the inputs and results of an operator, and of the
        value that its layer received."""
        largest = 0
        for node, around in walk(self.graph.nodes):
            if isinstance(node, Apply) and node.id in self.flowing:
                carried = around[-1].inside.carry if around else None
                beside = [carried] if carried else []
                values = {node.id, *refs(node), *beside}
                floats = [ref for ref in values if self.is_float(ref)]
                largest = max(largest, sum(map(self.elements, floats)))
        return largest


def _ids(slices: Iterable[Slice]) -> list[str]:
    return [each.id for each in slices]


def _first_trained(stack: Stack, paths: list[str]) -> int:
    """The first layer that has one of these weights; the count of layers if none has."""
    prefixes = (f"{stack.place(layer)}." for layer in range(stack.count))
    found = (any(each.startswith(prefix) for each in paths) for prefix in prefixes)
    return next((layer for layer, trained in enumerate(found) if trained), stack.count)


def depending(graph: Graph, first: set[str]) -> set[str]:
    """The values that depend on some of them, and these."""
    found = set(first)
    for node, _ in walk(graph.nodes):
        used = {*refs(node), *(each.id for each, _ in walk((node,)))}
        if not found & used:
            continue
        found.add(node.id)
        match node:
            case Stack():
                found.update(body.carry for body in node.bodies)
                found.update(_ids((*node.takes, *node.gives)))
            case Mixture():
                found.add(node.carry)
            case Scan():
                found.update((node.carry, *_ids(node.takes)))
    return found
