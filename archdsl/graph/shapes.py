"""The type rules of operators that change a tensor's axes, except `reshape`."""

from __future__ import annotations

from dataclasses import replace

from archdsl.diagnostics import did_you_mean, listing
from archdsl.graph.signature import Mismatch, Site, Weight
from archdsl.graph.types import Axis, Size, Type


def patches(site: Site) -> Type:
    patch, image = site.attr["patch"], site.x
    sizes = [axis.size.value for axis in image.axes if axis.size.value is not None]
    if image.dtype != "float" or len(image.axes) != 3 or len(sizes) != 3:
        raise Mismatch(
            "type-mismatch",
            "`patches` needs an image",
            "x",
            expected="float[channels, height, width]",
            found=str(image),
        )
    channels, height, width = sizes
    if height % patch or width % patch:
        uneven = image.axes[1 if height % patch else 2]
        raise Mismatch(
            "divisibility",
            f"an image of {height} x {width} cannot be cut into patches of {patch} x {patch}",
            "patch",
            expected=f"a divisor of {uneven.size}",
            found=str(patch),
            bound=("patch", uneven),
        )
    count, features = (height // patch) * (width // patch), channels * patch * patch
    return image.with_axes((Axis("M", Size.of(count)), Axis(None, Size.of(features))))


# -- named positions --


def prepend(site: Site) -> Type:
    (sequence, _), mark = site.sequence(), site.attr["name"]
    if mark in sequence.marks:
        raise Mismatch(
            "duplicate-name", f"`{mark}` is already prepended to this sequence", "name"
        )
    if "at" in site.tensors:  # a step feeds prepended positions like all others
        return site.x
    return _resized(site.x, 0, sequence.size + 1, (mark, *sequence.marks))


def prepend_weights(site: Site) -> tuple[Weight, ...]:
    return (Weight("weight", (site.width,), "embedding"),)


def readout(site: Site) -> Type:
    (sequence, _), mark = site.sequence(), site.attr["name"]
    if mark not in sequence.marks:
        raise Mismatch(
            "axis",
            f"no `{mark}` was prepended to this sequence",
            "name",
            expected=listing(sequence.marks) or f"`prepend({mark})` earlier in the model",
            found=str(site.x),
            help=did_you_mean(mark, sequence.marks),
        )
    return first(site)


def first(site: Site) -> Type:
    sequence, _ = site.sequence()
    return _without(site.x, 0, sequence)


def last(site: Site) -> Type:
    """The type of `x` with an axis of size 1. It stays causal: this is the last position."""
    index = site.index(0)
    axes = list(site.x.axes)
    axes[index] = Axis(None, Size.of(1))
    return replace(site.x, axes=tuple(axes))


def at(site: Site) -> Type:
    tokens, token = site.tensors["tokens"], site.attr.get("token")
    found = at_end(site)
    if tokens.below is not None and token is not None and not 0 <= token < tokens.below:
        raise Mismatch(
            "element-bound",
            f"no token can be {token}",
            "token",
            expected=f"a number less than {tokens.below}",
            found=str(token),
            bound=("tokens",),
        )
    return found


def at_end(site: Site) -> Type:
    sequence, _ = site.sequence()
    tokens = site.tensors["tokens"]
    if tokens.dtype != "int" or [axis.size for axis in tokens.axes] != [sequence.size]:
        raise Mismatch(
            "type-mismatch",
            "`tokens` must have one token for each position",
            "tokens",
            expected=str(Type("int", (sequence,))),
            found=str(tokens),
            bound=(sequence,),
        )
    return first(site).with_noncausal(tokens.noncausal)


def _without(type: Type, index: int, axis: Axis) -> Type:
    """A type without one axis; the result is not causal along it."""
    axes = (*type.axes[:index], *type.axes[index + 1 :])
    return type.with_axes(axes).with_noncausal(axis.size.vars)


# -- any axis --


def mean(site: Site) -> Type:
    type = site.floats()
    index = site.index(max(len(type.axes) - 2, 0))
    return _without(type, index, type.axes[index])


def sum_(site: Site) -> Type:
    type, index = site.floats(), site.index(-1)
    return _without(type, index, type.axes[index])


def top(site: Site) -> Type:
    type, size, count = site.floats(), site.width, site.attr["count"]
    if count > size:
        raise Mismatch(
            "argument-value",
            f"`count` is larger than the last axis, {size}",
            "count",
            expected=f"{size} or less",
            found=str(count),
            bound=("count", type.axes[-1]),
        )
    return type


def softmax(site: Site) -> Type:
    type = site.floats()
    return type.with_noncausal(type.axes[site.index(-1)].size.vars)


def concat(site: Site) -> Type:
    left, right, index = site.floats(), site.floats("other"), site.index(-1)
    others = [_other_sizes(type, index) for type in (left, right)]
    if len(left.axes) != len(right.axes) or others[0] != others[1]:
        raise Mismatch(
            "shape-mismatch",
            "tensors to concatenate must have the same size on every other axis",
            "other",
            expected=str(left),
            found=str(right),
        )
    joined = left.axes[index].size + right.axes[index].size
    if site.ragged(joined):
        raise Mismatch(
            "axis",
            "a ragged axis cannot be concatenated: its length differs between examples",
            "axis",
            found=str(joined),
        )
    # Position i of a part moves to another index, so the result is not causal.
    noncausal = right.noncausal | joined.vars
    return _resized(left, index, joined, left.axes[index].marks).with_noncausal(noncausal)


def _other_sizes(type: Type, index: int) -> list[Size]:
    return [axis.size for i, axis in enumerate(type.axes) if i != index]


def slice_(site: Site) -> Type:
    index = site.index(-1)
    axis, start, stop = site.x.axes[index], site.attr["start"], site.attr["stop"]
    if axis.size.value is None:
        size = _size_from(axis, start, stop)
    else:
        end = axis.size.value if stop is None else stop
        if not start < end <= axis.size.value:
            raise Mismatch(
                "argument-value",
                f"positions {start} to {end} are not a range of an axis of size {axis.size}",
                "start" if stop is None else "stop",
                expected=f"0 <= start < stop <= {axis.size}",
                found=f"start = {start}, stop = {end}",
            )
        size = Size.of(end - start)
    return _resized(site.x, index, size, axis.marks[start:stop])


def _size_from(axis: Axis, start: int, stop: int | None) -> Size:
    """The size of a varying axis from position `start` on."""
    if stop is not None:
        raise Mismatch(
            "axis",
            f"the axis {axis.size} varies, so `slice` can only drop its first positions",
            "stop",
            expected="no `stop`",
            found=f"stop = {stop}",
        )
    least = axis.size.at(dict.fromkeys(axis.size.vars, 1))
    if start >= least:
        raise Mismatch(
            "argument-value",
            f"the axis {axis.size} can be too short to start at position {start}",
            "start",
            expected=f"0 <= start < {least}",
            found=f"start = {start}",
        )
    return axis.size - start


def _resized(type: Type, index: int, size: Size, marks: tuple[str, ...]) -> Type:
    """A type with another size and other marks of one axis."""
    axis = replace(type.axes[index], size=size, marks=marks, origin=None)
    return replace(type, axes=(*type.axes[:index], axis, *type.axes[index + 1 :]))
