"""Attention in parts: `scores`, `softmax` under a mask, and `mix`, with blocks in between.

In [H, T, S], the entry of query i and key j may depend on positions up to the later of the two.
The mask of `softmax` and of `mix` leaves for query i only the keys that it may see.
"""

from __future__ import annotations

from archdsl.graph import attention, shapes
from archdsl.graph.params import X, axis, mask, number, tensor
from archdsl.graph.signature import Kind, Mismatch, Op, Param, Site
from archdsl.graph.types import Axis, Size, Type


def _scores_defaults(site: Site) -> dict[str, float]:
    return (
        {"scale": attention.heads_of(site, "q")[2] ** -0.5}
        if site.attr["scale"] is None
        else {}
    )


def _scores(site: Site) -> Type:
    (queries, heads, _), (keys, kv_heads, _) = (attention.heads_of(site, name) for name in "qk")
    q, k = site.tensors["q"], site.tensors["k"]
    one_size = "queries and keys must have the same head size"
    before = q.axes[:-3]
    site.check_axes("k", one_size, (*before, *k.axes[-3:-1], q.axes[-1]))
    attention.check_groups(heads, kv_heads, "k", (q.axes[-2], k.axes[-2]))
    return q.with_axes((*before, q.axes[-2], queries, keys)).with_noncausal(k.noncausal)


def _scores_flops(site: Site) -> Size:
    (queries, heads, size), (keys, _, _) = (attention.heads_of(site, name) for name in "qk")
    several = attention.sequences(site.tensors["q"])
    return queries.size * keys.size * several * (2 * heads * size)


def _pairs(site: Site, param: str) -> tuple[Axis, Axis]:
    """The axes of queries and keys: the last two."""
    type = site.floats(param)
    if len(type.axes) < 2:
        raise Mismatch(
            "type-mismatch",
            "a score for each query and key is needed here",
            param,
            expected="float[H, T, S]",
            found=str(type),
        )
    return type.axes[-2], type.axes[-1]


def _softmax(site: Site) -> Type:
    sink = "sink" in site.tensors
    if site.attr["mask"] is None and not sink:
        return shapes.softmax(site)
    if site.index(-1) != len(site.x.axes) - 1:
        raise Mismatch(
            "axis",
            f"a {'sink' if sink else 'mask'} needs the softmax over the keys, the last axis",
            "axis",
            found=str(site.x),
        )
    queries, keys = _pairs(site, "x")
    before = site.x.axes[:-2]
    seen = site.x.with_noncausal(attention.noncausal_data(site, queries, keys, before))
    if sink:
        site.check_axes("sink", "there must be a sink for each head", before[-1:])
        seen = seen.with_noncausal(site.floats("sink").noncausal)
    return seen.with_noncausal(attention.noncausal_axes(site, queries, keys))


def _mix(site: Site) -> Type:
    queries, keys = _pairs(site, "x")
    x, (_, kv_heads, _) = site.x, attention.heads_of(site, "v")
    v = site.tensors["v"]
    heads = x.axes[-3].size.value if len(x.axes) >= 3 else None
    if heads is None:
        raise Mismatch(
            "type-mismatch",
            "a weight for each head, query and key is needed here",
            "x",
            expected="float[H, T, S]",
            found=str(x),
        )
    before = x.axes[:-3]
    site.check_axes("v", "there must be a value for each key", (*before, keys, *v.axes[-2:]))
    attention.check_groups(heads, kv_heads, "v", (x.axes[-3], v.axes[-2]))
    seen = x.with_axes((*before, queries, x.axes[-3], v.axes[-1])).with_noncausal(v.noncausal)
    seen = seen.with_noncausal(attention.noncausal_data(site, queries, keys, before))
    return seen.with_noncausal(attention.noncausal_axes(site, queries, keys))


def _mix_flops(site: Site) -> Size:
    return site.x.elements * _mix(site).axes[-1].size * 2


def _keys(site: Site) -> Size:
    """How many positions decoding caches, if queries and keys are those of one sequence."""
    name = "k" if "k" in site.tensors else "v"
    axes = site.tensors[name].axes
    return axes[0].size if len(axes) == 3 else Size.of(0)  # several sequences are not decoded


SCORES = (
    Op(
        "scores",
        (tensor("q"), tensor("k"), number("scale", None)),
        _scores,
        "The scores of attention, q k^T * `scale`: queries [T, H, h] and keys [S, K, h] give "
        "[H, T, S]. Each group of H / K query heads shares one head of keys. The default of "
        "`scale` is 1 / sqrt(h). Axes before T and S are those of separate sequences.",
        resolve_defaults=_scores_defaults,
        flops=_scores_flops,
        cached=("k",),
        cache_length=_keys,
        example="scores(q, k)",
    ),
    Op(
        "softmax",
        (X, axis(None), Param("mask", Kind.MASK, None), tensor("sink", None)),
        _softmax,
        "The softmax along an axis (default: the last). Padding of a ragged axis gets 0. With "
        "a [mask](language.md#masks) it is over the keys that a query sees, of scores […, T, "
        "S]; the others get 0. `sink` [H] joins the denominator for scores [H, T, S], as in "
        "`attend`.",
        positions=("past", "left_pad"),
        example="softmax",
    ),
    Op(
        "mix",
        (X, tensor("v"), *mask()),
        _mix,
        "The sums of the values [S, K, w] with the weights `x` [H, T, S] of attention: [T, H, "
        "w]. Padding, and keys that the [mask](language.md#masks) hides, have the weight 0.",
        write_out=attention.write_out,
        flops=_mix_flops,
        positions=("past", "left_pad"),
        cached=("v",),
        cache_length=_keys,
        example="mix(scores(q, k) -> softmax(mask = causal), v, causal)",
    ),
)
