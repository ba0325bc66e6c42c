"""Several short texts in one window, with no attention across them (Krell et al. 2021).

Attention gets `& same(segments)` in its masks, positions restart in each text, and the loss
does not count the first token of a text. So the logits of a text are those that it has alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NoReturn

from archdsl.diagnostics import Span, fail
from archdsl.frozen import Frozen
from archdsl.graph import masks
from archdsl.graph.masks import Mask
from archdsl.graph.nodes import (
    Apply,
    Graph,
    Input,
    Node,
    Scan,
    Stack,
    Term,
    refs,
    walk,
)
from archdsl.graph.ops import OPERATORS
from archdsl.graph.sites import site
from archdsl.graph.types import Size, Type
from archdsl.graph.unused import drop_unused
from archdsl.passes.decoding_analysis import unused_name

_ABSOLUTE = {"chunk", "prefix"}  # parts of a mask that count from the start of the window


class Packed(Frozen):
    """A graph for packed texts, without outputs, and the names of what it gets besides tokens.

    - `segments`: an input int[T], the number of the text that a token belongs to.
    - `places`: an input int[T], the position of a token in its text.
    - `counted`: a label bool[T], which tokens the loss counts: not the first one of a text.
    """

    graph: Graph
    tokens: Input
    segments: str
    places: str
    counted: str


def pack(graph: Graph) -> Packed:
    """The graph of a next-token loss, for windows of several texts.

    Raises `ArchError` (`model`) for a model whose loss is another one, or that mixes positions
    by something else than attention: a state, a convolution, or a position that is read.

    >>> from archdsl.analysis import analyse
    >>> packed = pack(analyse("gpt.arch").graph)
    >>> [each.name for each in packed.graph.inputs], packed.counted
    (['tokens', 'segments', 'places'], 'counted')
    """
    losses = {ref for term in graph.losses for ref in refs(term.loss)}
    graph = replace(graph, outputs=(), nodes=drop_unused(graph.nodes, losses))
    tokens = _tokens(graph)
    taken = {each.name for each in (*graph.inputs, *graph.labels)}
    names = [unused_name(name, taken) for name in ("segments", "places", "counted")]
    packing = _Packing(graph, tokens, names[0], names[1])
    packing.check()
    nodes = packing.nodes(graph.nodes)
    bound = packing.bound
    inputs = tuple(Input(name, Type("int", tokens.type.axes, bound)) for name in names[:2])
    counted = names[2]
    (term,), labels = graph.losses, graph.labels
    given = dict(term.loss.inputs)
    if "where" in given:
        counted = given["where"]  # a label, of which the data leave out the first tokens
    else:
        labels = (*labels, Input(counted, Type("bool", inputs[0].type.axes)))
    loss = replace(term.loss, inputs=(*(given | {"where": counted}).items(),))
    found = replace(
        graph,
        inputs=(*graph.inputs, *inputs),
        nodes=nodes,
        labels=labels,
        losses=(Term(term.weight, loss),),
    )
    return Packed(found, tokens, names[0], names[1], counted)


def _tokens(graph: Graph) -> Input:
    """The only input of a graph whose only loss is `next_token`."""
    term = graph.losses[0] if len(graph.losses) == 1 else None
    if term is None or term.loss.op != "next_token":
        _refuse(graph, "its loss is not `next_token` alone", term.loss.span if term else None)
    given, labels = dict(term.loss.inputs), {each.name for each in graph.labels}
    if term.loss.attr["ahead"] != 1:
        _refuse(graph, "its loss predicts another token than the next", term.loss.span)
    if labels != {given["where"] for _ in given if "where" in given}:
        _refuse(graph, "what its loss counts is not a label", term.loss.span)
    first, *others = graph.required
    if others or first.name != given["tokens"]:
        _refuse(graph, "it has more inputs than tokens", (others or [first])[0].span)
    return first


def _refuse(graph: Graph, why: str, span: Span | None = None) -> NoReturn:
    fail(
        "model",
        f"`{graph.name}` cannot train on packed texts: {why}",
        span,
        help="train without packing",
    )


class _Packing:
    """The rewritten nodes of a graph."""

    def __init__(self, graph: Graph, tokens: Input, segments: str, places: str):
        self.graph, self.segments, self.places = graph, segments, places
        (self.axis,) = tokens.type.vars
        self.size = Size.of(self.axis)
        self.bound = next(each.bound for each in graph.varying if each.name == self.axis)
        self.types = graph.types()

    def check(self) -> None:
        """Rejects a model that mixes positions by something else than masked attention."""
        for node, _ in walk(self.graph.nodes):
            sizes = [axis.size for axis in node.type.axes if self.axis in axis.size.vars]
            if self.axis in node.type.noncausal or any(size != self.size for size in sizes):
                self._reject(node, "uses other positions of the window")
            if isinstance(node, Scan) and self.axis in node.along.size.vars:
                name = node.path.rpartition(".")[2]
                _refuse(self.graph, f"the state `{name}` goes from text to text", node.span)
            if isinstance(node, Apply):
                self._check_operator(node)

    def _check_operator(self, node: Apply) -> None:
        op, here = OPERATORS[node.op], site(self.graph, node, self.types)
        if op.tail(here):
            self._reject(node, "uses the positions before its own")
        if op.same_up_to(here) is not None:
            self._reject(node, "depends on the length of the window")
        if node.attr.get("grid") is not None:
            self._reject(node, "has the positions of a grid")
        mask = node.attr.get("mask")
        atoms = masks.atoms(masks.parse(mask)) if isinstance(mask, str) else iter(())
        wrong = next((each for each in atoms if each.op in _ABSOLUTE), None)
        if wrong is not None:
            self._reject(node, f"has the mask `{wrong}`, which counts from the window's start")

    def _reject(self, node: Node, why: str) -> NoReturn:
        name = node.op if isinstance(node, Apply) else type(node).__name__.lower()
        _refuse(self.graph, f"`{name}` {why}", node.span)

    # -- rewriting --

    def nodes(self, nodes: tuple[Node, ...]) -> tuple[Node, ...]:
        return tuple(self._rewritten(nodes))

    def _rewritten(self, nodes: tuple[Node, ...]) -> Iterator[Node]:
        for node in nodes:
            match node:
                case Stack():
                    bodies = (replace(b, nodes=self.nodes(b.nodes)) for b in node.bodies)
                    yield replace(node, bodies=tuple(bodies))
                case Apply() if node.op == "positions" and self._is_along(node.type, 0):
                    same = {"times": 1, "plus": 0, "by": 1, "modulo": None}
                    given = (("x", self.places),)
                    yield replace(node, op="renumber", inputs=given, attrs=(*same.items(),))
                case Apply():
                    yield self._masked(self._placed(node))
                case _:
                    yield node  # the bodies of mixtures and scans have no positions

    def _placed(self, node: Apply) -> Apply:
        """An operator with the positions of each text, if it uses positions."""
        if "at" not in OPERATORS[node.op].positions or "at" in dict(node.inputs):
            return node
        return replace(node, inputs=(*node.inputs, ("at", self.places)))

    def _masked(self, node: Apply) -> Apply:
        """An operator whose mask hides other texts, if it has keys of the window."""
        keys = {"attention": ("over", -2), "attend": ("k", -3), "mix": ("x", -1)}
        param, index = keys.get(node.op, ("x", -1))
        given = dict(node.inputs)
        if not OPERATORS[node.op].masked or (node.op == "softmax" and not node.attr["mask"]):
            return node
        if not self._is_along(self.types[given.get(param, given.get("x", ""))], index):
            return node
        number = sum(name.startswith("row_") for name in given) + 1
        both = (f"row_{number}", f"column_{number}")
        mask = masks.both(masks.parse(node.attr["mask"]), Mask("same", both))
        inputs = (*node.inputs, *((name, self.segments) for name in both))
        attrs = {**node.attr, "mask": masks.text(mask)}
        return replace(node, inputs=inputs, attrs=(*attrs.items(),))

    def _is_along(self, type: Type, index: int) -> bool:
        """Whether an axis of a type is that of the tokens."""
        return len(type.axes) >= abs(index) and type.axes[index].size == self.size
