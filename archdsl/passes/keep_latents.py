"""Computes attention with the vectors that keys and values are linear in (graph/latents.py)."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import Any

from archdsl.graph.latents import Expansion, Latent, latents
from archdsl.graph.nodes import Apply, Graph, Node, Stack
from archdsl.passes.rewrite import Builder, join_path


def keep_latents(graph: Graph) -> Graph:
    """Replaces keys and values by smaller vectors, which are both for all heads.

    >>> from archdsl.graph.parser import parse
    >>> graph = parse('''graph G init normal(std = 0.02)
    ... axis T <= 8
    ... input z: float[T, 2]
    ... input q: float[T, 4, 3]
    ... %1 = linear(z; dim = 12, bias = false) @ k: float[T, 12]
    ... %2 = reshape(%1; pattern = "T (H h) -> T H h", sizes = (H = 4)) @ r: float[T, H = 4, h = 3]
    ... %3 = attend(q, k = %2, v = %2; mask = "causal", scale = 1.0, softcap = none) @ a: float[T, 4, 3]
    ... output y = %3
    ... ''')
    >>> for node in keep_latents(graph).nodes[2:]:
    ...     print(node.op, node.path, node.type)
    weight k.weight float[12, 2]
    reshape a.k_weight float[H = 4, h = 3, r = 2]
    contract a.q_latent float[T, H = 4, r = 2]
    reshape a.latent float[T, H = 1, h = 2]
    attend a float[T, H = 4, h = 2]
    contract a.v_latent float[T, 4, 3]
    """  # noqa: E501
    found = latents(graph)
    if not found:
        return graph
    builder = Builder(graph)
    return replace(graph, nodes=tuple(_nodes(builder, graph.nodes, found)))


def _nodes(
    builder: Builder, nodes: tuple[Node, ...], found: dict[str, Latent]
) -> Iterator[Node]:
    weights: dict[str, Apply] = {}  # of the body, by their paths
    for node in nodes:
        if isinstance(node, Stack):
            bodies = (
                replace(b, nodes=tuple(_nodes(builder, b.nodes, found))) for b in node.bodies
            )
            yield replace(node, bodies=tuple(bodies))
        elif isinstance(node, Apply) and node.id in found:
            yield from _Attend(builder, node, found[node.id], weights).nodes()
        else:
            yield node


class _Attend:
    """Builds the operators of one `attend`."""

    def __init__(
        self, builder: Builder, node: Apply, latent: Latent, weights: dict[str, Apply]
    ):
        self.builder, self.node, self.latent, self.weights = builder, node, latent, weights

    def nodes(self) -> Iterator[Apply]:
        node, latent = self.node, self.latent
        given = dict(node.inputs)
        k_weight = yield from self.weight(latent.keys, "k_weight")
        q = plain = given["q"]
        kept = latent.z
        if latent.shared is not None:
            first, second = latent.keys.size, latent.features
            at = (latent.features, 0) if latent.behind else (0, latent.keys.size)
            part = self.apply(
                "slice", "q_plain", {"x": q}, axis=2, start=at[0], stop=at[0] + first
            )
            rest = self.apply(
                "slice", "q_shared", {"x": q}, axis=2, start=at[1], stop=at[1] + second
            )
            yield from (part, rest)
            plain = part.id
        small = self.apply(
            "contract",
            "q_latent",
            {"x": plain, "other": k_weight},
            pattern="T H h, H h r -> T H r",
        )
        yield small
        q = small.id
        if latent.shared is not None:
            joined = self.apply("concat", "q_joined", {"x": q, "other": rest.id})
            both = self.apply("concat", "kept", {"x": latent.z, "other": latent.shared})
            yield from (joined, both)
            q, kept = joined.id, both.id
        one = (("H", 1),)
        k = self.apply("reshape", "latent", {"x": kept}, pattern="T (H h) -> T H h", sizes=one)
        yield k
        inputs = given | {"q": q, "k": k.id, "v": k.id}
        attend = self.builder.apply("attend", node.path, inputs, node.span, **node.attr)
        yield attend
        seen = attend.id
        if latent.shared is not None:
            part = self.apply("slice", "seen", {"x": seen}, axis=2, start=0, stop=latent.rank)
            yield part
            seen = part.id
        v_weight = k_weight
        if latent.values != latent.keys:
            v_weight = yield from self.weight(latent.values, "v_weight")
        pattern = "T H r, H h r -> T H h"
        last = self.apply(
            "contract", "v_latent", {"x": seen, "other": v_weight}, pattern=pattern
        )
        # The last part takes the id of the whole.
        yield replace(last, id=node.id, type=node.type)

    def weight(self, part: Expansion, name: str) -> Generator[Apply, None, str]:
        """The rows of a linear layer's matrix for some features of each head: [H, n, rank]."""
        path = join_path(part.linear.path, "weight")
        if path not in self.weights:
            sizes = (part.linear.attr["dim"], self.latent.rank)
            matrix = self.builder.apply("weight", path, {}, part.linear.span, sizes=sizes)
            self.weights[path] = matrix
            yield matrix
        heads = (("H", part.heads),)
        found = self.apply(
            "reshape",
            name,
            {"x": self.weights[path].id},
            pattern="(H h) r -> H h r",
            sizes=heads,
        )
        yield found
        if not part.whole:
            sliced = f"{name}_part"
            found = self.apply(
                "slice", sliced, {"x": found.id}, axis=1, start=part.start, stop=part.stop
            )
            yield found
        return found.id

    def apply(self, name: str, part: str, inputs: dict[str, str], **settings: Any) -> Apply:
        path = join_path(self.node.path, part)
        return self.builder.apply(name, path, inputs, self.node.span, **settings)
