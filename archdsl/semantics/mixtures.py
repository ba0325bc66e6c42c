"""`mixture(gates, expert)`: one node, whose body is one expert for one vector."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from archdsl.diagnostics import Note, Span
from archdsl.graph.mixture import MIXTURE, is_fixed, mixture_type, most_chosen, one_vector
from archdsl.graph.nodes import Apply, Mixture, Node, Stack, refs, walk
from archdsl.graph.ops import OPS
from archdsl.graph.signature import Mismatch, Site
from archdsl.graph.types import Type
from archdsl.semantics.binding import Arguments
from archdsl.semantics.graph_builder import GraphBuilder
from archdsl.semantics.operators import Operators
from archdsl.semantics.values import POISON, Closure, Poison, Tensor

Expert = Callable[[Tensor], "Tensor | Poison"]


class Mixtures:
    """Applies an expert to vectors: it is elaborated for all vectors of the input, and its
    operators are then those of one vector. One that needs other vectors is refused."""

    def __init__(self, builder: GraphBuilder, operators: Operators):
        self.builder = builder
        self.operators = operators

    def apply(
        self,
        arguments: Arguments,
        span: Span,
        path: str,
        expert: Callable[[Closure, Tensor], Tensor | Poison],
    ) -> Tensor | Poison:
        """The node of a call; `expert` applies the block to a tensor."""
        found = {name: bound[0].value for name, bound in arguments.slots.items()}
        x, gates, block = (found.get(p.name) for p in MIXTURE.params)
        if not isinstance(block, Closure):
            return POISON
        if not isinstance(x, Tensor) or not isinstance(gates, Tensor):
            return self.builder.skip(block.expr)
        try:
            MIXTURE.infer(
                Site({"x": x.type, "gates": gates.type}, {}, self.builder.varying, {})
            )
        except Mismatch as mismatch:
            return self.operators.report_mismatch(mismatch, MIXTURE, arguments.slots, span)
        carry = self.builder.new_id()
        with self.builder.collect_nodes() as body, self.builder.places.in_stack(path, False):
            result = expert(block, Tensor(carry, x.type))
        if isinstance(result, Poison):
            return result
        lead = len(x.type.axes) - 1
        types = {carry: Type("float", x.type.axes[lead:])}
        nodes = self._for_one_vector(tuple(body), types, lead, block, span)
        if nodes is None:
            return POISON
        one = types.get(result.ref)
        if one is None or len(one.axes) != 1:
            return self.builder.report_error(
                "mixture",
                "an expert must return a vector for each vector",
                block.expr.span,
                expected=f"float[…, {x.type.axes[-1]}] or another last axis",
                found=str(result.type),
            )
        made = {node.id: node for node in self._made()}
        known = {id: node.type for id, node in made.items()} | {gates.ref: gates.type}
        chosen = most_chosen(made, known, gates.ref) if gates.ref in made else None
        count = gates.type.axes[-1].size.value
        assert count is not None
        type = mixture_type(x.type, gates.type, one)
        node = Mixture(
            *(self.builder.new_id(), x.ref, gates.ref, count, chosen or count, path),
            *(carry, types[carry], nodes, result.ref, type, span),
        )
        self.builder.add(node)
        return Tensor(
            node.id, replace(type, axes=(*x.type.axes[:lead], *result.type.axes[lead:]))
        )

    def _made(self) -> Iterator[Node]:
        for nodes in (*self.builder.enclosing, self.builder.nodes):
            yield from (node for node, _ in walk(tuple(nodes)))

    def _for_one_vector(
        self,
        nodes: tuple[Node, ...],
        types: dict[str, Type],
        lead: int,
        block: Closure,
        span: Span,
        outer: frozenset[str] = frozenset(),
    ) -> tuple[Node, ...] | None:
        """The nodes of an expert for one vector, or None after a report; adds to `types`."""
        found: list[Node] = []
        fixed = set(outer)
        for node in nodes:
            if any(ref not in types for ref in refs(node)):
                self._refuse(node, "uses a value from outside of the expert", block)
                return None
            match node:
                case Apply() if is_fixed(node, fixed):
                    fixed.add(node.id)
                    found.append(node)
                case Apply():
                    op = OPS[node.op]
                    tensors = {param: types[ref] for param, ref in node.inputs}
                    try:
                        node = one_vector(node, lead, fixed)
                        site = Site(tensors, node.attr, self.builder.varying, {})
                        # Only the mask of a softmax needs positions.
                        placed = op.positions and node.attr.get("mask", "") is not None
                        if placed or op.cached or any(a < 0 for a in _axes(node)):
                            raise Mismatch("axis", "it needs other vectors")
                        type = op.infer(site)
                    except Mismatch:
                        self._refuse(node, "needs more than one vector", block)
                        return None
                    found.append(replace(node, type=type))
                case Stack():
                    bodies = []
                    for body in node.bodies:
                        carry = types[body.carry] = types[node.input]
                        inner = self._for_one_vector(
                            body.nodes, types, lead, block, span, frozenset(fixed)
                        )
                        if inner is None:
                            return None
                        bodies.append(replace(body, nodes=inner, carry_type=carry))
                    type = types[node.last.result]
                    found.append(replace(node, bodies=tuple(bodies), type=type))
                case Mixture():
                    type = mixture_type(
                        types[node.input],
                        types[node.gates],
                        Type("float", node.type.axes[lead:]),
                    )
                    found.append(replace(node, type=type))
            types[node.id] = found[-1].type
        return tuple(found)

    def _refuse(self, node: Node, why: str, block: Closure) -> None:
        name = node.op if isinstance(node, Apply) else node.path
        around = block.expr.span
        shown = node.span is None or around.covers(node.span)
        self.builder.report_error(
            "mixture",
            f"an expert computes each vector by itself, but `{name}` {why}",
            node.span or around,
            notes=() if shown else (Note("it is in the expert here", around),),
            help="compute that before the mixture",
        )


def _axes(node: Apply) -> Iterator[int]:
    """The axes that an operator names."""
    yield from (v for name, v in node.attrs if name == "axis" and isinstance(v, int))
