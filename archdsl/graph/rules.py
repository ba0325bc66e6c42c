"""The type, weight and cost rules of embeddings, norms and elementwise operators.

All rules assume an implied batch axis first, the feature axis last and the sequence before it.
A result is causal along an axis if all inputs are, unless the rule says that it mixes
positions.
"""

from __future__ import annotations

from math import inf

from archdsl.graph.signature import Mismatch, Site, Weight
from archdsl.graph.types import Axis, Size, Type

ACTIVATIONS = {
    "relu": "max(0, x).",
    "gelu": "x times the normal distribution function, exactly (Hendrycks and Gimpel 2016).",
    "gelu_tanh": "The tanh approximation of gelu, as in GPT-2 (Hendrycks and Gimpel 2016).",
    "silu": "x sigmoid(x) (Elfwing et al. 2017).",
    "quick_gelu": "x sigmoid(1.702 x), as in CLIP (Hendrycks and Gimpel 2016).",
    "tanh": "The hyperbolic tangent.",
    "sigmoid": "1 / (1 + exp(-x)).",
}

# Other functions of each number, which no kernel fuses.
FUNCTIONS = {
    "exp": "The exponential function.",
    "log": "The natural logarithm; `ln(n)` is that of a number.",
    "sqrt": "The square root; `sqrt(n)` of a number is a number.",
    "reciprocal": "1 / x.",
    "abs": "The absolute value.",
    "sin": "The sine.",
    "cos": "The cosine.",
    "softplus": "log(1 + exp(x)) (Dugas et al. 2000).",
}

PAIRS = {
    "add": "The sum of two tensors; also written `a + b`.",
    "subtract": "The difference of two tensors; also written `a - b`.",
    "multiply": "The elementwise product of two tensors; also written `a * b`.",
    "divide": "The elementwise quotient of two tensors; also written `a / b`.",
}

# Operators of two tensors whose axes are matched by name.
MATCHED = frozenset({*PAIRS, "compare"})
# Operators that compute each number from the numbers at its place.
POINTWISE = frozenset({*MATCHED, *ACTIVATIONS, *FUNCTIONS, "scale", "shift"})


def weight(site: Site) -> Type:
    """The type of a trained tensor."""
    if site.attr["start"] is not None and site.attr["std"] is not None:
        raise Mismatch(
            "argument-value",
            "a weight starts at a number or is drawn, not both",
            "std",
            help="leave out `start` or `std`",
        )
    std = site.attr["std"]
    if std is not None and not 0 <= std < inf:
        raise Mismatch(
            "argument-value",
            "`std` must be a finite number, 0 or more",
            "std",
            found=str(std),
        )
    return Type("float", tuple(Axis(None, Size.of(size)) for size in site.attr["sizes"]))


def weight_weights(site: Site) -> tuple[Weight, ...]:
    start, std = site.attr["start"], site.attr["std"]
    return (Weight("", site.attr["sizes"], "embedding" if start is None else start, std),)


def same(site: Site) -> Type:
    """The type of `x`, which must be float."""
    return site.floats()


def scaled(site: Site) -> Type:
    """The type of a product with a number: float, also of whole numbers."""
    x = site.x
    return Type("float", x.axes, None, x.noncausal) if x.dtype == "int" else site.floats()


def dropout(site: Site) -> Type:
    if not 0 <= site.attr["rate"] < 1:
        raise Mismatch(
            "argument-value",
            "the dropout rate must be a probability less than 1",
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
            "`embed` needs whole-number tokens",
            "x",
            expected="int[…]",
            found=str(tokens),
        )
    if vocab is None or site.attr["dim"] is None:
        missing = "vocab" if vocab is None else "dim"
        raise Mismatch(
            "missing-argument",
            f"`embed` needs `{missing}`, unless its table is `tied` to another",
            help="write `embed(vocab, D)`",
        )
    if tokens.below is None or tokens.below > vocab:
        raise Mismatch(
            "element-bound",
            f"the table has {vocab} rows, but a token can be "
            + ("any number" if tokens.below is None else f"as large as {tokens.below - 1}"),
            "vocab",
            expected=f"tokens < {vocab}",
            found=str(tokens),
            help="declare the bound at the input: `input tokens: int[…] < vocab`",
            bound=("x",),
        )
    return tokens.with_axes((*tokens.axes, site.axis("dim")))


def embed_weights(site: Site) -> tuple[Weight, ...]:
    if site.attr["tied"]:
        return ()
    return (Weight("weight", (site.attr["vocab"], site.attr["dim"]), "embedding"),)


def unembed(site: Site) -> Type:
    vectors, dim = site.floats(), site.attr["dim"]
    if site.width != dim:
        raise Mismatch(
            "shape-mismatch",
            f"the table has vectors of {dim} features, but these have {site.width}",
            "tied",
            expected=f"[…, {dim}]",
            found=str(vectors),
            bound=(vectors.axes[-1],),
        )
    return vectors.with_axes((*vectors.axes[:-1], site.axis("vocab")))


def unembed_flops(site: Site) -> Size:
    vocab: int = site.attr["vocab"]
    return site.x.elements * (2 * vocab)


# -- norms --


def norm_defaults(site: Site) -> dict[str, bool]:
    kind = site.attr["kind"]
    usual = {"scale": kind != "l2", "bias": kind == "layer"}
    return {name: value for name, value in usual.items() if site.attr[name] is None}


def norm(site: Site) -> Type:
    if not 0 <= site.attr["eps"] < inf:
        raise Mismatch(
            "argument-value",
            "`eps` must be a finite number, 0 or more",
            "eps",
            expected="a small number, 0 or more",
            found=str(site.attr["eps"]),
        )
    site.floats()
    _ = site.width  # fixed
    return site.x


def norm_weights(site: Site) -> tuple[Weight, ...]:
    shape = (site.width,)
    scale = (Weight("weight", shape, "ones"),) if site.attr["scale"] else ()
    bias = (Weight("bias", shape, "zeros"),) if site.attr["bias"] else ()
    return scale + bias
