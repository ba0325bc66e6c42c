"""The rules of `mixture`: its types, and how many experts a vector chooses."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from math import prod

from archdsl.graph.nodes import Apply, Body, Mixture, Node, Stack
from archdsl.graph.params import X, tensor
from archdsl.graph.rules import MATCHED
from archdsl.graph.signature import Kind, Mismatch, Op, Param, Site
from archdsl.graph.types import Axis, Size, Type

# Functions that map 0 to 0.
_KEEP_ZEROS = frozenset(
    {
        *("scale", "dropout", "sqrt", "abs", "sin"),
        *("relu", "gelu", "gelu_tanh", "silu", "quick_gelu", "tanh"),
    }
)


def mixture(site: Site) -> Type:
    """The type of `x`, if there is a gate of each expert for each vector."""
    x, gates = site.floats(), site.floats("gates")
    _ = site.width
    around = [axis.size for axis in x.axes[:-1]]
    if [axis.size for axis in gates.axes[:-1]] != around or not gates.axes:
        raise Mismatch(
            "shape-mismatch",
            "there must be a gate of each expert for each vector",
            "gates",
            expected=str(Type("float", x.axes[:-1])).removesuffix("]") + ", experts]",
            found=str(gates),
        )
    if gates.axes[-1].size.value is None:
        raise Mismatch("axis", "the number of experts must be fixed", "gates", found=str(gates))
    return x.with_noncausal(gates.noncausal)


def mixture_type(x: Type, gates: Type, result: Type) -> Type:
    """The type of a mixture, whose body returns vectors of type `result`."""
    found = x.with_axes((*x.axes[:-1], *result.axes))
    return found.with_noncausal(gates.noncausal)


def vectors(x: Type) -> Size:
    """The number of vectors of a tensor."""
    return prod((axis.size for axis in x.axes[:-1]), start=Size.of(1))


def most_chosen(made: Mapping[str, Node], types: Mapping[str, Type], ref: str) -> int:
    """How many numbers along the last axis of a value can differ from 0, at most.

    `made` are the nodes of the graph by their ids. A value that has no type in `types`, such as
    an input, can differ from 0 everywhere.
    """
    size = types[ref].axes[-1].size.value
    assert size is not None
    node = made.get(ref)
    if not isinstance(node, Apply):
        return size
    inputs = [other for _, other in node.inputs]
    alike = [r for r in inputs if r in types and _last(types, r) == size]
    match node.op:
        case "top":
            count = node.attr["count"]
            assert isinstance(count, int)
            return count
        case "multiply":
            return min((most_chosen(made, types, r) for r in alike), default=size)
        case op if (op == "divide" or op in _KEEP_ZEROS) and inputs[0] in alike:
            return most_chosen(made, types, inputs[0])
        case _:
            return size


def _last(types: Mapping[str, Type], ref: str) -> int | None:
    axes = types[ref].axes
    return axes[-1].size.value if axes else None


def is_fixed(node: Apply, fixed: Collection[str]) -> bool:
    """Whether a value depends on weights alone, given the values before that do."""
    return all(ref in fixed for _, ref in node.inputs)


def one_vector(node: Apply, lead: int, fixed: Collection[str]) -> Apply:
    """An operator on vectors as one on a single vector: its axes lack the first `lead`.

    `fixed` are values of weights alone, which are the same for all vectors. Raises `Mismatch`
    if there is a weight for each vector.
    """
    attrs = dict(node.attrs)
    if isinstance(axis := attrs.get("axis"), int):
        attrs["axis"] = axis - lead
    if node.op in MATCHED:
        along = attrs.pop("along", None)
        places = along if isinstance(along, tuple) else range(len(node.type.axes))
        own = tuple(i - lead for i in places if isinstance(i, int) and i >= lead)
        if len(own) < len(places) and any(ref in fixed for _, ref in node.inputs):
            raise Mismatch("axis", "it has a weight for each vector")
        if len(own) < len(node.type.axes) - lead:
            attrs["along"] = own
    return replace(node, attrs=tuple(attrs.items()))


def all_vectors(node: Apply, lead: int, fixed: Collection[str]) -> Apply:
    """The inverse of `one_vector`."""
    attrs = dict(node.attrs)
    if isinstance(axis := attrs.get("axis"), int):
        attrs["axis"] = axis + lead
    if node.op in MATCHED:
        along = attrs.get("along")
        places = along if isinstance(along, tuple) else range(len(node.type.axes))
        own = tuple(i + lead for i in places if isinstance(i, int))
        if any(ref in fixed for _, ref in node.inputs):
            attrs["along"] = own
        elif along is not None:
            attrs["along"] = (*range(lead), *own)
    return replace(node, attrs=tuple(attrs.items()))


def for_all_vectors(nodes: tuple[Node, ...], types: Mapping[str, Type]) -> tuple[Node, ...]:
    """Nodes whose mixtures have bodies for all vectors of their inputs, as specs write them."""
    found: list[Node] = []
    for node in nodes:
        match node:
            case Stack():
                bodies = (
                    replace(b, nodes=for_all_vectors(b.nodes, types)) for b in node.bodies
                )
                node = replace(node, bodies=tuple(bodies))
            case Mixture():
                body = _widened(node.body, types[node.input].axes[:-1])
                carry_type = types[node.input]
                # Of the body of a mixture inside, the input has other vectors too.
                inner = {
                    **types,
                    node.carry: carry_type,
                    **{each.id: each.type for each in body},
                }
                node = replace(node, body=for_all_vectors(body, inner), carry_type=carry_type)
            case _:
                pass
        found.append(node)
    return tuple(found)


def _widened(
    nodes: tuple[Node, ...], lead: tuple[Axis, ...], outer: frozenset[str] = frozenset()
) -> tuple[Node, ...]:
    found: list[Node] = []
    fixed = set(outer)
    for node in nodes:
        type = node.type.with_axes((*lead, *node.type.axes))
        match node:
            case Apply() if is_fixed(node, fixed):
                fixed.add(node.id)
                found.append(node)
            case Apply():
                found.append(replace(all_vectors(node, len(lead), fixed), type=type))
            case Stack():
                inner = frozenset(fixed)
                bodies = tuple(_widened_body(body, lead, inner) for body in node.bodies)
                found.append(replace(node, bodies=bodies, type=type))
            case Mixture():
                found.append(replace(node, type=type))
    return tuple(found)


def _widened_body(body: Body, lead: tuple[Axis, ...], outer: frozenset[str]) -> Body:
    carry_type = body.carry_type.with_axes((*lead, *body.carry_type.axes))
    return replace(body, nodes=_widened(body.nodes, lead, outer), carry_type=carry_type)


MIXTURE = Op(
    "mixture",
    (X, tensor("gates"), Param("expert", Kind.BLOCK)),
    mixture,
    "A mixture of experts (Shazeer et al. 2017): the sum of copies of the block `expert`, each "
    "with weights of its own, and each multiplied by its gate. `gates` has one number for each "
    "expert along its last axis. If they are a product with `top`, only the chosen experts "
    "count as flops. An expert computes each vector by itself.",
    example="mixture(scores * top(scores, 2), gated_mlp(hidden))",
)
