"""The type, weight and cost rules of attention (Vaswani et al. 2017, section 3.2).

Queries [T, D] look at themselves or at a memory [S, E]. `H` heads of size `h` make queries
of `H h` numbers; `K` heads of keys and values, which groups of `H / K` queries share, make
`K h`.
"""

from __future__ import annotations

from archdsl.diagnostics import listing
from archdsl.graph.rules import affine
from archdsl.graph.signature import Mismatch, Site, Weight
from archdsl.graph.types import Size, Type


def _memory(site: Site) -> str:
    """The parameter whose tensor the keys and values are made of."""
    return "over" if "over" in site.tensors else "x"


def _inner(site: Site) -> tuple[int, int]:
    """How many numbers the queries of one position have, and its keys: H h and K h."""
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


_MANY = 1024  # more heads than any model has


def _divisors(width: int, heads: int) -> str:
    divisors = (d for d in range(1, min(width, _MANY) + 1) if width % d == 0)
    near = sorted(divisors, key=lambda d: abs(d - heads))[:2]
    return f"{width} divides into {listing(map(str, sorted(near)))} heads"


def attention(site: Site) -> Type:
    (queries, _), (keys, _) = site.sequence(), site.sequence(_memory(site))
    heads, kv_heads = site.attr["heads"], site.attr["kv_heads"]
    if heads % kv_heads:
        raise Mismatch(
            "divisibility",
            f"{heads} heads cannot share {kv_heads} key and value heads evenly",
            "kv_heads",
            expected=f"a divisor of {heads}",
            found=str(kv_heads),
            bound=("heads", "kv_heads"),
        )
    seen = site.x.mixing(site.tensors[_memory(site)].mixed)
    if not site.attr["causal"]:
        return seen.mixing(keys.size.vars)
    if keys.size != queries.size:
        raise Mismatch(
            "axis",
            "causal attention needs queries and keys along one axis",
            "causal",
            expected=f"a memory of size {queries.size}",
            found=f"size {keys.size}",
            bound=(queries, keys),
        )
    return seen


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
    """Queries, keys, values, scores, and the softmax of the scores."""
    (queries, _), (keys, _) = site.sequence(), site.sequence(_memory(site))
    inner, kv = _inner(site)
    heads: int = site.attr["heads"]
    return queries.size * inner + keys.size * (2 * kv) + queries.size * keys.size * (2 * heads)


def cache(site: Site) -> Size:
    """The keys and values of causal attention, and of a memory."""
    if not site.attr["causal"] and "over" not in site.tensors:
        return Size.of(0)
    keys, _ = site.sequence(_memory(site))
    return keys.size * (2 * _inner(site)[1])
