"""The type and weight rules of operators that use positions."""

from __future__ import annotations

from dataclasses import replace

from archdsl.graph.signature import Mismatch, Site, Weight
from archdsl.graph.types import Axis, Type


def posenc_defaults(site: Site) -> dict[str, int]:
    grid, sequence = site.attr["grid"], site.sequence()[0]
    found = {}
    if site.attr["context"] is None:
        longest = site.bound(sequence.size)
        found["context"] = longest if grid is None else grid**2 + len(sequence.marks)
    if grid is not None and site.attr["rows"] is None:
        found["rows"] = grid
    return found


def posenc(site: Site) -> Type:
    sequence, width = site.sequence()
    context, bound = site.attr["context"], site.bound(sequence.size)
    if site.attr["grid"] is not None:
        _check_grid(site, sequence)
    elif site.attr["rows"] is not None:
        raise Mismatch(
            "argument-value",
            "`rows` has an effect only with `grid`",
            "rows",
            help="leave it out, or write `grid = 14`, the rows of patches in training",
        )
    elif context < bound:
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


def positions(site: Site) -> Type:
    return Type("int", site.x.axes[:1], None, site.x.noncausal)


def shift(site: Site) -> Type:
    return site.x


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


def length(site: Site) -> Type:
    return Type("int", (), None, site.x.noncausal)
