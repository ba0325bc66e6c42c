"""Computes an operator that is applied twice to the same values only once."""

from __future__ import annotations

from dataclasses import replace

from archdsl.graph.nodes import Apply, Graph, Mixture, Node, Scan, Slice, Stack
from archdsl.graph.ops import OPERATORS
from archdsl.graph.renames import with_inputs
from archdsl.graph.sites import trained


def eliminate_common_subexpressions(graph: Graph) -> Graph:
    """Removes operators that repeat an earlier one; those with weights or randomness stay.

    >>> from archdsl.graph.parser import parse
    >>> from archdsl.graph.printer import show
    >>> graph = parse('''graph G init normal(std = 0.02)
    ... input x: float[4]
    ... %1 = relu(x) @ relu: float[4]
    ... %2 = relu(x) @ relu_2: float[4]
    ... %3 = add(%1, other = %2) @ add: float[4]
    ... output y = %3
    ... ''')
    >>> print(show(eliminate_common_subexpressions(graph)), end="")
    graph G init normal(std = 0.02)
    input x: float[4]
    %1 = relu(x) @ relu: float[4]
    %3 = add(%1, other = %1) @ add: float[4]
    output y = %3
    """
    renamed: dict[str, str] = {}
    nodes = _eliminate(graph.nodes, {}, renamed, trained(graph))
    outputs = tuple((name, renamed.get(ref, ref)) for name, ref in graph.outputs)
    losses = tuple(replace(term, loss=with_inputs(term.loss, renamed)) for term in graph.losses)
    return replace(graph, nodes=nodes, outputs=outputs, losses=losses)


def _eliminate(
    nodes: tuple[Node, ...],
    known: dict[object, str],
    renamed: dict[str, str],
    with_weights: set[str],
) -> tuple[Node, ...]:
    remaining: list[Node] = []
    for node in nodes:
        match node:
            case Apply():
                node = with_inputs(node, renamed)
                key = (node.op, node.inputs, node.attrs)
                if node.id not in with_weights and not OPERATORS[node.op].random:
                    if key in known:
                        renamed[node.id] = known[key]
                        continue
                    known[key] = node.id
            case Stack():
                # A body sees values from outside, but not the other way round.
                bodies = tuple(
                    replace(
                        body,
                        nodes=_eliminate(body.nodes, dict(known), renamed, with_weights),
                        result=renamed.get(body.result, body.result),
                    )
                    for body in node.bodies
                )
                node = replace(node, input=renamed.get(node.input, node.input), bodies=bodies)
            case Mixture():
                body = _eliminate(node.body, {}, renamed, with_weights)
                x, gates, result = (
                    renamed.get(ref, ref) for ref in (node.input, node.gates, node.result)
                )
                node = replace(node, input=x, gates=gates, body=body, result=result)
            case Scan():
                node = _scan(node, known, renamed, with_weights)
        remaining.append(node)
    return tuple(remaining)


def _scan(
    node: Scan, known: dict[object, str], renamed: dict[str, str], with_weights: set[str]
) -> Scan:
    def new(ref: str) -> str:
        return renamed.get(ref, ref)

    takes: list[Slice] = []
    sliced: dict[str, str] = {}
    for each in node.takes:
        of = new(each.of)
        if of in sliced:
            renamed[each.id] = sliced[of]
            continue
        sliced[of] = each.id
        takes.append(replace(each, of=of))
    body = _eliminate(node.body, dict(known), renamed, with_weights)
    return replace(
        node,
        takes=tuple(takes),
        body=tuple(each for each in body if isinstance(each, Apply)),
        result=new(node.result),
        output=new(node.output),
        start=node.start and new(node.start),
        valid=node.valid and new(node.valid),
    )
