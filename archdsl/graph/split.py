"""`split`, which gives several values: a `slice` for each part of an axis."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from archdsl.graph.params import X
from archdsl.graph.signature import Kind, Mismatch, Op, Param, Site
from archdsl.graph.types import Axis, Size, Type


def _no_type(site: Site) -> Type:
    raise NotImplementedError("`split` has several results")


# No row of the table: only its slices are in a graph.
SPLIT = Op(
    "split",
    (
        X,
        Param("sizes", Kind.SIZES, ()),
        Param("parts", Kind.NAMED_SIZES, ()),
        Param("axis", Kind.AXIS, None),
    ),
    _no_type,
    "Splits the last axis, or another, into equal parts, or into parts of given sizes.",
    example="split(3)",
)


def ranges(site: Site) -> Sequence[tuple[int, int, str | None]]:
    """The start, the stop and the name of each part; raises `Mismatch` if they do not fit."""
    axis = site.x.axes[site.index(-1)]
    whole = axis.size.value
    if whole is None:
        raise Mismatch(
            "axis",
            f"the axis {axis} varies, so it has no parts of fixed size",
            "axis" if site.attr["axis"] is not None else "x",
            found=str(site.x),
        )
    sizes, named = site.attr["sizes"], site.attr["parts"]
    if sizes and named:
        what = "`split` takes a number of parts, sizes, or sizes with names"
        raise Mismatch("argument-value", what, "parts", expected="split(q = D, k = 64, v = 64)")
    if named:
        names, sizes = [name for name, _ in named], [size for _, size in named]
    elif len(sizes) == 1:
        (count,) = sizes
        if count < 2 or whole % count:
            raise Mismatch(
                "divisibility",
                f"{axis} cannot be divided into {count} parts",
                "sizes",
                expected=f"a divisor of {whole}",
                bound=("sizes", axis),
            )
        names, sizes = [None] * count, [whole // count] * count
    else:
        names = [None] * len(sizes)
    if len(sizes) < 2 or sum(sizes) != whole:
        raise Mismatch(
            "shape-mismatch",
            "the sizes of the parts do not add up to the axis",
            "parts" if named else "sizes",
            expected=f"two or more sizes with the sum {axis}",
            found=" + ".join(map(str, sizes)) or "no size",
            bound=(axis,),
        )
    ends = pairwise(accumulate(sizes, initial=0))
    return [(start, stop, name) for (start, stop), name in zip(ends, names, strict=True)]


def with_name(type: Type, index: int, name: str | None) -> Type:
    """A part's type, with the name of the part for its axis."""
    axes = list(type.axes)
    axes[index] = Axis(name, Size.of(axes[index].size), axes[index].marks, axes[index].origin)
    return Type(type.dtype, tuple(axes), type.below, type.noncausal)
