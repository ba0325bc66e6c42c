"""Fuses activations, gates and residual adds into the matmul before them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import replace

from archdsl.graph.nodes import Apply, Body, Graph, Mixture, Node, Scan, Stack, Tail, refs
from archdsl.graph.products import MATMUL_OPS
from archdsl.graph.rules import ACTIVATIONS


def fuse(graph: Graph) -> Graph:
    """Fuses into each matmul at most an activation, then a `multiply`, then an `add`.

    A value with other users is not fused. The kernel applies the tail in registers; separate
    operators would write the result and read it again.

    >>> from archdsl.graph.parser import parse
    >>> from archdsl.graph.printer import show
    >>> graph = parse('''graph G init normal(std = 0.02)
    ... input x: float[4]
    ... %1 = linear(x; dim = 4, bias = false) @ gate: float[4]
    ... %2 = silu(%1) @ silu: float[4]
    ... %3 = linear(x; dim = 4, bias = false) @ up: float[4]
    ... %4 = multiply(%2, other = %3) @ multiply: float[4]
    ... %5 = linear(%4; dim = 4, bias = false) @ down: float[4]
    ... %6 = add(x, other = %5) @ add: float[4]
    ... output y = %6
    ... ''')
    >>> print(show(fuse(graph)), end="")
    graph G init normal(std = 0.02)
    input x: float[4]
    %3 = linear(x; dim = 4, bias = false) @ up: float[4]
    %4 = linear(x; dim = 4, bias = false) then silu, multiply(%3) @ gate: float[4]
    %6 = linear(%4; dim = 4, bias = false) then add(x) @ down: float[4]
    output y = %6
    """
    uses = Counter(_uses(graph))
    bools = {ref for ref, type in graph.types().items() if type.dtype == "bool"}
    return replace(graph, nodes=_fuse_nodes(graph.nodes, uses, bools))


def _fuse_nodes(
    nodes: tuple[Node, ...], uses: Counter[str], bools: Collection[str]
) -> tuple[Node, ...]:
    """Fuses the nodes of one body; a matmul moves to the place of its last fused operator."""
    users = {ref: node for node in nodes if isinstance(node, Apply) for ref in refs(node)}
    ends: dict[str, Apply] = {}  # matmuls, by the last operator fused into them
    gone: set[str] = set()
    for node in nodes:
        if not isinstance(node, Apply) or node.op not in MATMUL_OPS:
            continue
        found, end = node, node
        while uses[end.id] == 1 and (after := users.get(end.id)):
            more = _try_fuse(found, after, end.id)
            if more is None or more.tail[-1].other in bools:  # a kernel multiplies by floats
                break
            if after.id in ends or after.id in gone:
                break
            gone.add(end.id)
            found, end = more, after
        if end is not node:
            ends[end.id] = replace(found, id=end.id, type=end.type)
    remaining = (ends.get(node.id, node) for node in nodes if node.id not in gone)
    return tuple(
        replace(node, bodies=tuple(_fuse_body(body, uses, bools) for body in node.bodies))
        if isinstance(node, Stack)
        else node
        for node in remaining
    )


def _fuse_body(body: Body, uses: Counter[str], bools: Collection[str]) -> Body:
    return replace(body, nodes=_fuse_nodes(body.nodes, uses, bools))


def _try_fuse(product: Apply, node: Apply, ref: str) -> Apply | None:
    """Fuses `node`, which uses `ref`, into a matmul; None if that is not possible."""
    done = [tail.op for tail in product.tail]
    other = next((each for _, each in node.inputs if each != ref), None)
    if "add" in done or node.attr.get("along") is not None:
        return None  # a kernel adds and multiplies tensors of the shape of its result
    if node.op in ACTIVATIONS and not done:
        tail = Tail(node.op)
    elif other and (node.op == "add" or (node.op == "multiply" and "multiply" not in done)):
        tail = Tail(node.op, other)
    else:
        return None
    return replace(product, tail=(*product.tail, tail))


def _uses(graph: Graph) -> Iterator[str]:
    """The id of each use of a value."""

    def of(nodes: tuple[Node, ...]) -> Iterator[str]:
        for node in nodes:
            match node:
                case Apply():
                    yield from refs(node)
                case Stack():
                    yield from (node.input, *node.results)
                    yield from (each.of for each in (*node.takes, *node.gives))
                    for body in node.bodies:
                        yield from of(body.nodes)
                case Mixture():
                    yield from (node.input, node.gates, node.result)
                    yield from of(node.body)
                case Scan():
                    yield from refs(node)

    yield from of(graph.nodes)
    yield from (ref for _, ref in graph.outputs)
    for term in graph.losses:
        yield from refs(term.loss)
