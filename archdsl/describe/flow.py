"""Which values of a graph an arrow can bring, and which must have names.

Read off the graph alone; `expand` writes text by it.
"""

from __future__ import annotations

from collections import Counter

from archdsl.graph.nodes import Apply, Node, Stack, refs

SIGNS = {"add": "+", "multiply": "*"}  # operators that stand between what flows into them


def chained_inputs(node: Apply) -> tuple[str, ...]:
    """The tensors that stand before or around an operator: the others are arguments."""
    (_, x), *others = node.inputs
    return (x, *(ref for _, ref in others)) if node.op in SIGNS else (x,)


def inline_values(nodes: tuple[Node, ...], kept: set[str], result: str | None) -> set[str]:
    """The values that are used once, where an arrow can bring them."""
    times: Counter[str | None] = Counter([result])
    named = set(kept)
    for node in nodes:
        match node:
            case Apply():
                times.update(chained_inputs(node))
                named |= {ref for _, ref in node.inputs} - set(chained_inputs(node))
            case Stack():
                times[node.input] += 1
                named |= set(captured_values(node))
    return {ref for ref, count in times.items() if ref and count == 1} - named


def captured_values(stack: Stack) -> tuple[str, ...]:
    """The values around a stack that its body uses."""
    own = {stack.carry, *(node.id for node in stack.body)}
    used = [*(ref for node in stack.body for ref in refs(node)), stack.result]
    return tuple(dict.fromkeys(ref for ref in used if ref not in own))


def is_chain(stack: Stack) -> bool:
    """Whether a body is one chain, from what it is given to what it returns."""
    own, before = {stack.carry, *(node.id for node in stack.body)}, stack.carry
    for node in stack.body:
        x, *others = refs(node) if isinstance(node, Stack) else [ref for _, ref in node.inputs]
        inside = captured_values(node) if isinstance(node, Stack) else ()
        if x != before or own.intersection((*others, *inside)):
            return False
        before = node.id
    return bool(stack.body) and before == stack.result
