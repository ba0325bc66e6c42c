"""Takes attention apart into its products and its core, so that each can be treated alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Any

from archdsl.graph.nodes import Apply, Graph, Node, Stack, walk
from archdsl.graph.ops import OPS
from archdsl.graph.signature import Kind, Site
from archdsl.graph.types import Type


def open_attention(graph: Graph) -> Graph:
    """The same graph without `attention`: products, `attend`, and a product, whose weights
    have the places that they had.

    >>> from archdsl.graph.parser import parse
    >>> sizes = "heads = 2, causal = true, kv_heads = 1, head_size = 2, scale = 0.5"
    >>> graph = parse(f'''graph G init normal(std = 0.02)
    ... axis T <= 8
    ... input x: float[T, 4]
    ... %1 = attention(x; {sizes}, bias = false, out_bias = false) @ look: float[T, 4]
    ... output y = %1
    ... ''')
    >>> for node in open_attention(graph).nodes:
    ...     print(node.op, node.path, node.type)
    linear look.q float[T, 4]
    reshape look.q_heads float[T, heads = 2, size = 2]
    linear look.k float[T, 2]
    reshape look.k_heads float[T, heads = 1, size = 2]
    linear look.v float[T, 2]
    reshape look.v_heads float[T, heads = 1, size = 2]
    attend look.attend float[T, heads = 2, size = 2]
    reshape look.merged float[T, 4]
    linear look.out float[T, 4]
    """
    return replace(graph, nodes=_Opening(graph).nodes(graph.nodes))


class _Opening:
    """Makes nodes with ids of their own."""

    def __init__(self, graph: Graph):
        self.varying = {axis.name: axis for axis in graph.varying}
        self.types = graph.types()
        used = [int(n.id[1:]) for n, _ in walk(graph.nodes) if n.id[1:].isdigit()]
        used += [int(n.carry[1:]) for n, _ in walk(graph.nodes) if isinstance(n, Stack)]
        used += [int(graph.loss.id[1:])] if graph.loss else []
        self.ids = count(max(used, default=0) + 1)

    def nodes(self, nodes: tuple[Node, ...]) -> tuple[Node, ...]:
        return tuple(made for node in nodes for made in self.node(node))

    def node(self, node: Node) -> Iterator[Node]:
        match node:
            case Stack():
                yield replace(node, body=self.nodes(node.body))
            case Apply(op="attention"):
                yield from self.opened(node)
            case Apply():
                yield node

    def opened(self, node: Apply) -> Iterator[Apply]:
        given, attr, path = dict(node.inputs), node.attr, node.path
        x, memory = given["x"], given.get("over", given["x"])
        size: Any = attr["head_size"]
        heads: dict[str, str] = {}
        for part, source, number in (
            ("q", x, attr["heads"]),
            ("k", memory, attr["kv_heads"]),
            ("v", memory, attr["kv_heads"]),
        ):
            features = int(str(number)) * size
            made = self.made(
                node, "linear", f"{path}.{part}", {"x": source}, dim=features, bias=attr["bias"]
            )
            yield made
            pattern, sizes = "T (heads size) -> T heads size", (("heads", number),)
            parted = self.made(
                node,
                "reshape",
                f"{path}.{part}_heads",
                {"x": made.id},
                pattern=pattern,
                sizes=sizes,
            )
            yield parted
            heads[part] = parted.id
        core = self.made(
            node, "attend", f"{path}.attend", heads, causal=attr["causal"], scale=attr["scale"]
        )
        yield core
        pattern = "T heads size -> T (heads size)"
        merged = self.made(node, "reshape", f"{path}.merged", {"x": core.id}, pattern=pattern)
        yield merged
        width = node.type.axes[-1].size.value
        last = self.made(
            node, "linear", f"{path}.out", {"x": merged.id}, dim=width, bias=attr["out_bias"]
        )
        # Whoever used the attention uses what comes out of it.
        yield replace(last, id=node.id, type=node.type)

    def made(
        self, node: Apply, name: str, path: str, inputs: dict[str, str], **attr: Any
    ) -> Apply:
        """One operator, its other settings as they are when left out, and its type."""
        op = OPS[name]
        tensors = {param: self.types[ref] for param, ref in inputs.items()}
        settings = {p.name: p.default for p in op.params if p.kind is not Kind.TENSOR} | attr
        here = Site(tensors, settings, self.varying, {})
        here = Site(tensors, settings | dict(op.settle(here)), self.varying, {})
        type: Type = op.infer(here)
        id = f"%{next(self.ids)}"
        self.types[id] = type
        return Apply(
            id, name, tuple(inputs.items()), tuple(here.attr.items()), path, type, node.span
        )
