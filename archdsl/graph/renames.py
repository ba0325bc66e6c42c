"""A node that uses other values in place of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from archdsl.graph.nodes import Apply, Body, Mixture, Node, Scan, Slice, Stack


def with_refs(node: Node, new: Mapping[str, str]) -> Node:
    """A node with the values of `new` in place of those that it uses, inside its bodies too."""

    def of(ref: str) -> str:
        return new.get(ref, ref)

    def slices(found: tuple[Slice, ...]) -> tuple[Slice, ...]:
        return tuple(replace(each, of=of(each.of)) for each in found)

    def body(inside: Body) -> Body:
        nodes = tuple(with_refs(each, new) for each in inside.nodes)
        return replace(
            inside, nodes=nodes, result=of(inside.result), takes=slices(inside.takes)
        )

    match node:
        case Apply():
            return with_inputs(node, new)
        case Stack():
            return replace(node, input=of(node.input), bodies=tuple(map(body, node.bodies)))
        case Mixture():  # its body uses no value from outside
            return replace(node, input=of(node.input), gates=of(node.gates))
        case Scan():
            return replace(
                node,
                takes=slices(node.takes),
                body=tuple(with_inputs(each, new) for each in node.body),
                result=of(node.result),
                output=of(node.output),
                start=node.start and of(node.start),
                valid=node.valid and of(node.valid),
            )


def with_inputs(node: Apply, new: Mapping[str, str]) -> Apply:
    """An operator that nothing is fused into, with other values as its inputs."""
    return replace(node, inputs=tuple((param, new.get(ref, ref)) for param, ref in node.inputs))
