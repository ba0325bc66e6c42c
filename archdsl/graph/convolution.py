"""The type, weight and cost rules of the convolution along a sequence."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace

from archdsl.graph.signature import Mismatch, Site, Weight
from archdsl.graph.types import Axis, Size, Type


def span(site: Site) -> int:
    """How many positions the kernel covers besides its first."""
    kernel: int = site.attr["kernel"]
    dilation: int = site.attr["dilation"]
    return (kernel - 1) * dilation


def tail(site: Site) -> int:
    """How many earlier positions each position of a causal convolution uses."""
    return span(site) if site.attr["causal"] else 0


def conv1d(site: Site) -> Type:
    sequence, _ = site.sequence()
    padding, causal = site.attr["padding"], site.attr["causal"]
    _check_groups(site)
    if causal and padding:
        raise Mismatch(
            "argument-value",
            "`causal` pads in front alone, with as many zeros as the kernel needs",
            "padding",
            expected="no `padding`",
            found=str(padding),
        )
    padded = sequence.size + (span(site) if causal else 2 * padding)
    shortened = _shortened(site, sequence, padded)
    # Zeros in front move no position to an earlier one; those at the end do, and a stride does.
    moved = padding or site.attr["stride"] > 1
    noncausal = sequence.size.vars if moved else ()
    return site.x.with_axes((shortened, site.axis("dim"))).with_noncausal(noncausal)


def _shortened(site: Site, sequence: Axis, padded: Size) -> Axis:
    """The axis of the kernel's places on an axis of the size `padded`."""
    stride, covered = site.attr["stride"], span(site) + 1
    least = site.least(padded)
    if least < covered:
        has = "has" if padded.value is not None else "can have"
        raise Mismatch(
            "shape-mismatch",
            f"the kernel covers {covered} positions, but the padded sequence {has} {least}",
            "kernel",
            expected=f"{least} or less",
            found=str(covered),
            help=_longer(site, sequence, covered - least),
            bound=("kernel", "padding", sequence),
        )
    size = (padded - covered) // stride + 1
    if size == sequence.size:
        return sequence
    moved = stride > 1 or size.value is not None
    return replace(sequence, size=size, marks=(), origin=None if moved else sequence.origin)


def _longer(site: Site, sequence: Axis, missing: int) -> str | None:
    """How to give the input a least length, so that an axis has `missing` positions more."""
    if len(sequence.size.vars) != 1:
        return None
    (axis,) = sequence.size.vars
    wanted = site.least(sequence.size) + missing
    lengths = range(site.varying[axis].least, site.varying[axis].bound + 1)
    length = bisect_left(lengths, wanted, key=lambda n: sequence.size.at({axis: n}))
    if length == len(lengths):  # the bound is too short
        return None
    return f"give the input a least length: `{lengths[length]} <= {axis} <= …`"


def _check_groups(site: Site) -> None:
    groups, dim, width = site.attr["groups"], site.attr["dim"], site.width
    for size, bound in ((dim, "dim"), (width, site.x.axes[-1])):
        if size % groups:
            raise Mismatch(
                "divisibility",
                f"{size} features cannot be divided into {groups} groups",
                "groups",
                expected=f"a divisor of {dim} and of {width}",
                found=str(groups),
                bound=("groups", bound),
            )


def weights(site: Site) -> tuple[Weight, ...]:
    dim, kernel = site.attr["dim"], site.attr["kernel"]
    weight = Weight("weight", (dim, site.width // site.attr["groups"], kernel), "matrix")
    return (weight, Weight("bias", (dim,), "zeros")) if site.attr["bias"] else (weight,)


def flops(site: Site) -> Size:
    kernel: int = site.attr["kernel"]
    groups: int = site.attr["groups"]
    return conv1d(site).elements * (2 * (site.width // groups) * kernel)


def scratch(site: Site) -> Size:
    """Elements of the kernel windows, laid out as vectors (im2col)."""
    kernel: int = site.attr["kernel"]
    return conv1d(site).axes[0].size * (site.width * kernel)
