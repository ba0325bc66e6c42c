"""Names the inner values of a model, so that they can be read and replaced.

`edges` writes out the layers of all stacks: each value of each layer becomes a value of the
graph, with a path such as `h.3.attention`. `read_and_replace` makes values outputs and inputs.
The result is lowered as every graph is, and what no output needs is not computed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from archdsl.frozen import Frozen
from archdsl.graph import masks
from archdsl.graph.nodes import Apply, Graph, Input, Mixture, Node, Scan, Slice, Stack
from archdsl.graph.renames import with_refs
from archdsl.graph.types import Type
from archdsl.graph.unused import drop_unused
from archdsl.passes import optimise
from archdsl.passes.decoding_analysis import tied_tables
from archdsl.passes.decompose import decompose
from archdsl.passes.rewrite import Builder, join_path

SCORES, WEIGHTS = "scores", "weights"  # the inner values of attention, [H, T, S]


class Edges(Frozen):
    """A graph without stacks, and the id of the value of each edge by its path.

    `maps` are the paths of the weights of attention, [H, T, S].
    """

    graph: Graph
    refs: Mapping[str, str]
    maps: tuple[str, ...]

    def types(self) -> dict[str, Type]:
        """The type of each edge, without its batch axis."""
        types = self.graph.types()
        return {path: types[ref] for path, ref in self.refs.items()}


def edges(graph: Graph, wanted: Collection[str] | None = None) -> Edges:
    """The edges of a model. Only the attention that has one of the `wanted` paths is divided
    into scores, weights and sums; without `wanted`, all is.

    A path is that of the operator's weights, with the number of the layer; the name that the
    spec gives a value, as in `a = …`; or an output's name. The value of a stack or of a layer
    is that of its last operator: `h`, `h.3`. Where two edges have the same path, the second is
    `path_2`. The values inside of experts and of states have no paths: they are computed for
    some vectors only, or for one position at a time.

    >>> from archdsl.analysis import analyse
    >>> found = edges(analyse("gpt2.arch", settings={"depth": 2}).graph)
    >>> [path for path in found.refs if path.startswith("h.1.attention")]  # doctest: +NORMALIZE_WHITESPACE
    ['h.1.attention.q', 'h.1.attention.q_heads', 'h.1.attention.k', 'h.1.attention.k_heads',
     'h.1.attention.v', 'h.1.attention.v_heads', 'h.1.attention.scores',
     'h.1.attention.weights', 'h.1.attention.attend', 'h.1.attention.merged',
     'h.1.attention.out', 'h.1.attention']
    """  # noqa: E501
    whole = decompose(replace(graph, labels=(), losses=()))
    unrolled = _Unrolled(whole, wanted)
    new: dict[str, str] = {}
    nodes = tuple(unrolled.nodes(whole.nodes, "", "", new))
    for name, ref, old in unrolled.later:
        unrolled.name(name, ref, old)
    outputs = tuple((name, new.get(ref, ref)) for name, ref in whole.outputs)
    order = {node.id: place for place, node in enumerate(nodes)}
    refs = dict(sorted(unrolled.refs.items(), key=lambda item: order.get(item[1], -1)))
    maps = {ref: path for path, ref in reversed(refs.items()) if ref in unrolled.maps}
    return Edges(
        replace(whole, nodes=nodes, outputs=outputs), refs, (*reversed(maps.values()),)
    )


def read_and_replace(
    edges: Edges, read: Sequence[str], replaced: Collection[str] = ()
) -> Graph:
    """The graph after PIPELINE whose outputs are some edges. The `replaced` ones are inputs, by
    their paths, and read as such."""
    types = edges.types()
    new = {edges.refs[path]: path for path in replaced}
    spans = {node.id: node.span for node in edges.graph.nodes}
    inputs = tuple(
        Input(path, types[path], span=spans.get(edges.refs[path])) for path in replaced
    )
    graph = replace(
        edges.graph,
        inputs=(*edges.graph.inputs, *inputs),
        nodes=tuple(with_refs(node, new) for node in edges.graph.nodes),
        outputs=tuple((path, new.get(ref, ref)) for path in read for ref in [edges.refs[path]]),
    )
    whole = optimise(graph)
    nodes = drop_unused(whole.nodes, {ref for _, ref in whole.outputs})
    found = replace(whole, nodes=nodes)
    return replace(found, tables=tied_tables(whole, found))


class _Unrolled:
    """The nodes of all layers of a graph, in order, and the paths of their values."""

    def __init__(self, graph: Graph, wanted: Collection[str] | None):
        self.builder = Builder(graph)
        self.wanted = wanted
        self.refs: dict[str, str] = {}
        self.outputs = dict(graph.outputs)
        self.later: list[tuple[str, str, str]] = []  # names that the labels go before
        self.maps: set[str] = set()

    def name(self, path: str, ref: str, old: str = "") -> str:
        """Gives a value, which had the id `old`, a path. It gets a number if the path is that
        of another value or output. Returns the path."""
        unique, number = path, 2
        while self.refs.get(unique, ref) != ref or self.outputs.get(unique, old) != old:
            unique, number = f"{path}_{number}", number + 1
        self.refs[unique] = ref
        return unique

    def nodes(
        self, nodes: tuple[Node, ...], path: str, place: str, new: dict[str, str]
    ) -> Iterator[Node]:
        """The nodes of a body whose weights are under `path` and whose edges are under `place`.
        `new` are the new ids of its values; those of the graph itself stay."""
        for node in nodes:
            inside = join_path(place, node.path)
            if isinstance(node, Stack):
                x = new.get(node.input, node.input)
                for i in range(node.count):
                    body, layer = node.bodies[node.kind(i)], f"{inside}.{i}"
                    known = new | {body.carry: x}
                    yield from self.nodes(
                        body.nodes, join_path(path, node.place(i)), layer, known
                    )
                    x = known[body.result]
                    self.name(layer, x)
                new[node.id] = x
            else:
                one = self.renamed(node, new, path)
                parts = [*self.divided(one, inside)]
                yield from parts
                self.note_map(parts[-1], inside)
            self.name(inside, new[node.id], node.id)
            names = [join_path(place, name) for name in node.names]
            names += [name for name, ref in self.outputs.items() if ref == node.id]
            self.later += [(name, new[node.id], node.id) for name in names]

    def renamed(self, node: Apply | Mixture | Scan, new: dict[str, str], path: str) -> Node:
        """A node with an id of its own, and with the types that its inputs give."""
        new[node.id] = self.builder.id() if path else node.id
        path = join_path(path, node.path)
        match node:
            case Apply():
                inputs = tuple((param, new.get(ref, ref)) for param, ref in node.inputs)
                return self.builder.typed(
                    replace(node, id=new[node.id], inputs=inputs, path=path)
                )
            case Mixture():
                return self.mixture(node, new, path)
            case Scan():
                return self.scan(node, new, path)

    def mixture(self, node: Mixture, new: dict[str, str], path: str) -> Mixture:
        carry = self.builder.id()
        x, gates = (new.get(ref, ref) for ref in (node.input, node.gates))
        type = self.builder.types[x]
        self.builder.types[carry] = replace(node.carry_type, noncausal=type.noncausal)
        own = {node.carry: carry}
        body = tuple(self.inner(node.body, own))
        return self.builder.mixed(
            replace(
                node,
                id=new[node.id],
                input=x,
                gates=gates,
                path=path,
                carry=carry,
                carry_type=self.builder.types[carry],
                body=body,
                result=own[node.result],
            )
        )

    def scan(self, node: Scan, new: dict[str, str], path: str) -> Scan:
        types, carry = self.builder.types, self.builder.id()
        own = new | {node.carry: carry}
        takes = []
        for each in node.takes:
            of = new.get(each.of, each.of)
            slice = replace(each.type, noncausal=types[of].noncausal)
            own[each.id] = self.builder.id()
            types[own[each.id]] = slice
            takes.append(Slice(own[each.id], of, slice))
        start = node.start and new.get(node.start, node.start)
        seen = types[start].noncausal if start else frozenset[str]()
        while True:  # the state after a position is that before the next
            types[carry] = replace(node.carry_type, noncausal=seen)
            body = tuple(self.inner(node.body, known := dict(own)))
            more = types[known.get(node.result, node.result)].noncausal - seen
            if not more:
                break
            seen |= more
        result, output = (known.get(ref, ref) for ref in (node.result, node.output))
        type = replace(node.type, noncausal=types[output].noncausal | seen)
        types[new[node.id]] = type
        return replace(
            node,
            id=new[node.id],
            path=path,
            carry=carry,
            carry_type=types[carry],
            takes=tuple(takes),
            body=tuple(each for each in body if isinstance(each, Apply)),
            result=result,
            output=output,
            type=type,
            start=start,
        )

    def inner(self, nodes: Sequence[Node], new: dict[str, str]) -> Iterator[Apply]:
        """The operators of an expert or a state, whose values have no paths."""
        for node in nodes:
            assert isinstance(node, Apply)
            new[node.id] = self.builder.id()
            inputs = tuple((param, new.get(ref, ref)) for param, ref in node.inputs)
            yield self.builder.typed(replace(node, id=new[node.id], inputs=inputs))

    def divided(self, node: Node, place: str) -> Iterator[Node]:
        """A node; attention in parts, if they are wanted. The last part has the same id."""
        if not isinstance(node, Apply) or node.op != "attend":
            yield node
            return
        around = place.removesuffix("attend").removesuffix(".")
        # The paths are taken also if their values are not computed.
        scores, weights = (
            self.name(join_path(around, name), self.builder.id()) for name in (SCORES, WEIGHTS)
        )
        if self.wanted is not None and not {scores, weights} & set(self.wanted):
            self.refs[scores] = self.refs[weights] = node.id
            yield node
            return
        parts = tuple(divide_attention(self.builder, node))
        self.refs[scores], self.refs[weights] = (each.id for each in parts[-3:-1])
        yield from parts

    def note_map(self, node: Node, place: str) -> None:
        """Notes the weights of a `mix`, and gives them a path if they have none."""
        if isinstance(node, Apply) and node.op == "mix":
            x = dict(node.inputs)["x"]
            self.maps.add(x)
            if x not in self.refs.values():
                self.name(join_path(place.rpartition(".")[0], WEIGHTS), x)


def divide_attention(builder: Builder, node: Apply) -> Iterator[Apply]:
    """The operators that `attend` stands for: the scores, their softmax, and the sums.

    >>> from archdsl.graph.parser import parse
    >>> graph = parse('''graph G init normal(std = 0.02)
    ... axis T <= 8
    ... input q: float[T, 4, 3]
    ... %1 = attend(q, k = q, v = q; mask = "causal", scale = 1.0, softcap = 5.0) @ a: float[T, 4, 3]
    ... output y = %1
    ... ''')
    >>> (attend,) = graph.nodes
    >>> [part.op for part in divide_attention(Builder(graph), attend)]
    ['scores', 'scale', 'tanh', 'scale', 'softmax', 'mix']
    """  # noqa: E501
    given, attr = dict(node.inputs), node.attr

    def apply(name: str, part: str, inputs: dict[str, str], **settings: Any) -> Apply:
        return builder.apply(name, join_path(node.path, part), inputs, node.span, **settings)

    scores = apply("scores", SCORES, {n: given[n] for n in "qk"}, scale=attr["scale"])
    yield scores
    if (cap := attr["softcap"]) is not None:
        assert isinstance(cap, int | float)
        for name, part, settings in (
            ("scale", "divided", {"by": 1 / cap}),
            ("tanh", "tanh", {}),
            ("scale", "capped", {"by": cap}),
        ):
            scores = apply(name, part, {"x": scores.id}, **settings)
            yield scores
    if "bias" in given:
        total, bias = (len(builder.types[ref].axes) for ref in (scores.id, given["bias"]))
        along = None if bias == total else (*range(bias - 3), *range(total - 3, total))
        scores = apply("add", "biased", {"x": scores.id, "other": given["bias"]}, along=along)
        yield scores
    own = {ref: given[ref] for ref in given if masks.is_input(ref)}
    sink = {"sink": given["sink"]} if "sink" in given else {}
    weights = apply("softmax", WEIGHTS, {"x": scores.id} | sink | own, mask=attr["mask"])
    yield weights
    last = apply("mix", "sums", {"x": weights.id, "v": given["v"]} | own, mask=attr["mask"])
    yield builder.typed(replace(last, id=node.id, names=node.names))
