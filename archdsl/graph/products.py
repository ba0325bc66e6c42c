"""The type, weight and cost rules of operators with trained matrices."""

from __future__ import annotations

from itertools import pairwise

from archdsl.graph.signature import Mismatch, Site, Weight
from archdsl.graph.types import Size, Type

# The operators that are one matmul, so that pointwise operators can be fused after them.
MATMUL_OPS = frozenset({"linear", "conv1d", "unembed"})


def linear(site: Site) -> Type:
    vectors, _ = site.floats(), site.width
    return vectors.with_axes((*vectors.axes[:-1], site.axis("dim")))


def affine(prefix: str, out: int, into: int, bias: bool) -> tuple[Weight, ...]:
    """The weights of one linear layer: a matrix [out, into], and optionally a bias [out]."""
    weight = Weight(f"{prefix}weight", (out, into), "matrix")
    return (weight, Weight(f"{prefix}bias", (out,), "zeros")) if bias else (weight,)


def linear_weights(site: Site) -> tuple[Weight, ...]:
    return affine("", site.attr["dim"], site.width, site.attr["bias"])


def linear_flops(site: Site) -> Size:
    dim: int = site.attr["dim"]
    return site.x.elements * (2 * dim)


def mlp(site: Site) -> Type:
    vectors, _ = site.floats(), site.width
    sizes = site.attr["sizes"]
    if len(sizes) < 2:
        raise Mismatch(
            "missing-argument",
            "`mlp` needs at least one hidden size",
            "sizes",
            expected="the hidden sizes, then the output size: `mlp(hidden, D)`",
            found=f"{len(sizes)} size",
            help="use `linear` for a single layer",
        )
    return vectors.with_axes((*vectors.axes[:-1], site.axis("sizes")))


def _layers(site: Site) -> list[tuple[int, int]]:
    """The input and output size of each layer."""
    return list(pairwise((site.width, *site.attr["sizes"])))


def mlp_weights(site: Site) -> tuple[Weight, ...]:
    bias = site.attr["bias"]
    return tuple(
        weight
        for i, (into, out) in enumerate(_layers(site))
        for weight in affine(f"{i}.", out, into, bias)
    )


def _vectors(type: Type) -> Size:
    """The number of vectors of a tensor."""
    return Type(type.dtype, type.axes[:-1]).elements


def mlp_flops(site: Site) -> Size:
    return _vectors(site.x) * sum(2 * into * out for into, out in _layers(site))


def mlp_scratch(site: Site) -> Size:
    """Elements of the two consecutive hidden layers that are alive at once."""
    sizes: tuple[int, ...] = site.attr["sizes"]
    hidden = pairwise((*sizes[:-1], 0))
    return _vectors(site.x) * max(before + after for before, after in hidden)
