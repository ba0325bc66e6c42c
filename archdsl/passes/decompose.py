"""Splits composite operators, so that each remaining operator is one unit of work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from archdsl.graph.masks import is_input
from archdsl.graph.nodes import Apply, Graph, Mixture, Node, Stack
from archdsl.passes.rewrite import Builder, join_path


def decompose(graph: Graph) -> Graph:
    """Replaces `attention` and `mlp` by their parts. Weights keep their paths.

    >>> from archdsl.graph.parser import parse
    >>> sizes = 'heads = 2, mask = "causal", kv_heads = 1, head_size = 2, scale = 0.5'
    >>> graph = parse(f'''graph G init normal(std = 0.02)
    ... axis T <= 8
    ... input x: float[T, 4]
    ... %1 = attention(x; {sizes}, bias = false, out_bias = false) @ look: float[T, 4]
    ... %2 = mlp(%1; sizes = (8, 4), act = "gelu", bias = true) @ mlp: float[T, 4]
    ... output y = %2
    ... ''')
    >>> for node in decompose(graph).nodes:
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
    linear mlp.0 float[T, 8]
    gelu mlp.gelu_0 float[T, 8]
    linear mlp.1 float[T, 4]
    """
    builder = Builder(graph)
    return replace(graph, nodes=_decompose_nodes(builder, graph.nodes))


def _decompose_nodes(builder: Builder, nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    return tuple(part for node in nodes for part in _parts(builder, node))


def _parts(builder: Builder, node: Node) -> Iterator[Node]:
    match node:
        case Stack():
            bodies = (replace(b, nodes=_decompose_nodes(builder, b.nodes)) for b in node.bodies)
            yield replace(node, bodies=tuple(bodies))
        case Mixture():
            yield replace(node, body=_decompose_nodes(builder, node.body))
        case Apply() if node.op in COMPOSITE:
            *parts, last = (
                replace(part, calls=node.calls) for part in COMPOSITE[node.op](builder, node)
            )
            yield from parts
            # The last part takes the id of the composite.
            yield replace(last, id=node.id, type=node.type, names=(*node.names, node.path))
        case _:
            yield node  # the body of a scan has no composite operators: they have weights


def _attention(builder: Builder, node: Apply) -> Iterator[Apply]:
    """Projections, heads, attention without projections, and the output projection."""
    given, attr = dict(node.inputs), node.attr
    x, memory = given["x"], given.get("over", given["x"])
    size: Any = attr["head_size"]
    before = "".join(f"W{i} " for i in range(len(node.type.axes) - 2))  # of several sequences
    heads: dict[str, str] = {}

    def apply(name: str, part: str, inputs: dict[str, str], **settings: Any) -> Apply:
        return builder.apply(name, join_path(node.path, part), inputs, node.span, **settings)

    for part, source, number in (
        ("q", x, attr["heads"]),
        ("k", memory, attr["kv_heads"]),
        ("v", memory, attr["kv_heads"]),
    ):
        features = int(str(number)) * size
        projected = apply("linear", part, {"x": source}, dim=features, bias=attr["bias"])
        yield projected
        pattern = f"{before}T (heads size) -> {before}T heads size"
        sizes = (("heads", number),)
        split = apply(
            "reshape", f"{part}_heads", {"x": projected.id}, pattern=pattern, sizes=sizes
        )
        yield split
        heads[part] = split.id
    heads |= {name: ref for name, ref in node.inputs if is_input(name)}
    core = apply("attend", "attend", heads, mask=attr["mask"], scale=attr["scale"])
    yield core
    merged = apply(
        "reshape",
        "merged",
        {"x": core.id},
        pattern=f"{before}T heads size -> {before}T (heads size)",
    )
    yield merged
    width = node.type.axes[-1].size.value
    yield apply("linear", "out", {"x": merged.id}, dim=width, bias=attr["out_bias"])


def _mlp(builder: Builder, node: Apply) -> Iterator[Apply]:
    """Linear layers, with an activation after each but the last."""
    (_, x), attr = node.inputs[0], node.attr
    sizes: Any = attr["sizes"]
    act = str(attr["act"])

    def apply(name: str, part: str, **settings: Any) -> Apply:
        return builder.apply(name, join_path(node.path, part), {"x": x}, node.span, **settings)

    for i, size in enumerate(sizes):
        product = apply("linear", str(i), dim=size, bias=attr["bias"])
        yield product
        x = product.id
        if i < len(sizes) - 1:
            activation = apply(act, f"{act}_{i}")
            yield activation
            x = activation.id


COMPOSITE: dict[str, Callable[[Builder, Apply], Iterator[Apply]]] = {
    "attention": _attention,
    "mlp": _mlp,
}
