"""Decides which values of a graph are written inline in a chain, and which need names.

`expand` uses this to write a spec.
"""

from __future__ import annotations

from collections import Counter

from archdsl.graph.elementwise import COMPARISONS
from archdsl.graph.nodes import Apply, Body, Mixture, Node, Scan, Stack, outer_refs, refs

# Operators that are written as infix signs.
SIGNS = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}


def infix(node: Node) -> str | None:
    """The sign of an operator of two tensors that is written between them, if it has one."""
    if not isinstance(node, Apply):
        return None
    if node.op == "compare" and node.attr["to"] is None:
        return COMPARISONS[str(node.attr["kind"])]
    return SIGNS.get(node.op)


def chained_inputs(node: Apply) -> tuple[str, ...]:
    """The tensors written before or around an operator; the others are arguments."""
    given = tuple(ref for _, ref in node.inputs)
    return given if infix(node) else given[:1]


def inline_values(nodes: tuple[Node, ...], outputs: set[str], result: str | None) -> set[str]:
    """The values that are used once, at a place where a chain can pass them."""
    times: Counter[str | None] = Counter([result])
    named = set(outputs)
    for node in nodes:
        match node:
            case Apply():
                chained = chained_inputs(node)
                times.update(chained)
                named |= {ref for _, ref in node.inputs[len(chained) :]}
            case Stack():
                times[node.input] += 1
                named |= set(captured_values(node))
            case Mixture():
                times[node.input] += 1
                named.add(node.gates)
            case Scan():
                named |= set(refs(node))
    return {ref for ref, count in times.items() if ref and count == 1} - named


def captured_values(stack: Stack) -> tuple[str, ...]:
    """The outer values that the layers of a stack use."""
    return tuple(dict.fromkeys(ref for body in stack.bodies for ref in outer_refs(body)))


def is_chain(body: Body) -> bool:
    """Whether the body of a stack is one chain from its input to its result."""
    own, before = {body.carry, *(node.id for node in body.nodes)}, body.carry
    for node in body.nodes:
        if not refs(node) or isinstance(node, Scan):
            return False  # such as a weight, which is not a step of a chain
        x, *others = [ref for _, ref in node.inputs] if isinstance(node, Apply) else refs(node)
        inside = captured_values(node) if isinstance(node, Stack) else ()
        if x != before or own.intersection((*others, *inside)):
            return False
        before = node.id
    return bool(body.nodes) and before == body.result
