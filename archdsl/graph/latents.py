"""Keys and values that are linear in a vector of each position, which is smaller than they are.

With k = W_k z and v = W_v z for each head, q · k = (W_k^T q) · z, and the sum of values is W_v
times the sum of z. So decoding can keep z alone, for all heads, and compute no keys and values
of past positions (DeepSeek-AI 2024, "DeepSeek-V2", section 2.1.2). Features that all heads
share stay beside z.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from archdsl.frozen import Frozen
from archdsl.graph import masks
from archdsl.graph.attention import LEAST_SAVING
from archdsl.graph.nodes import Apply, Graph, Mixture, Node, Stack
from archdsl.graph.types import Type

_HEADS = re.compile(r"(\w+) \((\w+) (\w+)\) -> \1 \2 \3")


class Expansion(Frozen):
    """Features `start` to `stop` of each head of a linear layer without bias."""

    linear: Apply
    heads: int
    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start

    @property
    def whole(self) -> bool:
        """Whether these are all features of a head."""
        return self.linear.attr["dim"] == self.heads * self.size


class Latent(Frozen):
    """The vectors `z` [T, rank] that the keys and values of an `attend` are linear in.

    The keys are those of `keys`, before or (`behind`) after the `features` of `shared`, a value
    [T, features] of all heads; None if there is none.
    """

    z: str
    rank: int
    keys: Expansion
    values: Expansion
    shared: str | None = None
    features: int = 0
    behind: bool = False

    @property
    def width(self) -> int:
        """The numbers that decoding keeps of a position."""
        return self.rank + self.features


def latents(graph: Graph) -> dict[str, Latent]:
    """The `attend`s of a graph whose keys and values need not be kept, by their ids."""
    return dict(_in_body(graph.nodes, graph.types()))


def _in_body(nodes: tuple[Node, ...], types: dict[str, Type]) -> Iterator[tuple[str, Latent]]:
    own = {node.id: node for node in nodes if isinstance(node, Apply)}
    users = Counter(dict(n.inputs)["k"] for n in own.values() if n.op == "attend")
    for node in nodes:
        match node:
            case Stack():
                for body in node.bodies:
                    yield from _in_body(body.nodes, types)
            case Mixture():
                pass
            case Apply(op="attend") if users[dict(node.inputs)["k"]] == 1:
                mask = masks.parse(str(node.attr["mask"])) if node.attr["mask"] else None
                causal = mask is not None and masks.ahead(mask) == 0  # else nothing is kept
                if causal and (found := _Body(own, types).latent(node)):
                    yield node.id, found
            case _:
                pass


class _Body:
    """Looks at the operators of a body."""

    def __init__(self, nodes: dict[str, Apply], types: dict[str, Type]):
        self.nodes, self.types = nodes, types

    def latent(self, node: Apply) -> Latent | None:
        given = dict(node.inputs)
        heads = self.sizes(given["q"])[0]
        values = self.expansion(given["v"])
        found = self.keys(given["k"], values.linear.inputs[0][1]) if values else None
        if values is None or found is None or found[0].heads != heads:
            return None
        keys, shared, features, behind = found
        z = values.linear.inputs[0][1]
        latent = Latent(z, self.sizes(z)[-1], keys, values, shared, features, behind)
        kept = sum(self.sizes(given["k"])[-1:] + self.sizes(given["v"])[-1:]) * heads
        return latent if kept >= LEAST_SAVING * latent.width else None

    def keys(self, ref: str, z: str) -> tuple[Expansion, str | None, int, bool] | None:
        """The part of the keys that is linear in z, and the part of all heads."""
        if found := self.expansion(ref):
            return (found, None, 0, False) if found.linear.inputs[0][1] == z else None
        node = self.nodes.get(ref)
        if node is None or node.op != "concat" or node.attr.get("along") != (0,):
            return None
        refs = [other for _, other in node.inputs]
        parts = [self.expansion(each) for each in refs]
        for i, part in enumerate(parts):
            other = refs[1 - i]
            flat = len(self.types[other].axes) == 2
            if part and part.linear.inputs[0][1] == z and flat:
                return part, other, self.sizes(other)[-1], i == 1
        return None

    def expansion(self, ref: str) -> Expansion | None:
        """How a value [T, H, n] is computed by a linear layer, if it is."""
        node, part = self.nodes.get(ref), None
        if node and node.op == "slice" and node.attr["axis"] == 2:
            part, node = node, self.nodes.get(node.inputs[0][1])
        if node is None or node.op != "reshape":
            return None
        linear = self.nodes.get(node.inputs[0][1])
        if linear is None or linear.op != "linear" or linear.attr["bias"]:
            return None
        if not _HEADS.fullmatch(str(node.attr["pattern"])):
            return None
        heads, size = self.sizes(node.id)
        start, stop = 0, size
        if part:
            start = int(str(part.attr["start"] or 0))
            stop = start + self.sizes(part.id)[-1]
        return Expansion(linear, heads, start, stop)

    def sizes(self, ref: str) -> list[int]:
        """The sizes of the axes after the first."""
        return [axis.size.value or 0 for axis in self.types[ref].axes[1:]]
