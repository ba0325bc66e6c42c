"""The types and the cost of a model, as data."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any

from archdsl.diagnostics import did_you_mean, fail, listing
from archdsl.graph.cost import cost
from archdsl.graph.nodes import Graph


def facts(graph: Graph, sizes: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Types of inputs and outputs, parameters, flops and bytes in float32, of one example.

    `sizes` are lengths of varying axes; the others are at their bounds.
    """
    check_sizes(graph, sizes or {})
    found, types = cost(graph, sizes), graph.types()
    return {
        "model": graph.name,
        "inputs": {i.name: str(i.type) for i in graph.inputs},
        "defaults": {i.name: i.default for i in graph.inputs if i.default is not None},
        "outputs": {name: str(types[ref]) for name, ref in graph.outputs},
        "params": found.params,
        "weight_bytes": found.weight_bytes,
        "sizes": dict(found.sizes),
        "flops": found.flops,
        "flops_formula": str(found.flops_formula),
        "activation_bytes": found.activation_bytes,
        "cache_bytes": found.cache_bytes,
    }


def check_sizes(graph: Graph, sizes: Mapping[str, int]) -> None:
    """Raises ArchError for a size of an axis that does not vary, or cannot have this size."""
    varying = {axis.name: axis for axis in graph.varying}
    for name, size in sizes.items():
        if name not in varying:
            fail(
                "axis",
                f"no axis `{name}` of `{graph.name}` varies",
                expected=listing(varying) or "no sizes: all axes are fixed",
                help=did_you_mean(name, varying),
            )
        axis = varying[name]
        if not isinstance(size, Integral) or not axis.least <= size <= axis.bound:
            allowed = f"{axis.least} to {axis.bound}"
            fail("argument-value", f"`{name}` cannot be {size!r:.80}", expected=allowed)
