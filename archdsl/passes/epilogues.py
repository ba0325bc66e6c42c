"""What a product goes on to do with its sums as they are made, where its kernel can.

Behind a product there stand an activation, a gate or a residual sum that nothing else asks for
the terms of. A kernel that has the sums in its registers does that at once; by itself it would
read and write all of them again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass

from archdsl.graph.nodes import Apply, Graph, Node, Stack, refs, walk
from archdsl.graph.rules import ACTIVATIONS

# The operators whose last piece of work is a product, whose rows are those of the result.
PRODUCTS = frozenset({"linear", "mlp", "attention", "conv1d", "unembed"})


@dataclass(frozen=True)
class Epilogue:
    """act(the sums of `product`) * times + plus, each of them where it is there.

    `times` and `plus` are values of the product's type.
    """

    product: Apply
    act: str | None = None
    times: str | None = None
    plus: str | None = None

    def __str__(self) -> str:
        sums = f"{self.act}(y)" if self.act else "y"
        times = f" * {self.times}" if self.times else ""
        plus = f" + {self.plus}" if self.plus else ""
        return f"{sums}{times}{plus}"


@dataclass(frozen=True)
class Epilogues:
    """Those of a graph, by the id of the operator that is the last part of each; `within` are
    the products, and the operators between, which are no values any more."""

    last: Mapping[str, Epilogue]
    within: frozenset[str]


NONE = Epilogues({}, frozenset())


def epilogues(graph: Graph, once: Container[str] = ()) -> Epilogues:
    """The epilogues of a graph. What is computed `once`, apart from the rest, has its own.

    >>> from archdsl.graph.parser import parse
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
    >>> for ref, each in epilogues(graph).last.items():
    ...     print(f"{ref}: {each.product.path}, {each}")
    %4: gate, silu(y) * %3
    %6: down, y + x
    """
    users = Counter(_asked_for(graph))
    last: dict[str, Epilogue] = {}
    within: set[str] = set()
    for nodes in _bodies(graph.nodes):
        following = {
            ref: node for node in nodes if isinstance(node, Apply) for ref in refs(node)
        }
        for node in nodes:
            if not isinstance(node, Apply) or node.op not in PRODUCTS:
                continue
            found, end = Epilogue(node), node
            while users[end.id] == 1 and (after := following.get(end.id)):
                more = _with(found, after, end.id)
                taken = after.id in last or after.id in within
                if not more or taken or (after.id in once) != (node.id in once):
                    break
                within.add(end.id)
                found, end = more, after
            if end is not node:
                last[end.id] = found
    return Epilogues(last, frozenset(within))


def _with(found: Epilogue, node: Apply, ref: str) -> Epilogue | None:
    """An epilogue that does one operator more, of its result `ref`; None where it cannot."""
    product, act, times, plus = found.product, found.act, found.times, found.plus
    other = next((each for _, each in node.inputs if each != ref), None)
    if plus or (times and node.op != "add"):
        return None
    if node.op in ACTIVATIONS and not act:
        return Epilogue(product, node.op)
    if node.op == "multiply" and other:
        return Epilogue(product, act, other)
    if node.op == "add" and other:
        return Epilogue(product, act, times, other)
    return None


def _asked_for(graph: Graph) -> Iterator[str]:
    """Every value, as often as it is asked for."""
    for node, _ in walk(graph.nodes):
        match node:
            case Apply():
                yield from (ref for _, ref in node.inputs)
            case Stack():
                yield from (node.input, node.result)
    yield from (ref for _, ref in graph.outputs)
    if graph.loss:
        yield from refs(graph.loss)


def _bodies(nodes: tuple[Node, ...]) -> Iterator[tuple[Node, ...]]:
    """The nodes of a graph and those of each of its stacks, by themselves."""
    yield nodes
    for node in nodes:
        if isinstance(node, Stack):
            yield from _bodies(node.body)
