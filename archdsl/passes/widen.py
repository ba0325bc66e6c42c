"""Finds the values of a float16 program that are kept in float32: sums, and their terms.

The largest number of float16 is 65504. The sum of a residual connection exceeds it first, since
each layer adds to it, and only norms and other sums read it. A norm makes its values small
again, in float32 anyway. So a value is wide if each of its users is a norm, an operator that
computes number by number, an output, a loss, or a stack that passes on a wide value.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from archdsl.graph.nodes import Apply, Graph, Mixture, Scan, Stack, refs, walk
from archdsl.graph.rules import POINTWISE

DTYPE = "float16"

# Matmuls, which sum in float32.
_SUMS = frozenset({"linear", "unembed", "conv1d"})
# Operators that compute each number, or each position, in the dtype of their inputs.
ELEMENTWISE = frozenset(
    {
        *("weight", "dropout"),
        *("posenc", "prefixed", "concat", "slice", "last", "readout", "at"),
        *POINTWISE,
    }
)
_READERS = ELEMENTWISE | {"norm"}  # of any dtype, as the losses


def widen(graph: Graph) -> frozenset[str]:
    """The ids of the wide values; a stack is wide if its layers pass on a wide value.

    >>> from archdsl.graph.parser import parse
    >>> graph = parse('''graph G init normal(std = 0.02)
    ... input x: float[4]
    ... %1 = linear(x; dim = 4, bias = false) @ up: float[4]
    ... %2 = linear(%1; dim = 4, bias = false) @ down: float[4]
    ... %3 = add(x, other = %2) @ add: float[4]
    ... %4 = norm(%3; kind = "rms", eps = 1e-05, scale = true, bias = false) @ norm: float[4]
    ... %5 = linear(%4; dim = 4, bias = false) @ last: float[4]
    ... output y = %5
    ... ''')
    >>> sorted(widen(graph))
    ['%2', '%3', '%5']
    """
    stacks = [node for node, _ in walk(graph.nodes) if isinstance(node, Stack)]
    found = {
        node.id
        for node, _ in walk(graph.nodes)
        if node.type.dtype == "float"
        and (
            isinstance(node, Stack | Mixture)
            or (isinstance(node, Apply) and node.op in _SUMS | ELEMENTWISE)
        )
    }
    found |= {body.carry for stack in stacks for body in stack.bodies}
    uses = _uses(graph)
    scans = [node for node, _ in walk(graph.nodes) if isinstance(node, Scan)]
    inside = frozenset(each.id for scan in scans for each in scan.body)
    found -= inside
    while True:
        narrow = {ref for ref in found if any(user not in found for user in uses[ref] if user)}
        for stack in stacks:
            own = {stack.id, *(body.carry for body in stack.bodies)}
            parts = {*own, *stack.results}
            if narrow & parts or not parts <= found:
                narrow |= own & found
        if not narrow:
            return frozenset(found) | inside  # a scan computes in float32
        found -= narrow


def _uses(graph: Graph) -> dict[str, list[str]]:
    """The users of each value: "" if one reads any dtype, else a stack that must be wide."""
    found: dict[str, list[str]] = defaultdict(list)
    for ref, user in _pairs(graph):
        found[ref].append(user)
    return found


def _pairs(graph: Graph) -> Iterator[tuple[str, str]]:
    never = "no value"  # is never wide
    for node, _ in walk(graph.nodes):
        match node:
            case Apply():
                user = "" if node.op in _READERS else never
                yield from ((ref, user) for _, ref in node.inputs)
                # The kernel of a fused operator reads any dtype.
                yield from ((tail.other, "") for tail in node.tail if tail.other)
            case Stack():
                yield node.input, node.id
                yield from ((result, node.id) for result in node.results)
                yield from ((each.of, never) for each in (*node.takes, *node.gives))
            case Mixture():
                yield from ((ref, never) for ref in (node.input, node.gates))
                yield node.result, ""
            case Scan():
                yield from ((ref, "") for ref in refs(node))
    for term in graph.losses:
        yield from ((ref, "") for _, ref in term.loss.inputs)
