"""The peak of memory in a forward pass: the largest number of elements alive at once.

A value is alive from its definition to its last use. The layers of a kind differ only in the
values that end in them: the first layer may end the stack's input, and the last one the values
from outside the stack. So the peak of a body is computed once for each set of values that end
in it, and nested stacks take no more time than flat ones.

Where the peak is depends on the sizes of the varying axes. So, as a formula, it is the largest
of a few sizes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, Generic, Protocol, Self, TypeVar

from archdsl.graph.contraction import parse_pattern
from archdsl.graph.mixture import vectors
from archdsl.graph.nodes import Apply, Body, Graph, Mixture, Node, Scan, Stack, refs, walk
from archdsl.graph.ops import OPERATORS
from archdsl.graph.sites import site
from archdsl.graph.types import Size


class _Amount(Protocol):
    """A number or a size."""

    def __add__(self, other: Any, /) -> Self: ...
    def __sub__(self, other: Any, /) -> Self: ...
    def __mul__(self, other: Any, /) -> Self: ...


Amount = TypeVar("Amount", bound=_Amount)


def peak_elements(graph: Graph, at: Mapping[str, int]) -> int:
    """The largest number of elements alive at once; inputs belong to the caller."""
    peaks = _Peaks(graph, lambda size: size.at(at), lambda found: (max(found),))
    return max(peaks.graph_peak())


def peak_formulas(graph: Graph) -> tuple[Size, ...]:
    """The sizes whose largest one is `peak_elements`, for all sizes of the varying axes.

    >>> from archdsl.analysis import analyse
    >>> [str(size) for size in peak_formulas(analyse("gpt.arch").graph)]
    ['24 T^2 + 4608 T', '51025 T']
    """
    return _Peaks(graph, lambda size: size, largest).graph_peak()


def largest(sizes: Iterable[Size]) -> tuple[Size, ...]:
    """Those of the sizes that can be the largest one.

    >>> T = Size.of("T")
    >>> [str(size) for size in largest([T, T * 2, T * T, T + 1])]
    ['2 T', 'T^2', 'T + 1']
    """
    found: dict[Size, dict[object, int]] = {}
    for size in sizes:
        terms = dict[object, int](size.terms)
        if not any(_exceeds(other, terms) for other in found.values()):
            found = {s: other for s, other in found.items() if not _exceeds(terms, other)}
            found[size] = terms
    return tuple(found)


def _exceeds(terms: Mapping[object, int], other: Mapping[object, int]) -> bool:
    """Whether all factors of a size are at least those of another one."""
    return all(terms.get(each, 0) >= other.get(each, 0) for each in {*terms, *other})


class _Peaks(Generic[Amount]):
    """The peaks of a graph, as numbers or as sizes: what `amount` makes of a size."""

    def __init__(
        self,
        graph: Graph,
        amount: Callable[[Size], Amount],
        largest: Callable[[Iterable[Amount]], tuple[Amount, ...]],
    ):
        types = graph.types()
        self.graph = graph
        self.largest = largest
        self.zero = amount(Size.of(0))
        self.elements = dict.fromkeys(types, self.zero)
        self.scratch: dict[str, Amount] = {}
        self.vectors: dict[str, Amount] = {}  # of the mixtures
        self.refs: dict[str, frozenset[str]] = {}
        self.same: dict[str, str] = {}  # an id of a value -> another id of it
        self.known: dict[tuple[str, frozenset[str]], tuple[Amount, ...]] = {}
        read = set(_read_inside(graph))
        for node, _ in walk(graph.nodes):
            if isinstance(node, Apply):
                # A trained tensor is in memory already.
                trained = node.op == "weight"
                self.elements[node.id] = self.zero if trained else amount(node.type.elements)
                self.scratch[node.id] = amount(
                    OPERATORS[node.op].scratch(site(graph, node, types))
                )
            elif isinstance(node, Mixture):
                self.elements[node.id] = amount(node.type.elements)
                self.elements[node.carry] = amount(node.carry_type.elements)
                self.vectors[node.id] = amount(vectors(types[node.input]))
            elif isinstance(node, Scan):
                # While it runs, the states and the values of one position are alive.
                stored = self.zero if node.id in read else amount(node.type.elements)
                self.elements[node.id] = stored
                one = [node.carry_type, *(each.type for each in node.body)]
                self.scratch[node.id] = amount(
                    sum((each.elements for each in one), start=Size.of(0))
                )
            else:
                self.same[node.id] = node.last.result
                passes = all(body.result == body.carry for body in node.bodies)
                for body in node.bodies:
                    self.elements[body.carry] = amount(body.carry_type.elements)
                    if node.count == 1 or passes:
                        self.same[body.carry] = node.input

    def graph_peak(self) -> tuple[Amount, ...]:
        kept = frozenset(self.value(ref) for _, ref in self.graph.outputs)
        return self.peak(self.graph.nodes, frozenset(), kept)

    def value(self, id: str) -> str:
        """The id under which a value is counted: that of its operator, input or carry."""
        while id in self.same:
            id = self.same[id]
        return id

    def used(self, node: Node) -> frozenset[str]:
        """The values that a node uses but does not define."""
        if node.id not in self.refs:
            self.refs[node.id] = frozenset(map(self.value, refs(node)))
        return self.refs[node.id]

    def total(self, values: Iterable[str]) -> Amount:
        return sum((self.elements[value] for value in values), self.zero)

    def peak(
        self, nodes: tuple[Node, ...], ending: frozenset[str], kept: frozenset[str]
    ) -> tuple[Amount, ...]:
        """The peak of nodes, with the outer values that end in them; `kept` do not end."""
        last = {value: i for i, node in enumerate(nodes) for value in self.used(node)}
        own = {self.value(node.id) for node in nodes if self.defines(node)}
        ends: list[set[str]] = [set() for _ in nodes]
        for value in (own | ending) - kept:
            if value in last:
                ends[last[value]].add(value)
        # A value that is never used ends when it is defined, or was not alive.
        alive = self.total(value for value in ending if value in last)
        highest = [alive]
        for i, node in enumerate(nodes):
            value = self.value(node.id)
            if isinstance(node, Apply | Scan):
                alive += self.elements[value]
                highest.append(alive + self.scratch[value])
            elif isinstance(node, Mixture):
                alive += self.elements[value]
                # One expert at a time, which all vectors may have chosen.
                carry, result = (frozenset({self.value(r)}) for r in (node.carry, node.result))
                inside = self.peak(node.body, carry, result)
                highest += (alive + each * self.vectors[node.id] for each in inside)
            else:
                alive -= self.total(ends[i])
                inside = self.stack_peak(node, frozenset(ends[i]))
                highest += (alive + each for each in inside)
                alive += self.total(ends[i])
                if self.defines(node):
                    alive += self.elements[value]
            alive -= self.total(ends[i])
            if value not in last and value not in kept and self.defines(node):
                alive -= self.elements[value]
        return self.largest(highest)

    def defines(self, node: Node) -> bool:
        """Whether the value of a node is a new one, not that of a node before it."""
        return not isinstance(node, Stack) or any(map(self.returns_new, node.bodies))

    def returns_new(self, body: Body) -> bool:
        """Whether the result of a body is a new value."""
        return any(node.id == body.result and self.defines(node) for node in body.nodes)

    def stack_peak(self, stack: Stack, ending: frozenset[str]) -> tuple[Amount, ...]:
        """The peak of all layers; `ending` end where they are used last, the input in the first
        layer if no body uses it."""
        key = stack.id, ending
        if key not in self.known:
            self.known[key] = self.layers_peak(stack, ending)
        return self.known[key]

    def layers_peak(self, stack: Stack, ending: frozenset[str]) -> tuple[Amount, ...]:
        given = self.value(stack.input)
        passed = self.value(stack.bodies[0].carry) == given  # no layer has a value of its own
        last: dict[str, int] = {}
        for kind, body in enumerate(stack.bodies):
            layer = stack.layers(kind)[-1]
            for value in chain.from_iterable(map(self.used, body.nodes)):
                last[value] = max(layer, last.get(value, 0))
        ends: dict[int, set[str]] = defaultdict(set)
        for value in ending:
            if value in last:
                ends[last[value]].add(value)
        # Whether the value that the next layer receives ends in it.
        owned, alive = not passed and given in ending and given not in last, ending
        found = list[Amount]()
        for layer, kind in self.distinct_layers(stack, ends):
            body = stack.bodies[kind]
            inside = frozenset(ends[layer])
            alive -= {*inside, given} if owned else inside
            inside |= {body.carry} if owned else frozenset()
            kept = frozenset({self.value(body.result)})
            around = self.total(alive)
            found += (around + each for each in self.peak(body.nodes, inside, kept))
            owned = owned or (not passed and self.returns_new(body))
        return self.largest(found)

    def distinct_layers(
        self, stack: Stack, ends: Mapping[int, set[str]]
    ) -> Iterator[tuple[int, int]]:
        """Layers with their kinds: each one in which values end, and the first ones of each
        run of equal layers. The layers between have the same peak."""
        wanted = {0, 1, 2, stack.count - 1, *ends}
        if stack.kinds:
            wanted |= {
                layer + more
                for layer in range(1, stack.count)
                if stack.kinds[layer] != stack.kinds[layer - 1]
                for more in (0, 1)
            }
        around = (each + more for each in wanted for more in (0, 1))
        for layer in sorted({each for each in around if each < stack.count}):
            yield layer, stack.kind(layer)


def _read_inside(graph: Graph) -> Iterator[str]:
    """The scans whose states only one `contract` reads, position by position: it is computed
    with the state, which is not stored."""
    users: dict[str, list[Node | None]] = {ref: [None] for _, ref in graph.outputs}
    for node, _ in walk(graph.nodes):
        for ref in refs(node):
            users.setdefault(ref, []).append(node)
    scans = [node for node, _ in walk(graph.nodes) if isinstance(node, Scan)]
    for scan in scans:
        match users.get(scan.id):
            case [Apply(op="contract") as node]:
                pattern = parse_pattern(str(node.attr["pattern"]))
                names = pattern.operands[[ref for _, ref in node.inputs].index(scan.id)]
                if names[0] in pattern.result:
                    yield scan.id
