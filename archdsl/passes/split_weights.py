"""Which weights are split over devices, and where the devices add up what they have.

An axis of a value is followed through the operators that keep it apart (`graph.linked_axes`),
up to those that add up over it. So the axis that a matrix product makes, such as the heads of
attention, the hidden features of an MLP or the vocabulary, is an axis of weights before and
behind it. Each device has a share of all of them, and computes its share of the values in
between (Shoeybi et al. 2019, section 3).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from math import prod
from typing import TypeAlias

from archdsl.diagnostics import Span, did_you_mean, fail, listing
from archdsl.frozen import Frozen
from archdsl.graph.linked_axes import RESULT, Links, links
from archdsl.graph.nodes import Apply, Graph, Mixture, Node, Repeated, Scan, Stack, refs, walk
from archdsl.graph.ops import OPERATORS
from archdsl.graph.sites import common_path, parameters, site, weight_uses
from archdsl.graph.types import Axis, Size, Type
from archdsl.passes.kept_values import depending

Dim: TypeAlias = tuple[str, int]  # a value or the common path of a weight, and an axis of it


class Sum(Frozen):
    """Numbers that the devices add up in a step: `times` those of a value, forward or backward.

    `size` are those of one example if the value has a batch. `at` is the path of the operator.
    """

    at: str
    backward: bool
    size: Size
    batched: bool
    times: int

    def numbers(self, batch: int, sizes: Mapping[str, int]) -> int:
        return self.size.at(sizes) * (batch if self.batched else 1) * self.times


class SplitWeight(Frozen):
    """A weight that is split along its axis number `axis`; `count` layers have one."""

    path: str
    shape: tuple[int, ...]
    axis: int
    count: int


class SplitAxis(Frozen):
    """An axis of which each device has a share, in weights and in values."""

    name: str
    size: int
    weights: tuple[SplitWeight, ...]
    values: frozenset[str]
    sums: tuple[Sum, ...]


class WholeAxis(Frozen):
    """An axis of weights that is not split, and why."""

    name: str
    size: int
    why: str
    code: str
    span: Span | None = field(default=None, compare=False, repr=False)


class Split(Frozen):
    """The weights of a model over `count` devices: `axes` are split, and `axis_of` has the
    number of the axis of each weight that is, by its full path."""

    count: int
    axes: tuple[SplitAxis, ...]
    whole: tuple[WholeAxis, ...]
    axis_of: Mapping[str, int]

    def share(self, path: str) -> int:
        """Over how many devices a weight is split."""
        return self.count if path in self.axis_of else 1

    @property
    def values(self) -> frozenset[str]:
        """The values of which each device computes a share."""
        return frozenset[str]().union(*(axis.values for axis in self.axes))


def split_weights(
    graph: Graph,
    count: int,
    names: Collection[str] = (),
    frozen: Collection[str] = (),
) -> Split:
    """Splits the weights of a graph over devices, along the axes of these names, or along all
    that can be split; the weights at `frozen` have no gradient.

    Raises `ArchError` for a name that is no axis of weights, for an axis that cannot be split,
    and if no axis can.

    >>> from archdsl.analysis import analyse
    >>> from archdsl.passes import optimise
    >>> sizes = {"vocab": 51, "context": 8, "D": 8, "heads": 2, "depth": 3}
    >>> found = split_weights(optimise(analyse("gpt.arch", settings=sizes).graph), 2)
    >>> [f"{axis.name} = {axis.size}" for axis in found.axes]
    ['mlp.0 = 32', 'heads = 2']
    >>> [each.why for each in found.whole if each.name == "vocab"]
    ['51 is not a multiple of 2']
    """
    chains = list(_Chains(graph, frozen).found())
    if unknown := sorted(set(names) - {each.name for each in chains}):
        known = [each.name for each in chains if each.reason(count) is None]
        fail(
            "argument-value",
            f"no weight has an axis `{unknown[0]}`",
            expected=listing(dict.fromkeys(known)),
            help=did_you_mean(unknown[0], known),
        )
    chosen, whole = list[_Chain](), list[WholeAxis]()
    wanted = [each for each in chains if not names or each.name in names]
    for chain in sorted(wanted, key=lambda each: -each.numbers):
        why = chain.reason(count) or chain.clash(chosen)
        if why is None:
            chosen.append(chain)
            continue
        if names:
            _refuse(why, count)
        whole.append(why)
    if not chosen:
        fail(
            "axis",
            f"no weight of `{graph.name}` can be split over {count} devices",
            found="; ".join(f"{each.name} = {each.size}: {each.why}" for each in whole),
            help="`--split batch` gives each device the whole model, and a share of each batch",
        )
    split = {weight.path: weight.axis for chain in chosen for weight in chain.weights}
    common = _common_paths(graph)
    axis_of = {
        each.path: split[path]
        for each in parameters(graph)
        if (path := each.weight.path(common[each.node])) in split
    }
    return Split(count, tuple(chain.split() for chain in chosen), tuple(whole), axis_of)


def _refuse(axis: WholeAxis, count: int) -> None:
    fail(
        axis.code,
        f"`{axis.name}` cannot be split over {count} devices",
        axis.span,
        expected=f"a multiple of {count}" if axis.code == "divisibility" else None,
        found=f"{axis.name} = {axis.size}: {axis.why}",
        help="`--split tensor` splits what can be split"
        if axis.code != "divisibility"
        else "change the size, or use another number of devices; `--split tensor` splits what "
        "can be split",
    )


def _common_paths(graph: Graph) -> dict[str, str]:
    """The path of each operator, one for all layers."""
    return {
        node.id: common_path(node.path, around)
        for node, around in walk(graph.nodes)
        if isinstance(node, Apply)
    }


class _Blocked(Frozen):
    """Why an axis cannot be split, and where."""

    why: str
    span: Span | None = field(default=None, compare=False, repr=False)


class _Chain(Frozen):
    """An axis wherever it is, its weights, and what needs all of it."""

    name: str
    axes: Sequence[Axis]
    weights: tuple[SplitWeight, ...]
    values: frozenset[str]
    blocked: _Blocked | None
    sums: tuple[Sum, ...]

    @property
    def size(self) -> int:
        sizes = [axis.size.value for axis in self.axes if axis.name == self.name]
        return (sizes or [self.axes[0].size.value])[0] or 0

    def reason(self, count: int) -> WholeAxis | None:
        """Why it cannot be split over so many devices, if it cannot."""
        if (by := self.blocked) is not None:
            return WholeAxis(self.name, self.size, by.why, "axis", by.span)
        # Another name says more, such as `kv_heads` of an axis `heads`.
        for axis in sorted(self.axes, key=lambda a: (a.name is None, a.name == self.name)):
            size = axis.size.value
            if size is None or size % count:
                what = "" if axis.name in (None, self.name) else f"{axis.name} = "
                why = f"{what}{axis.size} is not a multiple of {count}"
                return WholeAxis(self.name, self.size, why, "divisibility", axis.origin)
        return None

    def clash(self, chosen: list[_Chain]) -> WholeAxis | None:
        """Why it cannot be split beside others, if it cannot: a tensor is split once."""
        for other in chosen:
            if both := sorted(self.tensors & other.tensors, key=lambda n: n.startswith("%")):
                why = f"`{both[0]}` is split along `{other.name}`"
                return WholeAxis(self.name, self.size, why, "axis")
        return None

    @property
    def tensors(self) -> frozenset[str]:
        return self.values.union(each.path for each in self.weights)

    @property
    def numbers(self) -> int:
        """Those of its weights."""
        return sum(prod(each.shape) * each.count for each in self.weights)

    def split(self) -> SplitAxis:
        return SplitAxis(self.name, self.size, self.weights, self.values, self.sums)


def _needs(op: str, path: str, span: Span | None) -> _Blocked:
    return _Blocked(f"`{op}` at `{path}` needs all of it", span)


class _Chains:
    """Follows all axes through a graph: places that are one axis have the same root."""

    def __init__(self, graph: Graph, frozen: Collection[str]):
        self.graph, self.types = graph, graph.types()
        self.parent: dict[Dim, Dim] = {}
        self.axes: dict[Dim, Axis] = {}
        self.makers: dict[Dim, str] = {}  # the path of the first operator with a place
        self.weights: dict[str, tuple[tuple[int, ...], int]] = {}  # shapes, and layers with it
        self.blocked: dict[Dim, _Blocked] = {}
        self.uses: list[_Use] = []
        self.given = depending(graph, {each.name for each in (*graph.inputs, *graph.labels)})
        trained = {each.node for each in weight_uses(graph) if each.path not in frozen}
        self.flowing = depending(graph, trained)
        for node, around in walk(graph.nodes):
            self.add(node, around)
        for term in graph.losses:
            self.apply(term.loss, ())

    # -- places --

    def root(self, dim: Dim) -> Dim:
        while (above := self.parent.get(dim, dim)) != dim:
            dim = above
        return dim

    def unite(self, dims: Iterable[Dim]) -> None:
        first, *others = dict.fromkeys(map(self.root, dims))
        self.parent |= dict.fromkeys(others, first)

    def value(self, id: str) -> list[Dim]:
        """The axes of a value."""
        dims = [(id, i) for i in range(len(self.types[id].axes))]
        self.axes |= dict(zip(dims, self.types[id].axes, strict=True))
        return dims

    def weight(self, path: str, shape: tuple[int, ...], times: int) -> list[Dim]:
        self.weights.setdefault(path, (shape, times))
        dims = [(path, i) for i in range(len(shape))]
        self.axes |= {dim: Axis(None, Size.of(n)) for dim, n in zip(dims, shape, strict=True)}
        return dims

    def block(self, dims: Iterable[Dim], by: _Blocked) -> None:
        for dim in dims:
            self.blocked.setdefault(dim, by)

    # -- nodes --

    def add(self, node: Node, around: tuple[Repeated, ...]) -> None:
        if isinstance(node, Apply):
            self.apply(node, around)
            return
        what = type(node).__name__.lower()
        path = common_path(node.path, around)
        match node:
            case Stack():
                passed = [node.input, node.id, *node.results]
                passed += [body.carry for body in node.bodies]
                for same in zip(*map(self.value, passed), strict=True):
                    self.unite(same)
                slices = (*node.takes, *node.gives)
                inside = [id for each in slices for id in (each.id, each.of)]
            case Mixture():
                inside = [*refs(node), node.id, node.carry, node.result]
            case Scan():
                inside = [*refs(node), node.id, node.carry, node.result, node.output]
                inside += [each.id for each in node.takes]
        dims = [dim for id in inside for dim in self.value(id)]
        self.block(dims, _needs(what, path, node.span))

    def apply(self, node: Apply, around: tuple[Repeated, ...]) -> None:
        here, path = site(self.graph, node, self.types), common_path(node.path, around)
        times, row = prod(each.count for each in around), OPERATORS[node.op]
        tensors = {
            each.name: self.weight(each.path(path), each.shape, times)
            for each in row.weights(here)
        }
        if tied := here.attr.get("tied"):
            shape = (here.attr["vocab"], here.attr["dim"])
            tensors["weight"] = self.weight(f"{tied}.weight", shape, 1)
        own = tuple(tensors)
        tensors |= {param: self.value(ref) for param, ref in node.inputs}
        if not row.loss:
            tensors[RESULT] = self.value(node.id)
        places = [dim for dims in tensors.values() for dim in dims]
        for dim in places:
            self.makers.setdefault(dim, node.path)
        alone = not any(isinstance(each, Mixture) for each in around)
        found = links(node.op, here, len(node.type.axes)) if alone else Links()
        free = set[Dim]()
        for group in (*found.whole, *found.same, *found.summed):
            dims = [tensors[name][i] for name, i in group if name in tensors]
            self.unite(dims)
            free.update(() if group in found.whole else dims)
        needed = [dim for dim in places if dim not in free]
        self.block(needed, _needs(node.op, path, node.span))
        self.uses.append(_Use(node, path, times, tensors, own, found))

    # -- chains --

    def found(self) -> Iterator[_Chain]:
        """All axes that weights have, in the order of execution."""
        members: dict[Dim, list[Dim]] = {}
        for dim in self.axes:
            members.setdefault(self.root(dim), []).append(dim)
        blocked: dict[Dim, _Blocked] = {}
        for dim, by in self.blocked.items():
            blocked.setdefault(self.root(dim), by)
        often = self.names(self.axes)
        for root, dims in members.items():
            weights = tuple(
                SplitWeight(id, shape, i, layers)
                for id, i in dims
                if id in self.weights
                for shape, layers in [self.weights[id]]
            )
            if not weights:
                continue
            uses = Counter(id for id, _ in dims)
            twice = [_Blocked(f"`{id}` has it twice") for id, n in uses.items() if n > 1]
            here = self.names(dims)
            name = max(here, key=lambda each: here[each] ** 2 / often[each], default=None)
            yield _Chain(
                name or self.makers[dims[0]],
                [self.axes[dim] for dim in dims],
                weights,
                frozenset(id for id, _ in dims if id not in self.weights),
                blocked.get(root) or next(iter(twice), None),
                tuple(self.sums(root)),
            )

    def names(self, dims: Iterable[Dim]) -> Counter[str]:
        """How often places have a name. That of an axis is often there, and rarely elsewhere:
        `heads`, not `D`."""
        return Counter(name for dim in dims if (name := self.axes[dim].name))

    def sums(self, root: Dim) -> Iterator[Sum]:
        """Where devices add up what they have, if they split an axis."""
        for use in self.uses:
            node, types, found = use.node, self.types, use.links
            split = {
                name
                for name, dims in use.tensors.items()
                if any(self.root(dim) == root for dim in dims)
            }
            groups = [use.tensors[name][i] for (name, i), *_ in found.summed]
            if any(self.root(dim) == root for dim in groups):
                size = self.summed(node) * found.sums
                batched = node.id in self.given or OPERATORS[node.op].loss
                yield Sum(use.path or node.op, False, size, batched, use.times)
            elif split:
                for param, ref in node.inputs:
                    if param not in split and ref in self.flowing:
                        size = types[ref].elements
                        yield Sum(use.path, True, size, ref in self.given, use.times)
                for path in (use.tensors[name][0][0] for name in use.own if name not in split):
                    size = Size.of(prod(self.weights[path][0]))
                    yield Sum(use.path, True, size, False, use.times)

    def summed(self, node: Apply) -> Size:
        """The numbers that an operator adds up: those of its result. A loss is one number, and
        its softmax has one for each position that predicts."""
        if not OPERATORS[node.op].loss:
            return node.type.elements
        *positions, _ = self.types[node.inputs[0][1]].axes
        ahead = node.attr.get("ahead", 0)
        assert isinstance(ahead, int)
        return Type("float", tuple(positions)).elements - ahead


class _Use(Frozen):
    """An operator: the axes of its tensors by name, its own weights, and its links."""

    node: Apply
    path: str
    times: int
    tensors: Mapping[str, list[Dim]]
    own: tuple[str, ...]
    links: Links
