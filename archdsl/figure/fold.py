"""A typed graph -> the tree of its figure.

First the operators of a body are folded to parts: an operator, a block, a stack. Consecutive
operators of one block are one part, unless the block is drawn open. Then the parts are put on
chains: the main chain is followed from the result down to the input, and what its steps receive
from elsewhere becomes side chains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import groupby
from math import prod

from archdsl.describe.flow import infix
from archdsl.diagnostics import Span
from archdsl.figure import titles
from archdsl.figure.structure import (
    Body,
    Box,
    Chain,
    Figure,
    Frame,
    Item,
    Level,
    Origin,
    Part,
    Ref,
    Sign,
    Step,
    Text,
)
from archdsl.frozen import Frozen
from archdsl.graph.mixture import vectors
from archdsl.graph.nodes import Apply, Graph, Mixture, Node, Repeated, Scan, Stack, refs, walk
from archdsl.graph.nodes import Body as Layer
from archdsl.graph.ops import OPERATORS
from archdsl.graph.printer import layer_numbers, literal
from archdsl.graph.sites import sites
from archdsl.graph.types import Size, Type
from archdsl.passes.decompose import decompose


def fold(graph: Graph, level: Level = "block") -> Figure:
    """The figure of a model.

    `model` draws each stack as one box, `block` the layers of a stack with a box for each
    sublayer, and `operator` all operators, with attention and MLPs taken apart.
    """
    if level == "operator":
        graph = decompose(graph)
    return _Folder(graph, level).figure()


# What papers do not draw: another shape of the same numbers, and what only training does.
_UNSEEN = ("reshape", "dropout")


class _Folded(Frozen):
    """Operators drawn as one item, which makes the value of its id; `uses` are the values that
    it receives. `main` is the one from the step before, if the item says it. `beside` are
    chains of its own. In an `ordered` operator the first tensor comes before the others."""

    item: Item
    uses: tuple[str, ...] = ()
    main: str | None = None
    beside: tuple[Chain, ...] = ()
    ordered: bool = False


class _Folder:
    def __init__(self, graph: Graph, level: Level):
        self.graph = graph
        self.level = level
        self.types = graph.types()
        self.same: dict[str, str] = {}  # values that are drawn as other ones

    def figure(self) -> Figure:
        given = [
            _Folded(Text(each.name, titles.words(each.name), shape(each.type)))
            for each in self.graph.inputs
        ]
        inner = self.parts(self.graph.nodes, "")
        found = [
            _Folded(Text(f"output {name}", titles.words(name)), (self.value(ref),))
            for name, ref in self.graph.outputs
        ]
        results = tuple(part.item.id for part in found)
        return Figure(self.graph.name, _Chains([*given, *inner, *found], None).body(results))

    def value(self, ref: str) -> str:
        """The value that is drawn for a value."""
        while ref in self.same:
            ref = self.same[ref]
        return ref

    def body(self, layer: Layer) -> Body:
        parts = self.parts(layer.nodes, "")
        carry = None if layer.carry not in self.types else layer.carry
        return _Chains(parts, carry).body((self.value(layer.result),))

    # -- parts --

    def parts(self, nodes: Sequence[Node], prefix: str) -> list[_Folded]:
        """The parts of consecutive operators; `prefix` is the path of their block."""
        found: list[_Folded] = []
        for name, run in groupby(nodes, lambda node: _block(node, prefix)):
            inside = tuple(run)
            if name is None or len(inside) == 1:
                for node in inside:
                    found += self.node(node)
            else:
                found += self.block(f"{prefix}.{name}".lstrip("."), inside)
        return found

    def block(self, path: str, nodes: tuple[Node, ...]) -> list[_Folded]:
        """A block as one part, or its parts if it is drawn open."""
        inner = {node.id for node in nodes}
        used = dict.fromkeys(r for n in nodes for r in refs(n) if r not in inner)
        uses = tuple(dict.fromkeys(map(self.value, used)))
        makes = [node.id for node in nodes if self._is_used_outside(node.id, inner)]
        last = makes[-1] if makes else nodes[-1].id
        holds_stack = any(isinstance(node, Stack) for node, _ in walk(nodes))
        if self.level == "operator":
            parts = self.parts(nodes, path)
            if len(parts) == 1 or len(makes) != 1 or not uses or holds_stack:
                return parts
            body = _Chains(parts, uses[0]).body((self.value(last),))
            title, note, _ = titles.of_group(path, nodes, self.types)
            if any(isinstance(p.item, Frame) and p.item.title.startswith(title) for p in parts):
                title, note = titles.words(path.rpartition(".")[2]), ""
            origin = self.origin(path, nodes, nodes[0].span)
            shape = self.shape(last)
            title = f"{title} ({note})" if note else title
            frame = Frame(last, title, (Part("", body),), "", None, shape, origin)
            return [_Folded(frame, uses, uses[0])]
        if holds_stack or (self.level == "block" and _carries_stream(nodes)):
            return self.parts(nodes, path)
        # The values that a box gives are drawn as one.
        self.same |= {ref: last for ref in makes if ref != last}
        if token := _named_token(nodes):
            return [self._token(token, path, uses)]
        title, note, kind = titles.of_group(path, nodes, self.types)
        origin = self.origin(path, nodes, nodes[0].span)
        return [_Folded(Box(last, title, kind, note, self.shape(last), None, origin), uses)]

    def node(self, node: Node) -> list[_Folded]:
        match node:
            case Apply():
                return self.apply(node)
            case Stack():
                return [self.stack(node)]
            case Mixture():
                return [self.mixture(node)]
            case Scan():
                return [self.scan(node)]

    def apply(self, node: Apply) -> list[_Folded]:
        uses = tuple(dict.fromkeys(self.value(ref) for ref in refs(node)))
        unseen = node.op in _UNSEEN or self._is_part(node)
        if unseen and self.level != "operator" and uses:
            self.same[node.id] = uses[0]
            return []
        title, note, kind = titles.of_operator(node, self.types)
        type, origin = self.shape(node.id), self.origin(node.path, (node,), node.span)
        item: Item = Box(node.id, title, kind, note, type, None, origin)
        beside: tuple[Chain, ...] = ()
        if node.op in titles.CIRCLES:
            item = Sign(node.id, titles.CIRCLES[node.op], type, origin)
        elif node.op == "posenc" and len(uses) == 1:
            encoding = replace(item, id=f"{node.id}'", type="")
            beside = (Chain(None, (Step(encoding),)),)
            item = Sign(node.id, "+", type, origin)
        # In a difference or a quotient, the first term comes from below.
        main = uses[0] if node.op in ("subtract", "divide") else None
        ordered = infix(node) is None and node.op != "concat"
        return [_Folded(item, uses, main, beside, ordered)]

    def stack(self, node: Stack) -> _Folded:
        uses = tuple(dict.fromkeys(self.value(ref) for ref in refs(node)))
        title, type = titles.of_stack(node), self.shape(node.id)
        origin = self.origin(node.path, (node,), node.span)
        note = "shared weights" if node.tied else ""
        if self.level == "model":
            item: Item = Box(node.id, title, "other", note, type, node.count, origin)
        else:
            parts = tuple(
                Part(_layers(node, kind), self.body(body))
                for kind, body in enumerate(node.bodies)
            )
            item = Frame(node.id, "", parts, note, node.count, type, origin)
        return _Folded(item, uses, self.value(node.input))

    def mixture(self, node: Mixture) -> _Folded:
        uses = tuple(dict.fromkeys(map(self.value, refs(node))))
        note, type = f"{node.chosen} of {node.count}", self.shape(node.id)
        origin = self.origin(node.path, (node,), node.span)
        if self.level == "operator":
            inside = Part("", self.body(node.inside))
            item: Item = Frame(node.id, "Expert", (inside,), note, node.count, type, origin)
        else:
            item = Box(node.id, "Experts", "feed", note, type, None, origin)
        return _Folded(item, uses, self.value(node.input))

    def scan(self, node: Scan) -> _Folded:
        uses = tuple(dict.fromkeys(map(self.value, refs(node))))
        type, origin = self.shape(node.id), self.origin(node.path, (node,), node.span)
        main = self.value(node.takes[0].of) if node.takes else None
        name = titles.words(node.path.rpartition(".")[2])
        if self.level == "operator":
            self.same |= {each.id: each.of for each in node.takes}
            state = _Folded(Text(node.carry, "State before"))
            chains = _Chains([state, *self.parts(node.body, node.path)], None)
            body = replace(chains.body((self.value(node.output),)), carry=main)
            item: Item = Frame(
                node.id, f"{name} at each position", (Part("", body),), "", None, type, origin
            )
        else:
            item = Box(node.id, f"State {name}", "attention", "recurrence", type, None, origin)
        return _Folded(item, uses, main)

    def _token(self, token: Apply, path: str, uses: tuple[str, ...]) -> _Folded:
        """A trained vector before a sequence, drawn as it enters from the side."""
        name = titles.words(str(token.attr["name"]))
        origin = self.origin(path, (token,), token.span)
        vector = Box(f"{token.id}'", f"[{name}] Embedding", "embed", "", "", None, origin)
        join = Box(token.id, "Concatenate", "plain", "", self.shape(token.id), None, origin)
        return _Folded(join, uses, None, (Chain(None, (Step(vector),)),))

    # -- facts --

    @cached_property
    def _users(self) -> Mapping[str, set[str]]:
        found: dict[str, set[str]] = {ref: {""} for _, ref in self.graph.outputs}
        for node, _ in walk(self.graph.nodes):
            for ref in refs(node):
                found.setdefault(ref, set()).add(node.id)
            bodies = node.bodies if isinstance(node, Stack) else ()
            ends = [body.result for body in bodies]
            ends += [node.result] if isinstance(node, Mixture) else []
            ends += [node.result, node.output] if isinstance(node, Scan) else []
            for ref in ends:
                found.setdefault(ref, set()).add("")
        return found

    def _is_part(self, node: Apply) -> bool:
        """Whether an operator takes some features of a value, and others take the rest."""
        if node.op != "slice":
            return False
        ((_, whole),) = node.inputs
        features = node.attr["axis"] == len(self.types[whole].axes) - 1
        return features and len(self._users[whole]) > 1 and self._users[whole] <= self._slices

    @cached_property
    def _slices(self) -> set[str]:
        nodes = (node for node, _ in walk(self.graph.nodes))
        return {node.id for node in nodes if isinstance(node, Apply) and node.op == "slice"}

    def _is_used_outside(self, ref: str, inner: set[str]) -> bool:
        return not self._users.get(ref, set()) <= inner

    def origin(self, path: str, nodes: Sequence[Node], span: Span | None) -> Origin:
        """The path and the line of operators, and what they cost, in all layers inside."""
        facts: list[tuple[str, str]] = []
        match nodes:
            case [Apply(op=op, attrs=attrs)]:
                settings = ", ".join(f"{k} = {literal(v)}" for k, v in attrs if v is not None)
                facts.append(("operator", f"{op}({settings})"))
        facts.append(("type", str(nodes[-1].type)))
        params, flops = 0, Size.of(0)
        for node, around in walk(tuple(nodes)):
            if isinstance(node, Apply):
                own, size = self._amounts[node.id]
                params += own * prod(each.count for each in around)
                flops += prod(map(self._times, around), start=size)
        facts += [("parameters", f"{params:,}")] if params else []
        facts += [("FLOPs", str(flops))] if flops != Size.of(0) else []
        return Origin(path, span, tuple(facts))

    def _times(self, around: Repeated) -> Size:
        """How often a body is computed; that of an expert for each vector that chooses it."""
        if isinstance(around, Mixture):
            return vectors(self.types[around.input]) * around.chosen
        return Size.of(around.count)

    @cached_property
    def _amounts(self) -> Mapping[str, tuple[int, Size]]:
        """The trainable numbers and the FLOPs of each operator, once."""
        found = {}
        for node, _, here in sites(self.graph):
            operator = OPERATORS[node.op]
            params = sum(prod(weight.shape) for weight in operator.weights(here))
            found[node.id] = params, operator.flops(here)
        return found

    def shape(self, ref: str) -> str:
        return shape(self.types[ref])


def shape(type: Type) -> str:
    """The sizes of a type, as on an edge: `T × 768`."""
    return " × ".join(str(axis.size) for axis in type.axes).replace("_", ",") or "1"


def _block(node: Node, prefix: str) -> str | None:
    """The name of the block within `prefix` that an operator belongs to, if any."""
    path = node.path.removeprefix(f"{prefix}.") if prefix else node.path
    first, dot, _ = path.partition(".")
    return first if dot else None


def _layers(node: Stack, kind: int) -> str:
    """Which layers have a kind, in short."""
    if not node.kinds:
        return ""
    ranges = layer_numbers(node.layers(kind)).split(", ")
    word = "layer" if ranges == [ranges[0]] and ranges[0].isdecimal() else "layers"
    return f"{word} {', '.join(ranges[:3])}{', …' if len(ranges) > 3 else ''}"


def _named_token(nodes: Sequence[Node]) -> Apply | None:
    """The `concat` of a block that only puts a trained vector before a sequence."""
    applies = [node for node in nodes if isinstance(node, Apply)]
    joins = [
        node for node in applies if node.op == "concat" and node.attr.get("name") is not None
    ]
    others = {node.op for node in applies if node not in joins}
    alone = len(joins) == 1 and len(applies) == len(nodes) and others == {"weight", "reshape"}
    return joins[0] if alone else None


def _carries_stream(nodes: Sequence[Node]) -> bool:
    """Whether the residual stream goes through a block: its result, without the branches of
    its residual adds and without norms, is a value from outside."""
    makers = {node.id: node for node in nodes}
    before: dict[str, set[str]] = {}
    for node in nodes:
        before[node.id] = {ref for r in refs(node) for ref in (r, *before.get(r, ()))}
    ref, adds = nodes[-1].id, 0
    while ref in makers:
        node = makers[ref]
        if not isinstance(node, Apply):
            return False
        inputs = [each for _, each in node.inputs]
        if node.op == "add" and len(inputs) == 2:
            streams = [a for a, b in (inputs, inputs[::-1]) if a in before.get(b, ())]
            if not streams:
                return False
            ref, adds = streams[0], adds + 1
        elif node.op in ("norm", "scale"):
            ref = inputs[0]
        else:
            return False
    return adds > 0


class _Chains:
    """Puts the parts of a body on chains."""

    def __init__(self, parts: Sequence[_Folded], carry: str | None):
        self.carry = carry
        self.makers = {part.item.id: part for part in parts}
        self.placed: set[str] = set()
        self.before: dict[str, set[str]] = {}  # what each value depends on
        for part in parts:
            self.before[part.item.id] = {
                ref for use in part.uses for ref in (use, *self.before.get(use, ()))
            }
        sources = {
            part.item.id for part in parts if isinstance(part.item, Text) and not part.uses
        }
        self.live = sources if carry is None else {carry, *sources}

    def body(self, results: tuple[str, ...]) -> Body:
        """A chain to the result that depends on most parts, and chains to the others."""
        order = sorted(results, key=lambda ref: -len(self.before.get(ref, ())))
        first, *others = [self.chain(ref) for ref in dict.fromkeys(order)]
        return Body(self.carry, first, tuple(chain for chain in others if chain.steps))

    def chain(self, result: str) -> Chain:
        """The steps from a value that is drawn already, or from nothing, to a result."""
        found: list[tuple[_Folded, str | None]] = []
        ref: str | None = result
        while ref in self.makers and ref not in self.placed:
            part = self.makers[ref]
            self.placed.add(ref)
            ref = self.main(part)
            found.append((part, ref))
        steps = [Step(part.item, self.sides(part, main)) for part, main in reversed(found)]
        return Chain(ref, tuple(steps))

    def sides(self, part: _Folded, main: str | None) -> tuple[Chain | Ref, ...]:
        """What a part receives besides its main value, in order."""
        found: list[Chain | Ref] = [*part.beside]
        for ref in part.uses:
            if ref != main:
                chain = self.chain(ref)
                found.append(chain if chain.steps else Ref(ref))
        return tuple(found)

    def main(self, part: _Folded) -> str | None:
        """The value that a part receives from the step before it.

        One that depends on the input of the body goes before one that does not. If no tensor
        is the first by its meaning, the one that takes most steps is: a residual connection is
        the side of an add.
        """
        if part.main is not None or not part.uses:
            return part.main
        found = [ref for ref in part.uses if self._is_live(ref)] or list(part.uses)
        if not part.ordered:
            return max(found, key=lambda ref: len(self.before.get(ref, ())))
        return found[0]

    def _is_live(self, ref: str) -> bool:
        return ref in self.live or not self.live.isdisjoint(self.before.get(ref, ()))
