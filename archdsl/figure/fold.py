"""A typed graph -> the tree of its figure.

First the operators of a body are folded to parts: an operator, a block, a stack. Consecutive
operators of one block are one part, unless the block is drawn open. Then the parts are put on
chains: the main chain is followed from the result down to the input, and what its steps receive
from elsewhere becomes side chains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from archdsl.describe.flow import infix
from archdsl.figure import titles
from archdsl.figure.chains import Chains, Folded
from archdsl.figure.origins import Origins
from archdsl.figure.structure import (
    Body,
    Box,
    Chain,
    Figure,
    Frame,
    Item,
    Level,
    Part,
    Sign,
    Step,
    Text,
    appearance,
)
from archdsl.graph.nodes import Apply, Graph, Mixture, Node, Scan, Stack, refs, walk
from archdsl.graph.nodes import Body as Layer
from archdsl.graph.printer import layer_numbers
from archdsl.graph.types import Type
from archdsl.passes.decompose import COMPOSITE, decompose


def fold(graph: Graph, level: Level = "block", inside: bool = False) -> Figure:
    """The figure of a model.

    `model` draws each stack as one box, `block` the layers of a stack with a box for each
    sublayer, and `operator` all operators, with attention and MLPs taken apart. With `inside`,
    each box that holds more than one operator has a figure of what it holds.
    """
    if level == "operator":
        graph = decompose(graph)
    folder = _Folder(Origins(graph), level, _Composites(graph) if inside else None)
    folder.words |= {each.name: titles.words(each.name) for each in graph.inputs}
    parts = folder.parts(graph.nodes, "")
    given = [each.name for each in graph.inputs]
    return folder.figure(graph.name, given, parts, graph.outputs)


class _Composites:
    """The operators that each composite operator of a graph consists of."""

    def __init__(self, graph: Graph):
        whole = decompose(graph)
        self.origins = Origins(whole)
        self.parts: dict[str, tuple[Node, ...]] = {}
        known, parts = graph.types(), list[Node]()
        for node, _ in walk(whole.nodes):
            parts.append(node)
            if node.id in known:  # the last part has the id of the composite
                self.parts[node.id] = tuple(parts)
                parts = []


# What papers do not draw: another shape of the same numbers, and what only training does.
_UNSEEN = ("reshape", "dropout")


class _Folder:
    """Folds the operators of one figure. With `composites`, boxes have figures of what they
    hold."""

    def __init__(self, origins: Origins, level: Level, composites: _Composites | None):
        self.origins = origins
        self.types = origins.types
        self.level = level
        self.composites = composites
        self.same: dict[str, str] = {}  # values that are drawn as other ones
        self.words: dict[str, str] = {}  # for the values that are drawn

    def figure(
        self,
        title: str,
        given: Iterable[str],
        parts: Iterable[Folded],
        results: Iterable[tuple[str, str]],
    ) -> Figure:
        """Parts between words for the values that they receive and for the results."""
        inputs = [
            Folded(Text(ref, self.words[ref], self.shape(ref), self.origins.of_value(ref)))
            for ref in given
        ]
        outputs = [
            Folded(
                Text(f"output {name}", titles.words(name), "", self.origins.of_value(ref)),
                (self.value(ref),),
            )
            for name, ref in results
        ]
        ends = tuple(part.item.id for part in outputs)
        return Figure(title, Chains([*inputs, *parts, *outputs], None).body(ends))

    def inside(
        self,
        title: str,
        nodes: Sequence[Node],
        results: Sequence[str],
        fold: Callable[[_Folder], list[Folded]],
        origins: Origins | None = None,
    ) -> Figure | None:
        """The figure of what a box of `nodes` holds, if a page wants it and it is more than one
        operator. `fold` makes the parts, with the folder of that figure."""
        if self.composites is None:
            return None
        inner = _Folder(origins or self.origins, "block", self.composites)
        made = {node.id for node in nodes}
        outside = [ref for node in nodes for ref in refs(node) if ref not in made]
        inner.same = {ref: self.value(ref) for ref in outside if ref in self.same}
        given = dict.fromkeys(map(self.value, outside))
        inner.words = {ref: self.words.get(ref, "Input") for ref in given}
        parts = fold(inner)
        if len(parts) < 2 and not (parts and isinstance(parts[0].item, Frame)):
            return next((p.item.inside for p in parts if isinstance(p.item, Box)), None)
        several = len(results) > 1
        names = [f"output_{n}" if several else "output" for n in range(len(results))]
        return inner.figure(title, given, parts, zip(names, results, strict=True))

    def value(self, ref: str) -> str:
        """The value that is drawn for a value."""
        while ref in self.same:
            ref = self.same[ref]
        return ref

    def body(self, layer: Layer) -> Body:
        self.words[layer.carry] = "Input"
        parts = self.parts(layer.nodes, "")
        carry = None if layer.carry not in self.types else layer.carry
        return Chains(parts, carry).body((self.value(layer.result),))

    # -- parts --

    def parts(self, nodes: Sequence[Node], prefix: str) -> list[Folded]:
        """The parts of consecutive operators; `prefix` is the path of their block."""
        found: list[Folded] = []
        for name, run in groupby(nodes, lambda node: _block(node, prefix)):
            inside = tuple(run)
            if name is None or len(inside) == 1:
                for node in inside:
                    found += self._named(self.node(node))
            else:
                found += self._named(self.block(f"{prefix}.{name}".lstrip("."), inside))
        return found

    def _named(self, parts: list[Folded]) -> list[Folded]:
        self.words |= {part.item.id: word(part.item) for part in parts}
        return parts

    def block(self, path: str, nodes: tuple[Node, ...]) -> list[Folded]:
        """A block as one part, or its parts if it is drawn open."""
        inner = {node.id for node in nodes}
        used = dict.fromkeys(r for n in nodes for r in refs(n) if r not in inner)
        uses = tuple(dict.fromkeys(map(self.value, used)))
        makes = [node.id for node in nodes if self.origins.is_used_outside(node.id, inner)]
        last = makes[-1] if makes else nodes[-1].id
        holds_stack = any(isinstance(node, Stack) for node, _ in walk(nodes))
        if self.level == "operator":
            parts = self.parts(nodes, path)
            if len(parts) == 1 or len(makes) != 1 or not uses or holds_stack:
                return parts
            body = Chains(parts, uses[0]).body((self.value(last),))
            title, note, _ = titles.of_group(path, nodes, self.types)
            if any(isinstance(p.item, Frame) and p.item.title.startswith(title) for p in parts):
                title, note = titles.words(path.rpartition(".")[2]), ""
            title = f"{title} ({note})" if note else title
            shape, origin = self.shape(last), self.origins.around(path, nodes)
            frame = Frame(last, title, (Part("", body),), "", None, shape, origin)
            return [Folded(frame, uses, uses[0])]
        if holds_stack or (self.level == "block" and _carries_stream(nodes)):
            return self.parts(nodes, path)
        title, note, kind = titles.of_group(path, nodes, self.types)
        inside = self.inside(title, nodes, makes or [last], lambda to: to.parts(nodes, path))
        # The values that a box gives are drawn as one.
        self.same |= {ref: last for ref in makes if ref != last}
        if token := _named_token(nodes):
            return [self._token(token, path, uses)]
        shape, origin = self.shape(last), self.origins.of(path, nodes)
        box = Box(last, title, kind, note, shape, None, origin, inside)
        return [Folded(box, uses)]

    def node(self, node: Node) -> list[Folded]:
        match node:
            case Apply():
                return self.apply(node)
            case Stack():
                return [self.stack(node)]
            case Mixture():
                return [self.mixture(node)]
            case Scan():
                return [self.scan(node)]

    def apply(self, node: Apply) -> list[Folded]:
        uses = tuple(dict.fromkeys(self.value(ref) for ref in refs(node)))
        unseen = node.op in _UNSEEN or self.origins.is_part(node)
        if unseen and self.level != "operator" and uses:
            self.same[node.id] = uses[0]
            return []
        title, note, kind = titles.of_operator(node, self.types)
        type, origin = self.shape(node.id), self.origins.of(node.path, (node,))
        inside = self.operators(title, node) if node.op in COMPOSITE else None
        item: Item = Box(node.id, title, kind, note, type, None, origin, inside)
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
        return [Folded(item, uses, main, beside, ordered)]

    def operators(self, title: str, node: Apply) -> Figure | None:
        """The figure of the operators that a composite operator consists of."""
        if self.composites is None:
            return None
        nodes, origins = self.composites.parts[node.id], self.composites.origins

        def parts(folder: _Folder) -> list[Folded]:
            return folder.parts(nodes, node.path)

        return self.inside(title, nodes, [node.id], parts, origins)

    def stack(self, node: Stack) -> Folded:
        note, type = "shared weights" if node.tied else "", self.shape(node.id)
        if self.level != "model":
            parts = tuple(self.layers(node))
            origin = self.origins.around(node.path, (node,))
            item: Item = Frame(node.id, "", parts, note, node.count, type, origin)
        else:
            title, origin = titles.of_stack(node), self.origins.of(node.path, (node,))
            inside = self.inside(title, (node,), [node.id], lambda to: [to.stack(node)])
            item = Box(node.id, title, "other", note, type, node.count, origin, inside)
        return Folded(item, self.uses(node), self.value(node.input))

    def layers(self, node: Stack) -> Iterator[Part]:
        """The layers of a stack, those that look alike once; which ones, if several do not."""
        bodies = [self.body(body) for body in node.bodies]
        kinds: dict[object, list[int]] = {}
        for kind, body in enumerate(bodies):
            look = kind if self.level == "operator" else appearance(body)
            kinds.setdefault(look, []).append(kind)
        for alike in kinds.values():
            numbers = sorted(layer for kind in alike for layer in node.layers(kind))
            yield Part(_layers(numbers) if len(kinds) > 1 else "", bodies[alike[0]])

    def mixture(self, node: Mixture, is_open: bool = False) -> Folded:
        note, type = f"{node.chosen} of {node.count}", self.shape(node.id)
        if is_open or self.level == "operator":
            parts = (Part("", self.body(node.inside)),)
            origin = self.origins.around(node.path, (node,))
            item: Item = Frame(node.id, "Expert", parts, note, node.count, type, origin)
        else:
            title, origin = "Experts", self.origins.of(node.path, (node,))
            inside = self.inside(title, (node,), [node.id], lambda to: [to.mixture(node, True)])
            item = Box(node.id, title, "feed", note, type, None, origin, inside)
        return Folded(item, self.uses(node), self.value(node.input))

    def scan(self, node: Scan, is_open: bool = False) -> Folded:
        type, name = self.shape(node.id), titles.words(node.path.rpartition(".")[2])
        main = self.value(node.takes[0].of) if node.takes else None
        if is_open or self.level == "operator":
            self.same |= {each.id: each.of for each in node.takes}
            state = Folded(Text(node.carry, "State before"))
            chains = Chains([state, *self.parts(node.body, node.path)], None)
            parts = (Part("", replace(chains.body((self.value(node.output),)), carry=main)),)
            origin = self.origins.around(node.path, (node,))
            title = f"{name} at each position"
            item: Item = Frame(node.id, title, parts, "", None, type, origin)
        else:
            title, origin = f"State {name}", self.origins.of(node.path, (node,))
            inside = self.inside(title, (node,), [node.id], lambda to: [to.scan(node, True)])
            item = Box(node.id, title, "attention", "recurrence", type, None, origin, inside)
        return Folded(item, self.uses(node), main)

    def uses(self, node: Node) -> tuple[str, ...]:
        """The values that are drawn for those that a node uses."""
        return tuple(dict.fromkeys(map(self.value, refs(node))))

    def _token(self, token: Apply, path: str, uses: tuple[str, ...]) -> Folded:
        """A trained vector before a sequence, drawn as it enters from the side."""
        name = titles.words(str(token.attr["name"]))
        origin = self.origins.of(path, (token,))
        vector = Box(f"{token.id}'", f"[{name}] Embedding", "embed", "", "", None, origin)
        join = Box(token.id, "Concatenate", "plain", "", self.shape(token.id), None, origin)
        return Folded(join, uses, None, (Chain(None, (Step(vector),)),))

    def shape(self, ref: str) -> str:
        return shape(self.types[ref])


_RESULTS = {"+": "Sum", "−": "Difference", "×": "Product", "÷": "Quotient"}


def word(item: Item) -> str:
    """What the value of an item is called, where a figure of something else receives it."""
    return _RESULTS[item.sign] if isinstance(item, Sign) else item.title or "Layers"


def shape(type: Type) -> str:
    """The sizes of a type, as on an edge: `T × 768`."""
    return " × ".join(str(axis.size) for axis in type.axes).replace("_", ",") or "1"


def _block(node: Node, prefix: str) -> str | None:
    """The name of the block within `prefix` that an operator belongs to, if any."""
    path = node.path.removeprefix(f"{prefix}.") if prefix else node.path
    first, dot, _ = path.partition(".")
    return first if dot else None


def _layers(numbers: Sequence[int]) -> str:
    """Which layers have a kind, in short."""
    ranges = layer_numbers(numbers).split(", ")
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
