"""The type rules of operators that change a tensor's axes, except `reshape`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from archdsl.diagnostics import did_you_mean, listing
from archdsl.graph.elementwise import match_axes
from archdsl.graph.signature import Mismatch, Site
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
    stride, padding = site.attr["stride"], site.attr["padding"]
    if stride is None and ((height + 2 * padding) % patch or (width + 2 * padding) % patch):
        uneven = image.axes[1 if (height + 2 * padding) % patch else 2]
        raise Mismatch(
            "divisibility",
            f"an image of {height} x {width} cannot be cut into patches of {patch} x {patch}",
            "patch",
            expected=f"a divisor of {uneven.size + 2 * padding}",
            found=str(patch),
            bound=("patch", uneven),
        )
    if min(height, width) + 2 * padding < patch:
        raise Mismatch(
            "shape-mismatch",
            f"a patch of {patch} x {patch} is larger than the image of {height} x {width}",
            "patch",
            found=str(patch),
            bound=("patch", "padding"),
        )
    step = patch if stride is None else stride
    down, across = ((n + 2 * padding - patch) // step + 1 for n in (height, width))
    features = channels * patch * patch
    return image.with_axes((Axis("M", Size.of(down * across)), Axis(None, Size.of(features))))


# -- named positions --


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
    return _selected(site.x, 0, sequence.marks.index(mark))


def last(site: Site) -> Type:
    """The type of `x` with an axis of size 1. It stays causal: this is the last position."""
    index = site.index(0)
    axes = list(site.x.axes)
    axes[index] = Axis(None, Size.of(1))
    return replace(site.x, axes=tuple(axes))


def at(site: Site) -> Type:
    tokens, token = site.tensors["tokens"], site.attr.get("token")
    found = _at_tokens(site, tokens)
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
    tokens = site.tensors.get("tokens")
    if tokens is not None:
        return _at_tokens(site, tokens)
    if site.attr.get("padding") is not None:
        raise Mismatch(
            "missing-argument",
            "the padding is a number of `tokens`, which are missing",
            "padding",
            help="write `at_end(tokens, 0)`",
        )
    return _without(site.x, 0, sequence)


def _at_tokens(site: Site, tokens: Type) -> Type:
    """A vector at a position that `tokens` decide."""
    sequence, _ = site.sequence()
    if tokens.dtype != "int" or [axis.size for axis in tokens.axes] != [sequence.size]:
        raise Mismatch(
            "type-mismatch",
            "`tokens` must have one token for each position",
            "tokens",
            expected=str(Type("int", (sequence,))),
            found=str(tokens),
            bound=(sequence,),
        )
    return _without(site.x, 0, sequence).with_noncausal(tokens.noncausal)


def _selected(type: Type, index: int, position: int) -> Type:
    """A type with only one position of an axis."""
    axis = type.axes[index]
    axes = (*type.axes[:index], *type.axes[index + 1 :])
    return replace(type, axes=axes).with_noncausal(_seen(axis, position))


def _seen(axis: Axis, position: int) -> frozenset[str]:
    """The varying axes that a causal value depends on at a position.

    On an axis of size T + c, the first c positions depend on no position of T.
    """
    constant = axis.size.at(dict.fromkeys(axis.size.vars, 0))
    return axis.size.vars if position >= constant else frozenset()


def _without(type: Type, index: int, axis: Axis) -> Type:
    """A type without one axis; the result is not causal along it."""
    axes = (*type.axes[:index], *type.axes[index + 1 :])
    return type.with_axes(axes).with_noncausal(axis.size.vars)


# -- any axis --


def _counted(site: Site) -> Type:
    """The float type of `x`; a bool tensor counts as 1 where it is true, else as 0."""
    return replace(site.x, dtype="float") if site.x.dtype == "bool" else site.floats()


def mean(site: Site) -> Type:
    type = _counted(site)
    index = site.index(max(len(type.axes) - 2, 0))
    return _without(type, index, type.axes[index])


def sum_(site: Site) -> Type:
    """The sum along an axis; that of bools is how many are true, a whole number."""
    index = site.index(-1)
    axis = site.x.axes[index]
    if site.x.dtype == "bool":
        found = _without(site.x, index, axis)
        return replace(found, dtype="int", below=site.bound(axis.size) + 1)
    return _without(site.floats(), index, axis)


def max_(site: Site) -> Type:
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


def concat_defaults(site: Site) -> dict[str, Any]:
    """The setting `along`: the places of the other axes of a tensor that lacks some."""
    left, right = site.x, site.tensors["other"]
    if site.attr["axis"] is not None or len(left.axes) == len(right.axes):
        return {}
    if site.attr.get("along") is not None or not left.axes or not right.axes:
        return {}
    if any(type.axes[-1].size.value is None for type in (left, right)):
        return {}
    short = {p: Type("float", type.axes[:-1]) for p, type in site.tensors.items()}
    return match_axes(Site(short, {}, site.varying, {}))


def concat(site: Site) -> Type:
    left, right = site.x, site.tensors["other"]
    if left.dtype == right.dtype == "int":
        bounded = left.below is not None and right.below is not None
        below = max(left.below, right.below) if bounded else None  # type: ignore[type-var]
        left, right = replace(left, below=below), replace(right, below=below)
    else:
        left, right = site.floats(), site.floats("other")
    if (along := site.attr.get("along")) is not None:
        left, right = _spread(left, right, along), _spread(right, left, along)
    site = Site({"x": left, "other": right}, site.attr, site.varying, site.named)
    index = site.index(-1)
    others = [_other_sizes(type, index) for type in (left, right)]
    if len(left.axes) != len(right.axes) or others[0] != others[1]:
        raise Mismatch(
            "shape-mismatch",
            "tensors to concatenate must have the same size on every other axis",
            "other",
            expected=str(left),
            found=str(right),
        )
    front, behind = left.axes[index], right.axes[index]
    joined = front.size + behind.size
    prefix = front.size.value
    marks = _marks(front, behind, site.attr.get("name"))
    if prefix is None and site.ragged(joined):
        raise Mismatch(
            "axis",
            "a ragged axis cannot be concatenated: its length differs between examples",
            "axis",
            found=str(joined),
        )
    if prefix is None:
        # Position i of the other part moves to another index, so the result is not causal.
        found = _resized(left, index, joined, front.marks)
        return found.with_noncausal(right.noncausal | joined.vars)
    unnamed = ("_",) * (prefix - len(marks)) if behind.marks else ()
    later = ("_" if mark in marks else mark for mark in behind.marks)
    name = behind.name if joined.vars or front.name is None else front.name
    axes = list(_resized(left, index, joined, (*marks, *unnamed, *later)).axes)
    axes[index] = replace(axes[index], name=name)
    return replace(left, axes=tuple(axes)).with_noncausal(right.noncausal)


def _marks(front: Axis, behind: Axis, name: str | None) -> tuple[str, ...]:
    """The names of the positions in front, of which `name` is a new one."""
    if name is None:
        return front.marks
    if front.size.value != 1:
        raise Mismatch(
            "axis",
            "only a prefix of one position can have a name",
            "name",
            expected="a tensor of size 1 along this axis in front",
            found=str(front),
        )
    if front.marks or name in behind.marks:
        what = f"`{name}`" if name in behind.marks else listing(front.marks, "and")
        raise Mismatch("duplicate-name", f"a position here is already named {what}", "name")
    return (name,)


def _spread(type: Type, other: Type, along: tuple[int, ...]) -> Type:
    """A tensor with the axes of the other one that it lacks, before its last one."""
    if len(type.axes) >= len(other.axes):
        return type
    own = [axis.size for axis in type.axes[:-1]]
    if [other.axes[i].size for i in along if i < len(other.axes) - 1] != own:
        raise Mismatch(
            "shape-mismatch",
            "the axes of one tensor must be among those of the other",
            "other",
            expected=str(other),
            found=str(type),
        )
    return replace(type, axes=(*other.axes[:-1], type.axes[-1]))


def _other_sizes(type: Type, index: int) -> list[Size]:
    return [axis.size for i, axis in enumerate(type.axes) if i != index]


def delay(site: Site) -> Type:
    if not site.x.axes:
        raise Mismatch("axis", "a single number has no axes", "x", found=str(site.x))
    sequence, by = site.x.axes[0], site.attr["by"]
    size = sequence.size if site.attr["padded"] else sequence.size - by
    if site.least(size) < 1:
        raise Mismatch(
            "axis",
            f"the axis {sequence.size} has no position that is {by} before another",
            "by",
            expected="`padded`, or a longer axis",
            found=str(site.x),
            bound=("by", sequence),
        )
    # A position that depends on earlier ones stays causal.
    return _resized(site.x, 0, size, ())


def delay_tail(site: Site) -> int:
    by: int = site.attr["by"]
    return by if site.attr["padded"] else 0


def slice_(site: Site) -> Type:
    index = site.index(-1)
    axis, start, stop = site.x.axes[index], site.attr["start"], site.attr["stop"]
    if axis.size.value is None:
        size, seen = _size_from(site, axis, start, stop)
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
        size, seen = Size.of(end - start), frozenset()
    return _resized(site.x, index, size, axis.marks[start:stop]).with_noncausal(seen)


def _size_from(
    site: Site, axis: Axis, start: int, stop: int | None
) -> tuple[Size, frozenset[str]]:
    """The size of a varying axis from position `start` on, and the axes on which the result is
    not causal."""
    least = site.least(axis.size)
    if stop is not None:
        if not start < stop <= least:
            raise Mismatch(
                "axis",
                f"the axis {axis.size} varies and can have {least} positions",
                "stop",
                expected=f"0 <= start < stop <= {least}, or no `stop`",
                found=f"start = {start}, stop = {stop}",
            )
        return Size.of(stop - start), _seen(axis, stop - 1)
    if start >= least:
        raise Mismatch(
            "argument-value",
            f"the axis {axis.size} can be too short to start at position {start}",
            "start",
            expected=f"0 <= start < {least}",
            found=f"start = {start}",
        )
    return axis.size - start, frozenset()


def _resized(type: Type, index: int, size: Size, marks: tuple[str, ...]) -> Type:
    """A type with another size and other marks of one axis."""
    axis = replace(type.axes[index], size=size, marks=marks, origin=None)
    return replace(type, axes=(*type.axes[:index], axis, *type.axes[index + 1 :]))
