"""The table of operators: name, parameters, type rule, weights, cost, documentation.

Each has a row here and a function of the same name in the backend's table. What can be
written as a block of the language is no operator.
"""

from __future__ import annotations

from archdsl.graph import attention, axes, losses, rules, shapes
from archdsl.graph.signature import Kind, Op, Param

ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "silu", "quick_gelu", "tanh")

_X = Param("x", Kind.TENSOR)


def _on(name: str) -> Param:
    return Param(name, Kind.BOOL, True)


_ACTIVATION_DOCS = {
    "relu": "max(0, x).",
    "gelu": "x times the normal distribution function, exactly (Hendrycks and Gimpel 2016).",
    "gelu_tanh": "The tanh approximation of gelu, as in GPT-2 (Hendrycks and Gimpel 2016).",
    "silu": "x sigmoid(x) (Elfwing et al. 2017).",
    "quick_gelu": "x sigmoid(1.702 x), as in CLIP (Hendrycks and Gimpel 2016).",
    "tanh": "The hyperbolic tangent.",
}

_ROWS = (
    Op(
        "embed",
        (
            _X,
            Param("vocab", Kind.INT, None),
            Param("dim", Kind.INT, None),
            Param("tied", Kind.LABEL, None),
        ),
        rules.embed,
        "Looks up a trained vector of size `dim` for each token. `tied` names another `embed` "
        "whose table is used (Vaswani et al. 2017, section 3.4).",
        weights=rules.embed_weights,
        example="embed(vocab, D)",
    ),
    Op(
        "unembed",
        (
            _X,
            Param("tied", Kind.LABEL),
            Param("vocab", Kind.INT, None),
            Param("dim", Kind.INT, None),
        ),
        rules.unembed,
        "Logits over the vocabulary: the product with the table of the named `embed` "
        "(Press and Wolf 2016).",
        flops=rules.unembed_flops,
        example="unembed(tokens)",
    ),
    Op(
        "posenc",
        (
            _X,
            Param("kind", Kind.CHOICE, choices=("learned", "sinusoidal")),
            Param("context", Kind.INT, None),
        ),
        rules.posenc,
        "Adds an encoding of the position: `learned` vectors, or the `sinusoidal` ones of "
        "Vaswani et al. 2017, section 3.5, sines and cosines in turn. `context` is how many "
        "positions are learned; as many as the axis can have when left out.",
        settle=rules.posenc_defaults,
        weights=rules.posenc_weights,
        example="posenc(learned, context)",
    ),
    Op(
        "norm",
        (
            _X,
            Param("kind", Kind.CHOICE, "layer", ("layer", "rms")),
            Param("eps", Kind.NUMBER, 1e-5),
            _on("scale"),
            Param("bias", Kind.BOOL, None),
        ),
        rules.norm,
        "Normalises the last axis: `layer` (Ba et al. 2016) or `rms` (Zhang and Sennrich "
        "2019), then multiplies by a trained `scale` and, by default for `layer` alone, adds a "
        "`bias`.",
        settle=rules.norm_defaults,
        weights=rules.norm_weights,
        example="norm(rms, eps = 1e-6)",
    ),
    Op(
        "linear",
        (_X, Param("dim", Kind.INT), _on("bias")),
        rules.linear,
        "A product of the last axis with a trained matrix [dim, D], and a bias.",
        weights=rules.linear_weights,
        flops=rules.linear_flops,
        example="linear(D)",
    ),
    Op(
        "attention",
        (
            _X,
            Param("heads", Kind.INT),
            Param("causal", Kind.BOOL, False),
            Param("over", Kind.TENSOR, None),
            Param("kv_heads", Kind.INT, None),
            Param("head_size", Kind.INT, None),
            Param("scale", Kind.NUMBER, None),
            _on("bias"),
            Param("out_bias", Kind.BOOL, None),
        ),
        attention.attention,
        "Multi-head attention (Vaswani et al. 2017, section 3.2) of a sequence to itself, or "
        "to a memory given as `over`. Padding of a ragged axis is never attended to. Fewer "
        "`kv_heads` than heads share keys and values (Ainslie et al. 2023). `scale` is "
        "1 / sqrt(head_size) when left out, `head_size` D / heads, and `out_bias` as `bias`.",
        settle=attention.defaults,
        weights=attention.weights,
        flops=attention.flops,
        scratch=attention.scratch,
        cache=attention.cache,
        example="attention(heads, causal)",
    ),
    Op(
        "mlp",
        (
            _X,
            Param("sizes", Kind.SIZES),
            Param("act", Kind.CHOICE, "gelu", ACTIVATIONS),
            _on("bias"),
        ),
        rules.mlp,
        "Products with an activation between them: one or more hidden sizes, then the size "
        "that comes out.",
        weights=rules.mlp_weights,
        flops=rules.mlp_flops,
        scratch=rules.mlp_scratch,
        example="mlp(4 * D, D, relu)",
    ),
    *(Op(name, (_X,), rules.same, doc, example=name) for name, doc in _ACTIVATION_DOCS.items()),
    Op(
        "patches",
        (_X, Param("patch", Kind.INT)),
        shapes.patches,
        "Cuts an image [C, H, W] into squares and lays each out as a vector of "
        "C * patch * patch numbers, channel by channel and row by row (Dosovitskiy et al. "
        "2020, section 3.1).",
        example="patches(16)",
    ),
    Op(
        "prepend",
        (_X, Param("name", Kind.MARK)),
        shapes.prepend,
        "Puts a trained vector before the sequence and gives the position a name.",
        weights=shapes.prepend_weights,
        example="prepend(cls)",
    ),
    Op(
        "readout",
        (_X, Param("name", Kind.MARK)),
        shapes.readout,
        "The vector at the position that `prepend` named.",
        example="readout(cls)",
    ),
    Op("first", (_X,), shapes.first, "The vector at the first position.", example="first"),
    Op(
        "mean",
        (_X, Param("axis", Kind.AXIS, None)),
        shapes.mean,
        "The mean along an axis, the sequence where none is named; padding of a ragged axis "
        "does not count.",
        example="mean(T)",
    ),
    Op(
        "softmax",
        (_X, Param("axis", Kind.AXIS, None)),
        shapes.softmax,
        "Makes values along an axis, the last where none is named, positive with a sum of 1; "
        "padding of a ragged axis gets 0.",
        example="softmax",
    ),
    Op(
        "add",
        (_X, Param("other", Kind.TENSOR)),
        rules.add,
        "The sum of two tensors of one shape; written `a + b`.",
        example="add(a, b)",
    ),
    Op(
        "scale",
        (_X, Param("by", Kind.NUMBER)),
        rules.same,
        "The product with a number; written `x * 0.5`.",
        example="scale(sqrt(D))",
    ),
    Op(
        "concat",
        (_X, Param("other", Kind.TENSOR), Param("axis", Kind.AXIS, None)),
        shapes.concat,
        "Joins two tensors along an axis, the last where none is named.",
        example="concat(a, b, T)",
    ),
    Op(
        "reshape",
        (_X, Param("pattern", Kind.TEXT), Param("sizes", Kind.NAMED_SIZES, ())),
        axes.reshape,
        "Splits, merges and reorders axes by name.",
        example='reshape("T (heads size) -> heads T size", heads = 8)',
    ),
    Op(
        "slice",
        (
            _X,
            Param("axis", Kind.AXIS),
            Param("start", Kind.INT, 0),
            Param("stop", Kind.INT, None),
        ),
        shapes.slice_,
        "Positions `start` to `stop`, that one left out, of an axis.",
        example="slice(D, 0, 64)",
    ),
    Op(
        "dropout",
        (_X, Param("rate", Kind.NUMBER)),
        rules.dropout,
        "In training, sets each value to zero with probability `rate` and divides the others "
        "by 1 - rate (Srivastava et al. 2014); nothing otherwise.",
        random=True,
        example="dropout(0.1)",
    ),
    Op(
        "next_token",
        (Param("logits", Kind.TENSOR), Param("tokens", Kind.TENSOR)),
        losses.next_token,
        "The mean cross entropy, in nats, of each token given those before it. The logits must "
        "be causal.",
        loss=True,
        example="next_token(logits, tokens)",
    ),
    Op(
        "cross_entropy",
        (Param("logits", Kind.TENSOR), Param("label", Kind.TENSOR)),
        losses.cross_entropy,
        "The mean cross entropy, in nats, of the right classes.",
        loss=True,
        example="cross_entropy(logits, label: int < classes)",
    ),
)

OPS = {op.name: op for op in _ROWS}
