"""The type and weight rules of positions, and of the operators that use them.

Only `positions` knows where a value is in its row. Other operators get positions as a tensor
`at`; without one, a decoding step gives them those of their own axis.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf

from archdsl.graph.signature import Mismatch, Site, Weight
from archdsl.graph.types import Axis, Size, Type


def positions(site: Site) -> Type:
    """int[T], less than the longest length. In a step only the new positions, T without the
    prefix that `size` may count."""
    axis = site.axis("size")
    most = site.bound(axis.size)
    if site.least(axis.size) < 1:
        raise Mismatch("axis", f"an axis of size `{axis.size}` can be empty", "size")
    if "past" in site.tensors:
        (name,) = axis.size.vars
        axis = Axis(name, Size.of(name))
    return Type("int", (replace(axis, marks=()),), most)


def renumber(site: Site) -> Type:
    """Whole numbers (`times` x + `plus`) // `by`, modulo `modulo`; none may be negative."""
    x, times, plus, modulo = site.whole(), *(site.attr[n] for n in ("times", "plus", "modulo"))
    last = None if x.below is None else plus + times * (x.below - 1)
    if min(plus, last or plus) < 0 or (last is None and times < 0):
        raise Mismatch(
            "element-bound",
            "the result can be a negative number, and no index is negative",
            "x",
            expected="0 or more for each value",
            found=str(x),
            help="write `n - p` with an n that no p exceeds: `13 - p` for p < 14",
        )
    if last is not None:
        last = max(plus, last) // site.attr["by"]
    if modulo is not None:
        last = modulo - 1 if last is None else min(last, modulo - 1)
    return Type("int", x.axes, None if last is None else last + 1, x.noncausal)


def check_at(site: Site, sequence: Axis, context: int | None = None) -> None:
    """Checks `at`, if it is given: a position, less than `context`, for each vector of `x`."""
    at = site.tensors.get("at")
    if at is None:
        return
    if at.dtype != "int" or [axis.size for axis in at.axes] != [sequence.size]:
        raise Mismatch(
            "type-mismatch",
            "`at` must have one position for each vector",
            "at",
            expected=str(Type("int", (sequence,))),
            found=str(at),
            bound=(sequence,),
        )
    if at.below is None or (context is not None and at.below > context):
        most = "any number" if at.below is None else f"as large as {at.below - 1}"
        raise Mismatch(
            "element-bound",
            f"a position can be {most}"
            + (f", but there are encodings for {context} positions" if context else ""),
            "at",
            expected="positions below a bound" if context is None else f"below {context}",
            found=str(at),
            bound=("context",),
        )


def sinusoid(site: Site) -> Type:
    x, dim, closed = site.x, site.attr["dim"], site.attr["closed"]
    if x.dtype == "bool":
        raise Mismatch("type-mismatch", "numbers are needed here", "x", found=str(x))
    if dim % 2 or (closed and dim < 4):
        raise Mismatch(
            "divisibility",
            f"sines and cosines need an even number of features, not {dim}"
            if dim % 2
            else "`closed` needs two frequencies or more",
            "dim",
            expected="an even size" + (" of 4 or more" if closed else ""),
            found=str(dim),
            bound=("dim",),
        )
    if not 1 < site.attr["theta"] < inf:
        raise Mismatch(
            "argument-value",
            "`theta` must be a finite number above 1",
            "theta",
            expected="a number above 1",
            found=str(site.attr["theta"]),
        )
    return x.with_axes((*x.axes, site.axis("dim")))


def posenc_defaults(site: Site) -> dict[str, int]:
    grid, sequence = site.attr["grid"], site.sequence()[0]
    found = {}
    if site.attr["context"] is None:
        at = site.tensors.get("at")
        check_at(site, sequence)
        longest = site.bound(sequence.size) if at is None or at.below is None else at.below
        found["context"] = longest if grid is None else grid**2 + len(sequence.marks)
    if grid is not None and site.attr["rows"] is None:
        found["rows"] = grid
    return found


def posenc(site: Site) -> Type:
    sequence, width = site.sequence()
    context, bound = site.attr["context"], site.bound(sequence.size)
    check_at(site, sequence, context)
    if site.attr["grid"] is not None:
        _check_grid(site, sequence)
    elif site.attr["rows"] is not None:
        raise Mismatch(
            "argument-value",
            "`rows` has an effect only with `grid`",
            "rows",
            help="leave it out, or write `grid = 14`, the rows of patches in training",
        )
    elif context < bound and "at" not in site.tensors:
        raise Mismatch(
            "shape-mismatch",
            f"there are encodings for {context} positions, but the sequence can have {bound}",
            "context",
            expected=f"{bound} or more",
            found=str(context),
            bound=("context", sequence),
        )
    if site.attr["kind"] == "sinusoidal" and width % 2:
        raise Mismatch(
            "divisibility",
            f"`sinusoidal` needs an even number of features, not {width}",
            "x",
            expected="an even size",
            found=str(site.x),
            bound=(site.x.axes[-1],),
        )
    if site.attr["kind"] == "learned" and site.attr["layout"] != "pairs":
        raise Mismatch(
            "argument-value",
            "`layout` has an effect only with `sinusoidal`",
            "layout",
            help="leave it out, or write `sinusoidal`",
        )
    return site.x


def _check_grid(site: Site, sequence: Axis) -> None:
    """Rejects a sequence that is not `rows` rows of patches after the prepended positions."""
    grid, rows, context = (site.attr[name] for name in ("grid", "rows", "context"))
    before, length = len(sequence.marks), sequence.size.value
    if "at" in site.tensors:
        raise Mismatch("argument-value", "a `grid` has its own positions", "at")
    if site.attr["kind"] != "learned":
        raise Mismatch("argument-value", "only `learned` positions have a `grid`", "grid")
    if length is None or (length - before) % rows:
        raise Mismatch(
            "divisibility",
            f"the patches of an image are needed here, in {rows} rows",
            "rows",
            expected=f"{before} + a multiple of {rows} positions" if before else None,
            found=str(site.x),
            bound=("rows", sequence),
        )
    if context != grid**2 + before:
        raise Mismatch(
            "shape-mismatch",
            f"a grid of {grid} x {grid} patches has {grid**2 + before} positions",
            "context",
            expected=str(grid**2 + before),
            found=str(context),
            bound=("context", "grid"),
        )


def posenc_weights(site: Site) -> tuple[Weight, ...]:
    if site.attr["kind"] == "sinusoidal":
        return ()
    return (Weight("weight", (site.attr["context"], site.width), "embedding"),)


# -- biases of attention scores --


def alibi(site: Site) -> Type:
    """[heads, T, T] for the sequence axis T of `x`; in a step [heads, T, C], where C are the
    positions of the cache."""
    sequence, _ = site.sequence()
    cached = site.tensors.get("cache_positions")
    keys = cached.axes[0] if cached else sequence
    return site.x.with_axes((site.axis("heads"), sequence, keys))


def relative_bias(site: Site) -> Type:
    buckets, distance = site.attr["buckets"], site.attr["distance"]
    sides = 1 if site.attr["causal"] else 2
    if buckets % (2 * sides):
        raise Mismatch(
            "divisibility",
            "on each side, half of the buckets hold one distance each",
            "buckets",
            expected=f"a multiple of {2 * sides}",
            found=str(buckets),
            bound=("buckets",),
        )
    exact = buckets // sides // 2
    if distance <= exact:
        raise Mismatch(
            "argument-value",
            f"`distance` must be larger than {exact}: the distances below have a bucket each",
            "distance",
            expected=f"more than {exact}",
            found=str(distance),
            bound=("buckets", "distance"),
        )
    return alibi(site)


def relative_bias_weights(site: Site) -> tuple[Weight, ...]:
    return (Weight("weight", (site.attr["buckets"], site.attr["heads"]), "embedding"),)


# -- a step of decoding --


def prefixed(site: Site) -> Type:
    return site.x.with_noncausal(site.tensors["prefix"].noncausal)


def append(site: Site) -> Type:
    cache, new = site.x, site.tensors["new"]
    _check_vectors(cache, new)
    return cache.with_noncausal(new.noncausal)


def extend(site: Site) -> Type:
    tail, new = site.x, site.tensors["new"]
    _check_vectors(tail, new)
    longer = replace(new.axes[0], size=new.axes[0].size + tail.axes[0].size, marks=())
    return replace(new, axes=(longer, *new.axes[1:]))


def store(site: Site) -> Type:
    state, new = site.x, site.tensors["new"]
    _check_vectors(state, new)
    return state.with_noncausal(new.noncausal)


def _check_vectors(kept: Type, new: Type) -> None:
    if [a.size for a in kept.axes[1:]] != [a.size for a in new.axes[1:]]:
        raise Mismatch(
            "shape-mismatch",
            "the new vectors and the cached ones must have the same shape",
            "new",
            expected=str(kept),
            found=str(new),
        )


def valid(site: Site) -> Type:
    return Type("bool", site.x.axes[:1], None, site.x.noncausal)


def begin(site: Site) -> Type:
    return site.x


def length(site: Site) -> Type:
    return Type("int", (), None, site.x.noncausal)
