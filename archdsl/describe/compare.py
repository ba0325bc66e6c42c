"""Compares two graphs.

Ids of values, names of axes, paths of operators without weights, and spans are ignored. The
comparison covers operators and their order, settings, types, paths of weights, inputs, outputs,
the loss and the initialization.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest
from typing import TypeAlias

from archdsl.graph.nodes import Apply, Body, Graph, Input, Mixture, Node, Scan, Stack, walk
from archdsl.graph.ops import OPS
from archdsl.graph.printer import layer_numbers, literal
from archdsl.graph.sites import site
from archdsl.graph.types import Type

_Fact: TypeAlias = tuple[object, str]  # what is compared, and its text
_END: _Fact = (None, "nothing more")


def difference(left: Graph, right: Graph) -> tuple[str, str] | None:
    """The first difference of two graphs, as a text for each; None if they are equal."""
    for left_fact, right_fact in zip_longest(_facts(left), _facts(right), fillvalue=_END):
        if left_fact[0] != right_fact[0]:
            return left_fact[1], right_fact[1]
    return None


def _facts(graph: Graph) -> Iterator[_Fact]:
    """All facts to compare, in the order of execution, with values numbered in this order."""
    numbers: dict[str, float] = {
        each.name: i for i, each in enumerate((*graph.inputs, *graph.labels))
    }
    types = graph.types()
    rule, settings = graph.init
    yield graph.init, f"init {rule}" + "".join(f" {key} = {n}" for key, n in settings)
    for axis in graph.varying:
        least = f"{axis.least} <= " if axis.least != 1 else ""
        known = (axis.name, axis.least, axis.bound, axis.ragged)
        yield known, f"the axis {least}{axis.name} <= {axis.bound}"
    for kind, inputs in (("input", graph.inputs), ("label", graph.labels)):
        for each in inputs:
            yield _input(kind, each)

    def walked(nodes: tuple[Node, ...]) -> Iterator[_Fact]:
        for node in nodes:
            match node:
                case Apply():
                    yield applied(node)
                case Stack():
                    for kind, body in enumerate(node.bodies):
                        yield from layers(node, kind, body)
                case Mixture():
                    numbers[node.carry] = len(numbers)
                    inputs = numbers[node.input], numbers[node.gates]
                    counts = node.count, node.chosen
                    text = f"{node.path}: {node.chosen} of {node.count} experts"
                    yield (node.path, counts, inputs, _nameless(node.carry_type)), text
                    yield from walked(node.body)
                    end = numbers[node.result], _nameless(node.type)
                    yield end, f"the end of {node.path}: {node.type}"
                case Scan():
                    yield from scanned(node)
            numbers[node.id] = len(numbers)

    def scanned(node: Scan) -> Iterator[_Fact]:
        """A scan, without its path, which names no weight, and the order of its slices."""
        for each in node.takes:
            numbers[each.id] = numbers[each.of] + 0.5  # the slice of a value
        numbers[node.carry] = len(numbers)
        first = None if node.start is None else numbers[node.start]
        yield ("state", first, _nameless(node.carry_type)), f"state: {node.carry_type}"
        for inside in node.body:
            yield applied(inside)
            numbers[inside.id] = len(numbers)
        end = numbers[node.result], numbers[node.output], _nameless(node.type)
        yield end, f"the end of the state: {node.type}"

    def layers(node: Stack, kind: int, body: Body) -> Iterator[_Fact]:
        numbers[body.carry] = len(numbers)
        at = layer_numbers(node.layers(kind)) if node.kinds else ""
        x, type = numbers[node.input], _nameless(body.carry_type)
        times = f"{node.path} * {node.count}{' tied' if node.tied else ''}"
        about = f"{times}, layers {at}" if at else times
        yield (node.path, node.count, node.tied, at, x, type), about
        yield from walked(body.nodes)
        end = numbers[body.result], _nameless(types[body.result])
        yield end, f"the end of {node.path}: {types[body.result]}"

    def applied(node: Apply) -> _Fact:
        weights = OPS[node.op].weights(site(graph, node, types))
        inputs = [(param, numbers[ref]) for param, ref in node.inputs]
        path = node.path if weights else ""
        fact = node.op, inputs, node.attrs, path, weights, _nameless(node.type)
        settings = ", ".join(f"{k} = {literal(v)}" for k, v in node.attrs if v is not None)
        place = f" at {path}" if path else ""
        return fact, f"{node.op}({settings}){place}: {node.type}"

    yield from walked(graph.nodes)
    for name, ref in graph.outputs:
        yield (name, numbers[ref]), f"output {name}: {types[ref]}"
    for term in graph.losses:
        fact, text = applied(term.loss)
        yield (term.weight, fact), f"{term.weight:g} * {text}" if term.weight != 1 else text


def _input(kind: str, each: Input) -> _Fact:
    pad = "" if each.pad is None else f" pad {each.pad}"
    default = "" if each.default is None else f" = {literal(each.default)}"
    return (
        kind,
        each.name,
        _nameless(each.type),
        each.pad,
        each.default,
    ), f"{kind} {each.name}: {each.type}{pad}{default}"


def _nameless(type: Type) -> Type:
    return replace(type, axes=tuple(replace(axis, name=None) for axis in type.axes))


def operators(left: Graph, right: Graph) -> tuple[str, str]:
    """The operators that each of two graphs has more of; a stack's body counts once."""
    counts = [
        Counter(node.op for node, _ in walk(graph.nodes) if isinstance(node, Apply))
        for graph in (left, right)
    ]
    left_more, right_more = (_counted(a - b) for a, b in (counts, reversed(counts)))
    return left_more, right_more


def _counted(more: Counter[str]) -> str:
    return ", ".join(f"{count} {op}" for op, count in more.items())
