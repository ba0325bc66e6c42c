"""The type, weight and cost rules of attention (Vaswani et al. 2017, section 3.2).

`attention` includes the projections: the queries come from [T, D], the keys and values from the
same tensor or from a memory [S, E]. There are `H` query heads of size `h` and `K` heads of keys
and values, each shared by `H / K` query heads. `attend` is the core without projections:
queries [T, H, h], keys [S, K, h] and values [S, K, w]. Axes before these are those of separate
sequences, such as the windows of an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from archdsl.diagnostics import listing
from archdsl.graph import masks
from archdsl.graph.masks import Mask
from archdsl.graph.products import affine
from archdsl.graph.signature import Mismatch, Site, Weight
from archdsl.graph.types import Axis, Size, Type

# Decoding keeps what keys and values are linear in if they have this many times its numbers
# (latents.py); attention to the smaller vectors computes more.
LEAST_SAVING = 4


def _memory(site: Site) -> str:
    """The parameter whose tensor the keys and values are computed from."""
    return "over" if "over" in site.tensors else "x"


def _inner(site: Site) -> tuple[int, int]:
    """The number of query features and of key features per position: H h and K h."""
    size: int = site.attr["head_size"]
    return site.attr["heads"] * size, site.attr["kv_heads"] * size


def write_out(attr: Mapping[str, Any]) -> dict[str, str | None]:
    """The mask of the short forms `causal` and `window`, and of `mask`."""
    window = attr.get("window")
    mask = masks.both(
        masks.CAUSAL if attr["causal"] else masks.EVERYTHING,
        masks.EVERYTHING if window is None else Mask("within", (window,)),
        masks.parse(attr["mask"]),
    )
    if window is not None and masks.ahead(mask) != 0:
        raise Mismatch(
            "argument-value",
            "`window` needs causal attention",
            "window",
            help="add `causal`, or write `mask = within(n)` for a window on both sides",
        )
    return {"mask": masks.text(mask)}


def _mask(site: Site) -> Mask:
    return masks.parse(site.attr["mask"])


def vectors_of(site: Site, param: str = "x") -> tuple[Axis, int]:
    """The sequence axis and the number of features of a tensor, which must be […, T, D]."""
    type = site.tensors[param]
    if min(len(type.axes), len(site.x.axes)) <= 2:
        return site.sequence(param)
    own = {param: type.with_axes(type.axes[-2:])}
    return Site(own, site.attr, site.varying, site.named).sequence(param)


def defaults(site: Site) -> dict[str, int | float | bool]:
    _, width = vectors_of(site)
    heads, size = site.attr["heads"], site.attr["head_size"]
    if size is None:
        if width % heads:
            raise Mismatch(
                "divisibility",
                f"D = {width} cannot be divided into {heads} heads",
                "heads",
                expected=f"a divisor of {width}",
                found=str(heads),
                help=_divisors(width, heads),
                bound=("heads", site.x.axes[-1]),
            )
        size = width // heads
    derived = {
        "kv_heads": heads,
        "head_size": size,
        "scale": size**-0.5,
        "out_bias": site.attr["bias"],
    }
    return {name: value for name, value in derived.items() if site.attr[name] is None}


_MANY = 1024  # no model has more heads


def _divisors(width: int, heads: int) -> str:
    divisors = (d for d in range(1, min(width, _MANY) + 1) if width % d == 0)
    near = sorted(divisors, key=lambda d: abs(d - heads))[:2]
    return f"{width} divides into {listing(map(str, sorted(near)))} heads"


def attention(site: Site) -> Type:
    (queries, _), (keys, _) = vectors_of(site), vectors_of(site, _memory(site))
    heads, kv_heads = site.attr["heads"], site.attr["kv_heads"]
    check_groups(heads, kv_heads, "kv_heads", ("heads", "kv_heads"))
    before = site.x.axes[:-2]
    own = site.tensors[_memory(site)].axes[-2:]
    site.check_axes(_memory(site), "there must be a memory for each sequence", (*before, *own))
    seen = site.x.with_noncausal(site.tensors[_memory(site)].noncausal)
    seen = seen.with_noncausal(noncausal_axes(site, queries, keys))
    return seen.with_noncausal(noncausal_data(site, queries, keys, before))


def check_groups(heads: int, kv_heads: int, at: str, bound: tuple[str | Axis, ...]) -> None:
    if heads % kv_heads:
        raise Mismatch(
            "divisibility",
            f"{heads} heads cannot share {kv_heads} key and value heads evenly",
            at,
            expected=f"a divisor of {heads}",
            found=str(kv_heads),
            bound=bound,
        )


def noncausal_axes(site: Site, queries: Axis, keys: Axis) -> frozenset[str]:
    """The axes along which a query may use any position."""
    mask = _mask(site)
    if "past" in site.tensors:  # a step, whose keys are the whole cache
        return frozenset()
    if keys.size != queries.size and masks.RELATIVE & {atom.op for atom in masks.atoms(mask)}:
        causal = site.attr["mask"] == "causal"
        raise Mismatch(
            "axis",
            "causal attention needs queries and keys along the same axis"
            if causal
            else f"the mask `{mask}` needs queries and keys along the same axis",
            "causal" if causal else "mask",
            expected=f"a memory of size {queries.size}",
            found=f"size {keys.size}",
            bound=(queries, keys),
        )
    same = keys.size == queries.size
    return frozenset() if same and masks.ahead(mask, _front(keys)) == 0 else keys.size.vars


def _front(axis: Axis) -> int:
    """How many positions of an axis stand before those of the input: c in T + c."""
    names = tuple(axis.size.vars)
    rest = (axis.size - Size.of(names[0])).value if len(names) == 1 else None
    return max(rest or 0, 0)


def has_own(type: Type, before: tuple[Axis, ...], wanted: tuple[Axis, ...]) -> bool:
    """Whether a tensor has these axes, for all sequences or for each of the first of the axes
    `before` them."""
    lead = len(type.axes) - len(wanted)
    sizes = [axis.size for axis in (*before[: max(lead, 0)], *wanted)]
    return [axis.size for axis in type.axes] == sizes


def _check_data(site: Site, queries: Axis, keys: Axis, before: tuple[Axis, ...]) -> None:
    """Raises `Mismatch` if a tensor of the mask does not fit."""
    for atom in masks.atoms(_mask(site)):
        for role, name in zip(masks.DATA.get(atom.op, ()), atom.args, strict=False):
            type = site.tensors[str(name)]
            wanted = {"row": (queries,), "column": (keys,), "pair": (queries, keys)}[role]
            dtype = "int" if atom.op == "same" else "bool"
            if type.dtype != dtype or not has_own(type, before, wanted):
                raise Mismatch(
                    "shape-mismatch" if type.dtype == dtype else "type-mismatch",
                    f"a tensor of `{atom.op}` does not fit the queries and keys",
                    "mask",
                    expected=str(Type(dtype, wanted)),
                    found=str(type),
                )


def noncausal_data(
    site: Site, queries: Axis, keys: Axis, before: tuple[Axis, ...] = ()
) -> frozenset[str]:
    """The axes along which the tensors of the mask are not causal."""
    _check_data(site, queries, keys, before)
    names = masks.inputs(_mask(site))
    return frozenset().union(*(site.tensors[name].noncausal for name in names))


def _keys_of_a_query(site: Site, keys: Axis) -> Size:
    """How many keys a query sees, as a formula."""
    seen = masks.span(_mask(site))
    return keys.size if seen is None or seen >= site.bound(keys.size) else Size.of(seen)


def weights(site: Site) -> tuple[Weight, ...]:
    (_, width), (_, features) = vectors_of(site), vectors_of(site, _memory(site))
    (inner, kv), bias = _inner(site), site.attr["bias"]
    return (
        *affine("q.", inner, width, bias),
        *affine("k.", kv, features, bias),
        *affine("v.", kv, features, bias),
        *affine("out.", width, inner, site.attr["out_bias"]),
    )


def flops(site: Site) -> Size:
    (queries, width), (keys, features) = vectors_of(site), vectors_of(site, _memory(site))
    inner, kv = _inner(site)
    projections = queries.size * (2 * 2 * width * inner) + keys.size * (2 * 2 * features * kv)
    one = projections + queries.size * _keys_of_a_query(site, keys) * (2 * 2 * inner)
    return one * sequences(site.x, 2)


def scratch(site: Site) -> Size:
    """Elements of queries, keys, values, scores, and the softmax of the scores."""
    (queries, _), (keys, _) = vectors_of(site), vectors_of(site, _memory(site))
    inner, kv = _inner(site)
    heads: int = site.attr["heads"]
    scores = queries.size * _keys_of_a_query(site, keys) * (2 * heads)
    return (queries.size * inner + keys.size * (2 * kv) + scores) * sequences(site.x, 2)


def cache(site: Site) -> Size:
    """Elements of the cached keys and values: causal ones and those of a memory."""
    (queries, width), (keys, _) = vectors_of(site), vectors_of(site, _memory(site))
    if len(site.x.axes) > 2:
        return Size.of(0)  # several sequences are not decoded
    length, (inner, kv) = _cached_positions(site, queries, keys), _inner(site)
    linear = not site.attr["bias"] and inner == kv and masks.ahead(_mask(site)) == 0
    return length * (width if linear and 2 * kv >= LEAST_SAVING * width else 2 * kv)


def _cached_positions(site: Site, queries: Axis, keys: Axis) -> Size:
    """How many positions decoding caches: what causal attention sees, or another sequence.

    A fixed number of queries is no sequence of tokens: it is computed once.
    """
    mask = _mask(site)
    if not queries.size.vars:
        return Size.of(0)
    if "over" not in site.tensors and masks.ahead(mask, _front(keys)) != 0:
        return Size.of(0)
    window = _window(site, keys)
    return keys.size if window is None else Size.of(window)


def _window(site: Site, keys: Axis) -> int | None:
    """How many of the last positions a query may see; None if any."""
    before = masks.behind(_mask(site))
    return None if before is None or before + 1 >= site.bound(keys.size) else before + 1


# -- the core without projections --


def attend_defaults(site: Site) -> dict[str, float]:
    return {"scale": heads_of(site, "q")[2] ** -0.5} if site.attr["scale"] is None else {}


def heads_of(site: Site, param: str) -> tuple[Axis, int, int]:
    """The sequence axis of a tensor, its number of heads, and the head size."""
    type = site.floats(param)
    several = len(type.axes) >= 3
    heads, size = [a.size.value for a in type.axes[-2:]] if several else (None, None)
    if heads is None or size is None:
        raise Mismatch(
            "type-mismatch",
            "a sequence of heads is needed here",
            param,
            expected="float[T, H, h]: any sequence axis, then fixed sizes H and h",
            found=str(type),
            help='split features into heads with `reshape("T (H h) -> T H h", H = heads)`'
            if len(type.axes) == 2
            else None,
        )
    return type.axes[-3], heads, size


def is_of_several(param: str, type: Type) -> bool:
    """Whether a tensor of attention has axes of separate sequences."""
    own = {"q": 3, "k": 3, "v": 3} | masks.OWN_AXES
    return len(type.axes) > own.get(param.partition("_")[0], len(type.axes))


def sequences(type: Type, own: int = 3) -> Size:
    """The number of separate sequences: the product of the axes before its `own` axes."""
    return prod((axis.size for axis in type.axes[:-own]), start=Size.of(1))


def attend(site: Site) -> Type:
    (queries, heads, _), (keys, kv_heads, _), _ = (heads_of(site, name) for name in "qkv")
    q, k, v = (site.tensors[name] for name in "qkv")
    one_size = "queries and keys must have the same head size"
    before = q.axes[:-3]
    site.check_axes("k", one_size, (*before, *k.axes[-3:-1], q.axes[-1]))
    site.check_axes("v", "there must be a value for each key", (*k.axes[:-1], v.axes[-1]))
    check_groups(heads, kv_heads, "k", (q.axes[-2], k.axes[-2]))
    seen = q.with_axes((*q.axes[:-1], v.axes[-1])).with_noncausal(k.noncausal | v.noncausal)
    if "bias" in site.tensors:
        each_score, bias = "there must be a bias for each score", (q.axes[-2], queries, keys)
        if not has_own(site.tensors["bias"], before, bias):
            site.check_axes("bias", each_score, bias)
        seen = seen.with_noncausal(site.floats("bias").noncausal)
    if "sink" in site.tensors:
        site.check_axes("sink", "there must be a sink for each head", (q.axes[-2],))
        seen = seen.with_noncausal(site.floats("sink").noncausal)
    seen = seen.with_noncausal(noncausal_data(site, queries, keys, before))
    return seen.with_noncausal(noncausal_axes(site, queries, keys))


def _queries(site: Site) -> tuple[Size, int, int]:
    """The number of queries of all sequences, of heads, and the head size."""
    queries, heads, size = heads_of(site, "q")
    return queries.size * sequences(site.tensors["q"]), heads, size


def attend_flops(site: Site) -> Size:
    queries, heads, size = _queries(site)
    keys, _, value = heads_of(site, "v")
    return queries * _keys_of_a_query(site, keys) * (2 * heads * (size + value))


def attend_scratch(site: Site) -> Size:
    """Elements of the scores and of their softmax."""
    queries, heads, _ = _queries(site)
    return queries * _keys_of_a_query(site, heads_of(site, "k")[0]) * (2 * heads)


def attend_window(site: Site) -> int | None:
    """How many of the last positions a query sees; None if it sees all."""
    # A bias, and data of the mask, have a value for each position of the whole cache.
    tables = "bias" in site.tensors or any(
        atom.op in masks.DATA for atom in masks.atoms(_mask(site))
    )
    return None if tables else _window(site, site.tensors["k"].axes[-3])


def attend_cache_length(site: Site) -> Size:
    """How many positions of keys and values decoding caches: those that causal attention sees,
    and those of another sequence."""
    queries, keys = (site.tensors[name].axes[-3] for name in "qk")
    if len(site.tensors["k"].axes) > 3 or not queries.size.vars:
        return Size.of(0)  # several sequences, or a fixed number of queries, are not decoded
    mask = _mask(site)
    if keys.size == queries.size and masks.ahead(mask, _front(keys)) != 0:
        return Size.of(0)
    window = attend_window(site)
    return keys.size if window is None else Size.of(window)
