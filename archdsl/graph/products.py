"""The type, weight and cost rules of operators with trained matrices."""

from __future__ import annotations

from dataclasses import replace
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


# -- experts --


def experts(site: Site) -> Type:
    vectors, _ = site.floats(), site.width
    count, top = site.attr["count"], site.attr["top"]
    if top > count:
        raise Mismatch(
            "argument-value",
            f"`top` is larger than the number of experts, {count}",
            "top",
            expected=f"{count} or less",
            found=str(top),
            bound=("count", "top"),
        )
    return vectors


def experts_weights(site: Site) -> tuple[Weight, ...]:
    width, hidden = site.width, site.attr["hidden"]
    return (
        *affine("router.", site.attr["count"], width, bias=False),
        *(
            weight
            for i in range(site.attr["count"])
            for weight in (
                *affine(f"{i}.gate.", hidden, width, bias=False),
                *affine(f"{i}.up.", hidden, width, bias=False),
                *affine(f"{i}.down.", width, hidden, bias=False),
            )
        ),
    )


def experts_flops(site: Site) -> Size:
    """The flops of the router and of the selected experts."""
    chosen: int = site.attr["top"] * site.attr["hidden"]
    count: int = site.attr["count"]
    return _vectors(site.x) * (2 * site.width * (count + 3 * chosen))


def experts_scratch(site: Site) -> Size:
    """Elements of the weights of all experts, and of the hidden layers and result of one."""
    hidden: int = site.attr["hidden"]
    count: int = site.attr["count"]
    return _vectors(site.x) * (count + 2 * hidden + site.width)


# -- convolution --


def conv1d(site: Site) -> Type:
    sequence, _ = site.sequence()
    kernel, stride, padding = (site.attr[name] for name in ("kernel", "stride", "padding"))
    if site.ragged(sequence.size):
        raise Mismatch(
            "axis",
            "a convolution along a ragged axis would mix padding into the values",
            "x",
            expected="an axis that has the same length in every example",
            found=str(site.x),
            bound=(sequence,),
        )
    length = sequence.size.value
    if length is not None and length + 2 * padding < kernel:
        raise Mismatch(
            "shape-mismatch",
            f"the kernel covers {kernel} positions, but the padded sequence has "
            f"{length + 2 * padding}",
            "kernel",
            expected=f"{length + 2 * padding} or less",
            found=str(kernel),
            bound=("kernel", "padding", sequence),
        )
    if length is not None:
        count = (length + 2 * padding - kernel) // stride + 1
        sequence = replace(sequence, size=Size.of(count), marks=(), origin=None)
    elif stride != 1 or 2 * padding != kernel - 1:
        raise Mismatch(
            "axis",
            f"the varying axis {sequence.size} must keep its length",
            "x",
            expected="stride = 1, an odd kernel and padding = (kernel - 1) / 2",
            found=f"stride = {stride}, kernel = {kernel}, padding = {padding}",
            bound=(sequence, "stride", "kernel", "padding"),
        )
    return site.x.with_axes((sequence, site.axis("dim"))).with_noncausal(sequence.size.vars)


def conv1d_weights(site: Site) -> tuple[Weight, ...]:
    dim = site.attr["dim"]
    weight = Weight("weight", (dim, site.width, site.attr["kernel"]), "matrix")
    return (weight, Weight("bias", (dim,), "zeros")) if site.attr["bias"] else (weight,)


def conv1d_flops(site: Site) -> Size:
    kernel: int = site.attr["kernel"]
    return conv1d(site).elements * (2 * site.width * kernel)


def conv1d_scratch(site: Site) -> Size:
    """Elements of the kernel windows, laid out as vectors (im2col)."""
    kernel: int = site.attr["kernel"]
    return conv1d(site).axes[0].size * (site.width * kernel)
