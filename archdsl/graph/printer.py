"""Prints the typed graph, one value per line; graph/parser.py reads it back.

    graph GPT init normal(std = 0.02)
    axis T <= 1024
    input tokens: int[T] < 50257
    %1 = embed(tokens; vocab = 50257, dim = 768, tied = none) @ embed: float[T, D = 768]
    %4 = stack(%1) * 12 @ h: float[T, D = 768]
      take %2: float[T, D = 768]
      %3 = gelu(%2) @ gelu: float[T, D = 768]
      yield %3
    output logits = %4

A stack with more than one kind of layer has a body for each, after a line with their numbers,
`layers 0-4, 6-10`.

Tensors are before the semicolon and settings after it; `@` is the path of the weights. In a
lowered graph `then` lists fused operators, and `by` the kernels that are launched:

    %7 = linear(%5; dim = 768, bias = true) then gelu, add(%2) by matmul @ up: float[T, 768]

In a mixture, `take` is one vector of the first tensor, and the second one has the gates, of
which at most so many are not 0 for one vector:

    %9 = mixture(%4, gates = %8; chosen = 2) * 8 @ experts: float[T, D = 768]
      take %5: float[D = 768]
      %6 = gelu(%5) @ gelu: float[D = 768]
      yield %6

After `take`, `each` is one layer's slice of a value of all layers. After `yield`, `give` stacks
a value of the body over all layers.

A scan begins with its carry, and with the start of it if that is not 0. `each` is the slice of
a value at one position, and `yield` the value that the next position receives. `read` is the
value at each position, if it is another one:

    %9 = scan @ s: float[T, D = 768]
      carry %4: float[D = 768]
      each %5 = %2: float[D = 768]
      %6 = add(%4, other = %5) @ s.add: float[D = 768]
      yield %6
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby

from archdsl.graph.nodes import Apply, Attribute, Body, Graph, Input, Mixture, Node, Scan, Stack
from archdsl.graph.types import Varying, format_integer


def show(graph: Graph) -> str:
    """Prints a graph: all its fields except spans."""
    return "\n".join(_lines(graph)) + "\n"


def _lines(graph: Graph) -> Iterator[str]:
    rule, numbers = graph.init
    settings = f"({_settings(numbers)})" if numbers else ""
    yield f"graph {graph.name} init {rule}{settings}"
    yield from map(_axis, graph.varying)
    yield from (f"input {_input(each)}" for each in graph.inputs)
    yield from (f"label {_input(each)}" for each in graph.labels)
    for table in graph.tables:
        sizes = ", ".join(map(format_integer, (table.vocab, table.dim)))
        yield f"table {table.path}: [{sizes}]"
    yield from _nodes(graph.nodes, "")
    yield from (f"output {name} = {ref}" for name, ref in graph.outputs)
    for term in graph.losses:
        weight = "" if term.weight == 1 else f"{literal(term.weight)} * "
        yield f"loss {weight}{_apply(term.loss)}"


def _axis(axis: Varying) -> str:
    ragged = f" ragged {axis.ragged}" if axis.ragged is not None else ""
    least = f"{format_integer(axis.least)} <= " if axis.least != 1 else ""
    return f"axis {least}{axis.name} <= {format_integer(axis.bound)}{ragged}"


def _input(each: Input) -> str:
    pad = f" pad {format_integer(each.pad)}" if each.pad is not None else ""
    default = f" = {literal(each.default)}" if each.default is not None else ""
    return f"{each.name}: {each.type}{pad}{default}"


def _nodes(nodes: tuple[Node, ...], indent: str) -> Iterator[str]:
    for node in nodes:
        match node:
            case Apply():
                yield indent + _apply(node)
            case Stack():
                times = f"stack({node.input}) * {format_integer(node.count)}"
                times += " tied" if node.tied else ""
                yield f"{indent}{node.id} = {times}{_path_and_type(node)}"
                for kind, body in enumerate(node.bodies):
                    if node.kinds:
                        yield f"{indent}  layers {layer_numbers(node.layers(kind))}"
                    yield from _body(body, indent + "  ")

            case Mixture():
                given = f"{node.input}, gates = {node.gates}; chosen = {node.chosen}"
                times = f"mixture({given}) * {format_integer(node.count)}"
                yield f"{indent}{node.id} = {times}{_path_and_type(node)}"
                yield f"{indent}  take {node.carry}: {node.carry_type}"
                yield from _nodes(node.body, indent + "  ")
                yield f"{indent}  yield {node.result}"
            case Scan():
                yield from (indent + line for line in _scan(node))


def _scan(node: Scan) -> Iterator[str]:
    valid = f"({node.valid})" if node.valid is not None else ""
    yield f"{node.id} = scan{valid}{_kernels(node)}{_path_and_type(node)}"
    start = f" = {node.start}" if node.start is not None else ""
    yield f"  carry {node.carry}{start}: {node.carry_type}"
    for each in node.takes:
        yield f"  each {each.id} = {each.of}: {each.type}"
    yield from _nodes(node.body, "  ")
    yield f"  yield {node.result}"
    if node.output != node.result:
        yield f"  read {node.output}"
    if node.final is not None:
        yield f"  last {node.final}"


def _body(body: Body, indent: str) -> Iterator[str]:
    yield f"{indent}take {body.carry}: {body.carry_type}"
    for each in body.takes:
        yield f"{indent}each {each.id} = {each.of}: {each.type}"
    yield from _nodes(body.nodes, indent)
    yield f"{indent}yield {body.result}"
    for each in body.gives:
        yield f"{indent}give {each.id} = {each.of}: {each.type}"


def layer_numbers(layers: Sequence[int]) -> str:
    """Numbers of layers as ranges.

    >>> layer_numbers([0, 1, 2, 5, 7, 8])
    '0-2, 5, 7-8'
    """
    known = set(layers)
    starts = [n for n in layers if n - 1 not in known]
    ends = [n for n in layers if n + 1 not in known]
    ranges = zip(starts, ends, strict=True)
    return ", ".join(f"{a}-{b}" if a < b else str(a) for a, b in ranges)


def _apply(node: Apply) -> str:
    # The first tensor is printed without its name.
    first, others = node.inputs[:1], node.inputs[1:]
    named = (f"{param} = {ref}" for param, ref in others)
    tensors = ", ".join([*(ref for _, ref in first), *named])
    settings = f"; {_settings(node.attrs)}" if node.attrs else ""
    lowered = _tail(node) + _kernels(node)
    return f"{node.id} = {node.op}({tensors}{settings}){lowered}{_path_and_type(node)}"


def _tail(node: Apply) -> str:
    fused = (f"{each.op}({each.other})" if each.other else each.op for each in node.tail)
    return f" then {', '.join(fused)}" if node.tail else ""


def _kernels(node: Apply | Scan) -> str:
    runs = ((name, len(list(same))) for name, same in groupby(node.kernels))
    named = (f"{name} * {count}" if count > 1 else name for name, count in runs)
    return f" by {', '.join(named)}" if node.kernels else ""


def _path_and_type(node: Node) -> str:
    return (f" @ {node.path}" if node.path else "") + f": {node.type}"


def _settings(values: tuple[tuple[str, Attribute], ...]) -> str:
    return ", ".join(f"{name} = {literal(value)}" for name, value in values)


def literal(value: Attribute | tuple[str, int]) -> str:
    """Prints the value of a setting.

    >>> [literal(each) for each in (None, True, 0.5, "layer", (3072, 768), (("h", 64),))]
    ['none', 'true', '0.5', '"layer"', '(3072, 768)', '(h = 64)']
    """
    match value:
        case None | bool():
            return str(value).lower()
        case int():
            return format_integer(value)
        case float():
            return repr(value)
        case str():
            return json.dumps(value, ensure_ascii=False)
        case (str() as name, int() as size):
            return f"{name} = {format_integer(size)}"
        case tuple():
            return f"({', '.join(literal(each) for each in value)})"
