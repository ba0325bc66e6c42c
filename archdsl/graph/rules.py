"""The type, weight and cost rules of embeddings, norms and products.

What is common to all rules: the batch axis is implied, the last axis is the feature axis,
and the one before it is the sequence. A result is causal where its inputs are; a rule that
mixes positions says so. Attention has a module of its own, and so have the operators that
change the axes of a tensor.
"""

from __future__ import annotations

from itertools import pairwise
from math import inf

from archdsl.graph.signature import Mismatch, Site, Weight
from archdsl.graph.types import Size, Type


def same(site: Site) -> Type:
    """Float values in, and values of the same type out."""
    return site.floats()


def add(site: Site) -> Type:
    left, right = site.floats(), site.floats("other")
    if [axis.size for axis in left.axes] != [axis.size for axis in right.axes]:
        pairs = zip(left.axes, right.axes, strict=False)
        raise Mismatch(
            "shape-mismatch",
            "only tensors of one shape can be added",
            "other",
            expected=str(left),
            found=str(right),
            bound=next(((a, b) for a, b in pairs if a.size != b.size), ()),
        )
    return left.mixing(right.mixed)


def dropout(site: Site) -> Type:
    if not 0 <= site.attr["rate"] < 1:
        raise Mismatch(
            "argument-value",
            "a rate of dropout is a probability",
            "rate",
            expected="0 <= rate < 1",
            found=str(site.attr["rate"]),
        )
    return site.floats()


# -- tokens and vectors --


def embed(site: Site) -> Type:
    tokens, vocab = site.x, site.attr["vocab"]
    if tokens.dtype != "int":
        raise Mismatch(
            "type-mismatch",
            "`embed` looks up whole numbers",
            "x",
            expected="int[…]",
            found=str(tokens),
        )
    if vocab is None or site.attr["dim"] is None:
        lacking = "vocab" if vocab is None else "dim"
        raise Mismatch(
            "missing-argument",
            f"`{lacking}` is needed, unless the table is `tied` to another",
            help="write `embed(vocab, D)`",
        )
    if tokens.below is None or tokens.below > vocab:
        raise Mismatch(
            "element-bound",
            f"the table has {vocab} rows and a token may be "
            + ("any number" if tokens.below is None else f"as large as {tokens.below - 1}"),
            "vocab",
            expected=f"tokens < {vocab}",
            found=str(tokens),
            help="state the bound where the tokens come in: `input tokens: int[…] < vocab`",
            bound=("x",),
        )
    return tokens.shaped((*tokens.axes, site.axis("dim")))


def embed_weights(site: Site) -> tuple[Weight, ...]:
    if site.attr["tied"]:
        return ()
    return (Weight("weight", (site.attr["vocab"], site.attr["dim"]), "embedding"),)


def unembed(site: Site) -> Type:
    vectors, dim = site.floats(), site.attr["dim"]
    if site.width != dim:
        raise Mismatch(
            "shape-mismatch",
            f"the embedding has vectors of {dim} and this one has {site.width}",
            "tied",
            expected=f"[…, {dim}]",
            found=str(vectors),
            bound=(vectors.axes[-1],),
        )
    return vectors.shaped((*vectors.axes[:-1], site.axis("vocab")))


def unembed_flops(site: Site) -> Size:
    vocab: int = site.attr["vocab"]
    return site.x.elements * (2 * vocab)


def posenc_defaults(site: Site) -> dict[str, int]:
    if site.attr["context"] is not None:
        return {}
    return {"context": site.bound(site.sequence()[0].size)}


def posenc(site: Site) -> Type:
    sequence, width = site.sequence()
    context, bound = site.attr["context"], site.bound(sequence.size)
    if context < bound:
        raise Mismatch(
            "shape-mismatch",
            f"there are encodings for {context} positions, and the sequence may have {bound}",
            "context",
            expected=f"{bound} or more",
            found=str(context),
            bound=("context", sequence),
        )
    if site.attr["kind"] == "sinusoidal" and width % 2:
        raise Mismatch(
            "divisibility",
            f"sines and cosines come in pairs, and the vectors have {width} numbers",
            "x",
            expected="an even size",
            found=str(site.x),
            bound=(site.x.axes[-1],),
        )
    return site.x


def posenc_weights(site: Site) -> tuple[Weight, ...]:
    if site.attr["kind"] == "sinusoidal":
        return ()
    return (Weight("weight", (site.attr["context"], site.width), "embedding"),)


# -- norms and products --


def norm_defaults(site: Site) -> dict[str, bool]:
    return {"bias": site.attr["kind"] == "layer"} if site.attr["bias"] is None else {}


def norm(site: Site) -> Type:
    if not 0 <= site.attr["eps"] < inf:
        raise Mismatch(
            "argument-value",
            "`eps` keeps the divisor away from 0",
            "eps",
            expected="a small number, 0 or more",
            found=str(site.attr["eps"]),
        )
    vectors, _ = site.floats(), site.width
    return vectors


def norm_weights(site: Site) -> tuple[Weight, ...]:
    shape = (site.width,)
    scale = (Weight("weight", shape, "ones"),) if site.attr["scale"] else ()
    bias = (Weight("bias", shape, "zeros"),) if site.attr["bias"] else ()
    return scale + bias


def linear(site: Site) -> Type:
    vectors, _ = site.floats(), site.width
    return vectors.shaped((*vectors.axes[:-1], site.axis("dim")))


def affine(prefix: str, out: int, into: int, bias: bool) -> tuple[Weight, ...]:
    """The weights of one product: a matrix [out, into], and a bias [out] if it has one."""
    weight = Weight(f"{prefix}weight", (out, into), "matrix")
    return (weight, Weight(f"{prefix}bias", (out,), "zeros")) if bias else (weight,)


def linear_weights(site: Site) -> tuple[Weight, ...]:
    return affine("", site.attr["dim"], site.width, site.attr["bias"])


def linear_flops(site: Site) -> Size:
    dim: int = site.attr["dim"]
    return site.x.elements * (2 * dim)


def mlp(site: Site) -> Type:
    vectors, _ = site.floats(), site.width
    sizes = site.attr["sizes"]
    if len(sizes) < 2:
        raise Mismatch(
            "missing-argument",
            "an mlp has at least one hidden layer",
            "sizes",
            expected="the hidden sizes and then the size that comes out: `mlp(hidden, D)`",
            found=f"{len(sizes)} size",
            help="for a single product write `linear`",
        )
    return vectors.shaped((*vectors.axes[:-1], site.axis("sizes")))


def _layers(site: Site) -> list[tuple[int, int]]:
    """The sizes that go into each product and come out of it."""
    return list(pairwise((site.width, *site.attr["sizes"])))


def mlp_weights(site: Site) -> tuple[Weight, ...]:
    bias = site.attr["bias"]
    return tuple(
        weight
        for i, (into, out) in enumerate(_layers(site))
        for weight in affine(f"{i}.", out, into, bias)
    )


def _vectors(type: Type) -> Size:
    """How many vectors a tensor has."""
    return Type(type.dtype, type.axes[:-1]).elements


def mlp_flops(site: Site) -> Size:
    return _vectors(site.x) * sum(2 * into * out for into, out in _layers(site))


def mlp_scratch(site: Site) -> Size:
    """Two hidden layers that follow one another are alive at once, or the only one is."""
    sizes: tuple[int, ...] = site.attr["sizes"]
    hidden = pairwise((*sizes[:-1], 0))
    return _vectors(site.x) * max(before + after for before, after in hidden)
