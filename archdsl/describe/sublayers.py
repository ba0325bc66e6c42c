"""Recognizes the sublayers of a graph's stacks from how their operators are connected.

A residual add is an `add` where one term is computed from the other. Unknown forms are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from archdsl.frozen import Frozen
from archdsl.graph import masks
from archdsl.graph.masks import Mask
from archdsl.graph.nodes import Apply, Graph, Mixture, Node, Repeated, Scan, Stack, refs, walk
from archdsl.graph.rules import ACTIVATIONS
from archdsl.graph.types import Type


class Attention(Frozen):
    """One use of attention; `over` are the model inputs that a memory is computed from."""

    heads: int
    kv_heads: int
    head_size: int
    mask: Mask
    scale: float
    width: int | None
    normed: str | None
    over: tuple[str, ...]


class Mlp(Frozen):
    """An mlp within a stack: its activation, its hidden sizes, and whether it is gated."""

    act: str
    hidden: tuple[int, ...]
    gated: bool
    chosen: tuple[int, int] | None = None  # of how many experts


class Wiring:
    """The producer and the users of each value."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.types: dict[str, Type] = graph.types()
        self.producers: dict[str, Node] = {}
        self.around: dict[str, tuple[Repeated, ...]] = {}
        self.users: dict[str, list[Node]] = {}
        self.carries: dict[str, Stack | Mixture] = {}
        for node, around in walk(graph.nodes):
            self.producers[node.id], self.around[node.id] = node, around
            match node:
                case Stack():
                    self.carries |= {body.carry: node for body in node.bodies}
                case Mixture():
                    self.carries[node.carry] = node
            direct = (node.input,) if isinstance(node, Stack) else refs(node)
            for ref in direct:
                self.users.setdefault(ref, []).append(node)

    def applies(self, *ops: str) -> Iterator[Apply]:
        """Every use of some operators, in the order of execution."""
        for node in self.producers.values():
            if isinstance(node, Apply) and (not ops or node.op in ops):
                yield node

    def outside(self, *ops: str) -> Iterator[Apply]:
        """Every use of some operators outside of stacks."""
        return (node for node in self.applies(*ops) if not self.around[node.id])

    def chain_before(self, ref: str) -> list[Apply]:
        """The single-input operators that lead to a value, the last one first."""
        found = []
        while isinstance(node := self.producers.get(ref), Apply) and len(node.inputs) == 1:
            found.append(node)
            ref = node.inputs[0][1]
        return found

    def ancestors(self, ref: str) -> set[str]:
        """A value and all values that it is computed from, also through stacks."""
        found, todo = set[str](), [ref]
        while todo:
            each = todo.pop()
            if each in found:
                continue
            found.add(each)
            if each in self.carries:
                todo.append(self.carries[each].input)
            elif each in self.producers:
                node = self.producers[each]
                todo += refs(node)
                todo += node.results if isinstance(node, Stack) else ()
                todo += [node.result] if isinstance(node, Mixture) else []
                todo += [node.result, node.output] if isinstance(node, Scan) else []
        return found

    def sources(self, ref: str) -> tuple[str, ...]:
        """The inputs of the model that a value is computed from."""
        ancestors = self.ancestors(ref)
        return tuple(each.name for each in self.graph.inputs if each.name in ancestors)

    # -- attention --

    def attentions(self) -> Iterator[Attention]:
        for node in self.applies("attention", "attend"):
            tensors = dict(node.inputs)
            if node.op == "attention":
                heads, kv_heads, size = (
                    node.attr[name] for name in ("heads", "kv_heads", "head_size")
                )
                memory, normed = tensors.get("over"), None
            else:
                q, k = self.types[tensors["q"]], self.types[tensors["k"]]
                heads, size = (axis.size.value for axis in q.axes[-2:])
                kv_heads = k.axes[-2].size.value
                memory, normed = self._memory(node), self._head_norm(tensors)
            mask, scale = node.attr["mask"], node.attr["scale"]
            assert isinstance(heads, int)
            assert isinstance(kv_heads, int)
            assert isinstance(size, int)
            assert isinstance(mask, str | None)
            assert isinstance(scale, float)
            yield Attention(
                heads,
                kv_heads,
                size,
                masks.parse(mask),
                scale,
                self._width(node),
                normed,
                self.sources(memory) if memory else (),
            )

    def _memory(self, node: Apply) -> str | None:
        """The value that the keys are computed from, if it is not the stack's own stream."""
        tensors = dict(node.inputs)
        q, k = tensors["q"], tensors["k"]
        if around := self.around[node.id]:
            return None if around[-1].inside.carry in self._inside(k, node) else k
        ways = [{ref, *(n.inputs[0][1] for n in self.chain_before(ref))} for ref in (q, k)]
        return None if ways[0] & ways[1] else k

    def _head_norm(self, tensors: dict[str, str]) -> str | None:
        """The norm of both queries and keys after the split into heads."""
        kinds = [
            [n.attr["kind"] for n in self.chain_before(tensors[name]) if _is_head_norm(n)]
            for name in "qk"
        ]
        return str(kinds[0][0]) if kinds[0] and kinds[0] == kinds[1] else None

    def _width(self, node: Apply) -> int | None:
        """The width of the stack around a node."""
        around = self.around[node.id]
        return around[-1].inside.carry_type.axes[-1].size.value if around else None

    # -- mlps --

    def mlps(self) -> Iterator[Mlp]:
        """The mlps of all stacks, including an activation between two linear layers."""
        for node in self.applies("mlp", *ACTIVATIONS):
            if not self.around[node.id]:
                continue
            sizes = node.attr.get("sizes")
            if isinstance(sizes, tuple):
                hidden = tuple(size for size in sizes[:-1] if isinstance(size, int))
                yield Mlp(str(node.attr["act"]), hidden, False, self._chosen(node))
            elif feed := self._between_linear_layers(node):
                yield replace(feed, chosen=self._chosen(node))

    def _chosen(self, node: Apply) -> tuple[int, int] | None:
        """How many of how many experts a vector chooses, of which an mlp is one."""
        around = self.around[node.id][-1]
        return (around.chosen, around.count) if isinstance(around, Mixture) else None

    def _between_linear_layers(self, act: Apply) -> Mlp | None:
        before = self._linear(act.inputs[0][1])
        users = self.users.get(act.id, [])
        if before is None or len(users) != 1:
            return None
        (user,) = users
        hidden = before.type.axes[-1].size.value
        if hidden is None or not isinstance(user, Apply):
            return None
        if user.op == "linear":
            return Mlp(act.op, (hidden,), gated=False)
        others = [ref for _, ref in user.inputs if ref != act.id]
        if user.op != "multiply" or len(others) != 1:
            return None
        other = self._linear(others[0])
        ends = [n for n in self.users.get(user.id, []) if isinstance(n, Apply)]
        gated = other and other.inputs == before.inputs and [n.op for n in ends] == ["linear"]
        return Mlp(act.op, (hidden,), gated=True) if gated else None

    def _linear(self, ref: str) -> Apply | None:
        node = self.producers.get(ref)
        return node if isinstance(node, Apply) and node.op == "linear" else None

    # -- norms --

    def norm_places(self) -> list[str] | None:
        """The places of the norms of residual sublayers; None if they differ."""
        found = {self._places(*residual) for residual in self._residuals()}
        return list(found.pop()) if len(found) == 1 else None

    def _residuals(self) -> Iterator[tuple[Apply, str, str]]:
        """The residual adds of all stacks: the sum, the stream, and the branch."""
        for node in self.applies("add"):
            if not self.around[node.id]:
                continue
            (_, left), (_, right) = node.inputs
            if left != right and left in self._inside(right, node):
                yield node, left, right
            elif left != right and right in self._inside(left, node):
                yield node, right, left

    def _inside(self, ref: str, node: Apply) -> set[str]:
        """The values that a value is computed from within one layer, that of `node`."""
        found, todo = set[str](), [ref]
        while todo:
            each = todo.pop()
            if each in found:
                continue
            found.add(each)
            if each in self.producers and self.around[each] == self.around[node.id]:
                todo += refs(self.producers[each])
        return found

    def _places(self, sum: Apply, stream: str, branch: str) -> tuple[str, ...]:
        inside = self._inside(branch, sum)
        first = [node for node in self.users[stream] if node.id in inside]
        last = self.producers.get(branch)
        after = self.users.get(sum.id, [])
        layer = self.around[sum.id][-1].inside
        places = {
            "before each sublayer": bool(first) and all(map(_is_norm, first)),
            "after each sublayer": last is not None and _is_norm(last),
            "after each residual add": bool(after)
            and all(map(_is_norm, after))
            and layer.result != sum.id,
        }
        return tuple(place for place, holds in places.items() if holds)


def _is_norm(node: Node) -> bool:
    return isinstance(node, Apply) and node.op == "norm"


def _is_head_norm(node: Apply) -> bool:
    return node.op == "norm" and len(node.type.axes) == 3
