"""The cost of a model as a function of its varying axes and of the batch, as data.

A cost is a formula in the varying axes, so a page computes it for any length without Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from archdsl.frozen import Frozen
from archdsl.graph.cost import BYTES, cached_elements, flops, parameter_count
from archdsl.graph.nodes import Graph
from archdsl.graph.peak import peak_formulas
from archdsl.graph.types import Quotient, Size, Varying

BATCHES = tuple(2**power for power in range(11))


class CostCurves(Frozen):
    """The cost of one example; that of a batch has `batch` times the flops, the activations and
    the cache, and the same weights.

    `activation_bytes` is the largest of these sizes.
    """

    axes: tuple[Varying, ...]
    params: int
    weight_bytes: int
    flops: Size
    activation_bytes: tuple[Size, ...]
    cache_bytes: Size

    @property
    def bounds(self) -> dict[str, int]:
        """The largest size of each varying axis."""
        return {axis.name: axis.bound for axis in self.axes}

    def at(self, sizes: Mapping[str, int] | None = None, batch: int = 1) -> dict[str, int]:
        """The numbers at given sizes; each axis is at its bound where not given.

        >>> from archdsl.analysis import analyse
        >>> cost_curves(analyse("gpt.arch").graph).at({"T": 512}, batch=2)["cache_bytes"]
        75497472
        """
        at = self.bounds | dict(sizes or {})
        return {
            "params": self.params,
            "weight_bytes": self.weight_bytes,
            "flops": self.flops.at(at) * batch,
            "activation_bytes": max(size.at(at) for size in self.activation_bytes) * batch,
            "cache_bytes": self.cache_bytes.at(at) * batch,
        }

    def as_data(self) -> dict[str, Any]:
        """The formulas, and a curve along each axis: its sizes, the others at their bounds.

        A formula is a list of terms `[factor, axes]`; an entry of `axes` is the name of an axis
        or a quotient `{"of": formula, "by": number}`, rounded down.
        """
        return {
            "params": self.params,
            "weight_bytes": self.weight_bytes,
            "formulas": {
                "flops": [_terms(self.flops)],
                "activation_bytes": [_terms(size) for size in self.activation_bytes],
                "cache_bytes": [_terms(self.cache_bytes)],
            },
            "axes": [
                {"name": axis.name, "least": axis.least, "bound": axis.bound}
                | {"sizes": list(sizes(axis))}
                | _columns([self.at({axis.name: size}) for size in sizes(axis)])
                for axis in self.axes
            ],
            "batches": list(BATCHES),
        }


def cost_curves(graph: Graph, dtype: str = "float32") -> CostCurves:
    """The cost of a model, equal to `graph.cost.cost` for all sizes of the varying axes."""
    width, params = BYTES[dtype], parameter_count(graph)
    return CostCurves(
        axes=graph.varying,
        params=params,
        weight_bytes=params * width,
        flops=flops(graph),
        activation_bytes=tuple(size * width for size in peak_formulas(graph)),
        cache_bytes=cached_elements(graph) * width,
    )


def sizes(axis: Varying) -> tuple[int, ...]:
    """The sizes of a curve: the powers of two that an axis can have, its least size, its bound.

    >>> sizes(Varying("T", bound=24, least=3))
    (3, 4, 8, 16, 24)
    """
    powers = (2**power for power in range(axis.bound.bit_length()))
    return tuple(sorted({axis.least, *filter(axis.least.__le__, powers), axis.bound}))


def _columns(rows: list[dict[str, int]]) -> dict[str, list[int]]:
    varying = ("flops", "activation_bytes", "cache_bytes")
    return {name: [row[name] for row in rows] for name in varying}


def _terms(size: Size) -> list[Any]:
    return [[factor, [_factor(each) for each in axes]] for axes, factor in size.terms]


def _factor(factor: str | Quotient) -> str | dict[str, Any]:
    if isinstance(factor, Quotient):
        return {"of": _terms(factor.of), "by": factor.by}
    return factor
