"""The type, weight and cost rules of attention (Vaswani et al. 2017, section 3.2).

`attention` includes the projections: the queries come from [T, D], the keys and values from the
same tensor or from a memory [S, E]. There are `H` query heads of size `h` and `K` heads of keys
and values, each shared by `H / K` query heads. `attend` is the core without projections:
queries [T, H, h], keys [S, K, h] and values [S, K, w].
"""

from __future__ import annotations

from archdsl.diagnostics import listing
from archdsl.graph.products import affine
from archdsl.graph.signature import Mismatch, Site, Weight
from archdsl.graph.types import Axis, Size, Type


def _memory(site: Site) -> str:
    """The parameter whose tensor the keys and values are computed from."""
    return "over" if "over" in site.tensors else "x"


def _inner(site: Site) -> tuple[int, int]:
    """The number of query features and of key features per position: H h and K h."""
    size: int = site.attr["head_size"]
    return site.attr["heads"] * size, site.attr["kv_heads"] * size


def defaults(site: Site) -> dict[str, int | float | bool]:
    _, width = site.sequence()
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
    (queries, _), (keys, _) = site.sequence(), site.sequence(_memory(site))
    heads, kv_heads = site.attr["heads"], site.attr["kv_heads"]
    _check_groups(heads, kv_heads, "kv_heads", ("heads", "kv_heads"))
    seen = site.x.with_noncausal(site.tensors[_memory(site)].noncausal)
    return seen.with_noncausal(_noncausal_axes(site, queries, keys))


def _check_groups(heads: int, kv_heads: int, at: str, bound: tuple[str | Axis, ...]) -> None:
    if heads % kv_heads:
        raise Mismatch(
            "divisibility",
            f"{heads} heads cannot share {kv_heads} key and value heads evenly",
            at,
            expected=f"a divisor of {heads}",
            found=str(kv_heads),
            bound=bound,
        )


def _noncausal_axes(site: Site, queries: Axis, keys: Axis) -> frozenset[str]:
    """The axes along which a query may use any position."""
    if not site.attr["causal"]:
        return keys.size.vars
    if "past" in site.tensors:  # a step, whose keys are the whole cache
        return frozenset()
    if keys.size != queries.size:
        raise Mismatch(
            "axis",
            "causal attention needs queries and keys along the same axis",
            "causal",
            expected=f"a memory of size {queries.size}",
            found=f"size {keys.size}",
            bound=(queries, keys),
        )
    return frozenset()


def weights(site: Site) -> tuple[Weight, ...]:
    (_, width), (_, features) = site.sequence(), site.sequence(_memory(site))
    (inner, kv), bias = _inner(site), site.attr["bias"]
    return (
        *affine("q.", inner, width, bias),
        *affine("k.", kv, features, bias),
        *affine("v.", kv, features, bias),
        *affine("out.", width, inner, site.attr["out_bias"]),
    )


def flops(site: Site) -> Size:
    (queries, width), (keys, features) = site.sequence(), site.sequence(_memory(site))
    inner, kv = _inner(site)
    projections = queries.size * (2 * 2 * width * inner) + keys.size * (2 * 2 * features * kv)
    return projections + queries.size * keys.size * (2 * 2 * inner)


def scratch(site: Site) -> Size:
    """Elements of queries, keys, values, scores, and the softmax of the scores."""
    (queries, _), (keys, _) = site.sequence(), site.sequence(_memory(site))
    inner, kv = _inner(site)
    heads: int = site.attr["heads"]
    return queries.size * inner + keys.size * (2 * kv) + queries.size * keys.size * (2 * heads)


def cache(site: Site) -> Size:
    """Elements of the cached keys and values: causal ones and those of a memory."""
    if not site.attr["causal"] and "over" not in site.tensors:
        return Size.of(0)
    keys, _ = site.sequence(_memory(site))
    return keys.size * (2 * _inner(site)[1])


# -- the core without projections --


def attend_defaults(site: Site) -> dict[str, float]:
    return {"scale": _heads(site, "q")[2] ** -0.5} if site.attr["scale"] is None else {}


def _heads(site: Site, param: str) -> tuple[Axis, int, int]:
    """The sequence axis of a tensor, its number of heads, and the head size."""
    type = site.floats(param)
    heads, size = [a.size.value for a in type.axes[1:]] if len(type.axes) == 3 else (None, None)
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
    return type.axes[0], heads, size


def attend(site: Site) -> Type:
    (queries, heads, _), (keys, kv_heads, _), _ = (_heads(site, name) for name in "qkv")
    q, k, v = (site.tensors[name] for name in "qkv")
    one_size = "queries and keys must have the same head size"
    _check_axes(site, "k", one_size, (*k.axes[:2], q.axes[2]))
    _check_axes(site, "v", "there must be a value for each key", (*k.axes[:2], v.axes[2]))
    _check_groups(heads, kv_heads, "k", (q.axes[1], k.axes[1]))
    if site.attr["window"] is not None and not site.attr["causal"]:
        raise Mismatch(
            "argument-value",
            "`window` needs causal attention",
            "window",
            help="add `causal`, or leave out `window`",
        )
    seen = q.with_axes((*q.axes[:2], v.axes[2])).with_noncausal(k.noncausal | v.noncausal)
    if "bias" in site.tensors:
        each_score = "there must be a bias for each score"
        _check_axes(site, "bias", each_score, (q.axes[1], queries, keys))
        seen = seen.with_noncausal(site.floats("bias").noncausal)
    return seen.with_noncausal(_noncausal_axes(site, queries, keys))


def _check_axes(site: Site, param: str, message: str, wanted: tuple[Axis, ...]) -> None:
    """Raises `Mismatch` if a tensor does not have these axes."""
    type = site.tensors[param]
    if [axis.size for axis in wanted] != [axis.size for axis in type.axes]:
        pairs = zip(wanted, type.axes, strict=False)
        raise Mismatch(
            "shape-mismatch",
            message,
            param,
            expected=str(Type("float", wanted)),
            found=str(type),
            bound=next(((a, b) for a, b in pairs if a.size != b.size), ()),
        )


def attend_flops(site: Site) -> Size:
    queries, heads, size = _heads(site, "q")
    keys, _, value = _heads(site, "v")
    return queries.size * keys.size * (2 * heads * (size + value))


def attend_scratch(site: Site) -> Size:
    """Elements of the scores and of their softmax."""
    queries, heads, _ = _heads(site, "q")
    return queries.size * _heads(site, "k")[0].size * (2 * heads)


def attend_window(site: Site) -> int | None:
    """How many of the last positions a query sees; None if it sees all."""
    window = site.attr["window"]
    short = window is not None and window < site.bound(site.tensors["k"].axes[0].size)
    return window if short and "bias" not in site.tensors else None


def attend_cache_length(site: Site) -> Size:
    """How many positions of keys and values decoding caches: those of causal attention (or of
    its window), and those of another sequence."""
    queries, keys = (site.tensors[name].axes[0].size for name in "qk")
    if not site.attr["causal"] and keys == queries:
        return Size.of(0)
    window = attend_window(site)
    return keys if window is None else Size.of(window)
