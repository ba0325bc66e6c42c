"""The rules of elementwise operators of two tensors, whose axes are matched by name.

Tensors of the same shape are combined element by element. Otherwise the axes of one must be
among those of the other, and the smaller tensor is spread over the axes that it lacks. `along`
then has, for each axis of the smaller tensor, the index of its axis in the larger one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from archdsl.graph.signature import Mismatch, Site
from archdsl.graph.types import Axis, Type


def pair(site: Site) -> Type:
    """The type of an operator of two float tensors: that of the larger one."""
    return _matched(site, site.floats(), site.floats("other"))


def add(site: Site) -> Type:
    return _whole_or_float(site, lambda a, b: a + b)


def multiply(site: Site) -> Type:
    """The type of a product; a bool tensor keeps the numbers where it is true."""
    left, right = _both(site)
    if "bool" in (left.dtype, right.dtype):
        kept = right if left.dtype == "bool" else left
        found = _matched(site, left, right)
        return Type(kept.dtype, found.axes, kept.below, found.noncausal)
    return _whole_or_float(site, lambda a, b: a * b)


def _whole_or_float(site: Site, most: Callable[[int, int], int]) -> Type:
    """The type of an operator of two float tensors, or of two of whole numbers; `most` is the
    largest result for the largest numbers."""
    left, right = _both(site)
    if "bool" in (left.dtype, right.dtype):
        left, right = site.floats(), site.floats("other")
    found = _matched(site, left, right)
    if left.dtype == "float":
        return found
    bounded = left.below is not None and right.below is not None
    below = most(left.below - 1, right.below - 1) + 1 if bounded else None  # type: ignore[operator]
    return Type("int", found.axes, below, found.noncausal)


# The settings of `compare`, each with its sign.
COMPARISONS = {"equal": "==", "unequal": "!=", "less": "<"}
COMPARISONS |= {"at_most": "<=", "more": ">", "at_least": ">="}


def compare(site: Site) -> Type:
    """The bool type of a comparison with another tensor or with a number."""
    x, other, to = site.x, site.tensors.get("other"), site.attr["to"]
    if (other is None) == (to is None):
        raise Mismatch(
            "missing-argument" if to is None else "argument-value",
            "`compare` needs another tensor, `other`, or a number, `to`",
            None if to is None else "to",
        )
    if x.dtype == "bool" or (other is not None and other.dtype != x.dtype):
        raise Mismatch(
            "type-mismatch",
            "two tensors of whole numbers or two of floats can be compared"
            if other is not None
            else "only numbers can be compared",
            "x" if other is None else "other",
            found=str(x if other is None else other),
            expected=None if other is None else str(x),
        )
    equality = x.dtype == "int" and site.attr["kind"] in ("equal", "unequal")
    if equality and to is not None and (to % 1 or not 0 <= to < (x.below or to + 1)):
        raise Mismatch(
            "element-bound",
            f"no number here can be {to:g}",
            "to",
            expected=f"a whole number less than {x.below}" if x.below else "a whole number",
            found=str(x),
        )
    found = x if other is None else _matched(site, x, other)
    return Type("bool", found.axes, None, found.noncausal)


def _both(site: Site) -> tuple[Type, Type]:
    """Two types of whole numbers, two of floats, or one of bools and another one."""
    left, right = site.x, site.tensors["other"]
    if left.dtype == right.dtype == "int" or "bool" in (left.dtype, right.dtype):
        return left, right
    return site.floats(), site.floats("other")


def _matched(site: Site, left: Type, right: Type) -> Type:
    """The float type of the larger of two tensors that fit together."""
    along: tuple[int, ...] | None = site.attr.get("along")
    larger, smaller = (left, right) if is_larger(left, right) else (right, left)
    sizes = [axis.size for axis in larger.axes]
    if along is None:
        along = tuple(range(len(sizes)))
    fits = len(set(along)) == len(along) == len(smaller.axes)
    fits = fits and all(i < len(sizes) for i in along)
    if not fits or [sizes[i] for i in along] != [axis.size for axis in smaller.axes]:
        raise _mismatch("the axes of one tensor must be among those of the other", left, right)
    return larger.with_axes(larger.axes).with_noncausal(smaller.noncausal)


def is_larger(left: Type, right: Type) -> bool:
    """Whether the right tensor is spread over the axes of the left one."""
    return len(left.axes) >= len(right.axes)


def match_axes(site: Site) -> dict[str, Any]:
    """The setting `along`, from the names of axes; none for tensors of the same shape."""
    if "other" not in site.tensors:
        return {}
    left, right = _both(site)
    if site.attr.get("along") is not None or _shape(left) == _shape(right):
        return {}
    larger, smaller = (left, right) if is_larger(left, right) else (right, left)
    found: list[int] = []
    for axis in smaller.axes:
        found.append(_index(axis, larger, smaller, found, left, right))
    return {"along": tuple(found)}


def check_order(site: Site) -> None:
    """Rejects tensors of the same shape whose axes have the same names in another order."""
    if "other" not in site.tensors:
        return
    left, right = _both(site)
    names = [axis.name for axis in left.axes]
    if _shape(left) != _shape(right) or len(set(names)) < len(names):
        return
    for i, axis in enumerate(right.axes):
        if axis.name is not None and axis.name in names and names.index(axis.name) != i:
            raise _mismatch(
                f"the axis `{axis.name}` is at another place in each tensor",
                left,
                right,
                help=_reordered(left, right),
            )


def _shape(type: Type) -> list[object]:
    return [axis.size for axis in type.axes]


def _index(
    axis: Axis, larger: Type, smaller: Type, taken: list[int], left: Type, right: Type
) -> int:
    """The index, in the larger tensor, of an axis of the smaller one."""
    free = [i for i in range(len(larger.axes)) if i not in taken]
    named = [i for i in free if axis.name and larger.axes[i].name == axis.name]
    several = axis.name is not None and _count(axis, smaller) != _count(axis, larger)
    if named and not (len(named) > 1 and several):
        other = larger.axes[named[0]]
        if other.size == axis.size:
            return named[0]
        raise _mismatch(
            f"the axis `{axis.name}` has two sizes, {other.size} and {axis.size}",
            left,
            right,
            bound=(other, axis),
        )
    # An axis without a name is matched by its size.
    alike = [i for i in free if larger.axes[i].size == axis.size]
    open = named or [i for i in alike if axis.name is None or larger.axes[i].name is None]
    if len(open) == 1:
        return open[0]
    what = f"`{axis.name}`" if axis.name else f"of size {axis.size}"
    if open:
        raise _mismatch(
            f"the axis {what} can be each of {len(open)} axes",
            left,
            right,
            help="give these axes different names with `reshape`"
            if larger.axes[open[0]].name == axis.name
            else f"name its axis: {_renamed(axis, larger.axes[open[0]], smaller)}",
            bound=(axis,),
        )
    if alike:
        other = larger.axes[alike[0]]
        raise _mismatch(
            f"the axis {what} has the size of `{other.name}`, but another name",
            left,
            right,
            help=f"to use it as `{other.name}`, rename it: {_renamed(axis, other, smaller)}",
            bound=(other, axis),
        )
    if len(left.axes) == len(right.axes):
        pairs = zip(left.axes, right.axes, strict=True)
        bound: tuple[Axis, ...] = next(((a, b) for a, b in pairs if a.size != b.size), ())
        raise _mismatch("two tensors must have the same shape", left, right, bound=bound)
    raise _mismatch(
        f"the axis {what} is not among those of the other tensor",
        left,
        right,
        bound=(axis,),
    )


def _count(axis: Axis, type: Type) -> int:
    return sum(each.name == axis.name for each in type.axes)


def _renamed(axis: Axis, other: Axis, smaller: Type) -> str:
    """The step that gives an axis of a tensor the name of another."""
    names = [each.name or f"a{i}" for i, each in enumerate(smaller.axes)]
    place = next(i for i, each in enumerate(smaller.axes) if each is axis)
    names[place] = other.name if other.name and other.name not in names else f"{names[place]}_2"
    pattern = " ".join(names)
    return f'`-> reshape("{pattern} -> {pattern}")`'


def _reordered(left: Type, right: Type) -> str | None:
    """The step that puts the axes of the right tensor into the order of the left one."""
    names = [[axis.name for axis in type.axes] for type in (left, right)]
    if None in names[1] or set(names[0]) != set(names[1]):
        return "give the axes of one tensor other names with `reshape`"
    before, after = (" ".join(map(str, each)) for each in reversed(names))
    return f'reorder the second: `-> reshape("{before} -> {after}")`'


def _mismatch(
    message: str,
    left: Type,
    right: Type,
    help: str | None = None,
    bound: tuple[Axis, ...] = (),
) -> Mismatch:
    return Mismatch(
        "shape-mismatch",
        message,
        "other",
        expected=str(left),
        found=str(right),
        help=help,
        bound=bound,
    )
