"""The table of operators: name, parameters, type rule, weights, cost, documentation.

Each has a row here and a function of the same name in the backend's table; a composite one
has its parts in the table of passes/decompose.py instead. What can be written as a block of
the language is no operator.

`OPS` are the names of the language. `DERIVED` are operators that passes alone write: what a
decoding step does with positions and with the keys and values of the positions before.
"""

from __future__ import annotations

from archdsl.graph import attention, axes, losses, positions, products, rules, shapes
from archdsl.graph.derived_ops import DERIVED
from archdsl.graph.signature import Kind, Op, Param

_ACTIVATIONS = rules.ACTIVATIONS
_X = Param("x", Kind.TENSOR)
_VOCAB, _DIM = Param("vocab", Kind.INT, None), Param("dim", Kind.INT, None)


def _on(name: str) -> Param:
    return Param(name, Kind.BOOL, True)


_ROWS = (
    Op(
        "embed",
        (_X, _VOCAB, _DIM, Param("tied", Kind.LABEL, None)),
        rules.embed,
        "Looks up a trained vector of size `dim` for each token. `tied` names another `embed` "
        "whose table is used (Vaswani et al. 2017, section 3.4).",
        weights=rules.embed_weights,
        example="embed(vocab, D)",
    ),
    Op(
        "unembed",
        (_X, Param("tied", Kind.LABEL), _VOCAB, _DIM),
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
            Param("layout", Kind.CHOICE, "pairs", ("pairs", "halves")),
        ),
        positions.posenc,
        "Adds an encoding of the position: `learned` vectors, or the `sinusoidal` ones of "
        "Vaswani et al. 2017, section 3.5, sines and cosines in turn (`pairs`) or all sines "
        "and then all cosines, as in Marian (`halves`). `context` is how many positions are "
        "learned; as many as the axis can have when left out.",
        resolve_defaults=positions.posenc_defaults,
        weights=positions.posenc_weights,
        positions=("at",),
        example="posenc(learned, context)",
    ),
    Op(
        "rotary",
        (
            _X,
            Param("theta", Kind.NUMBER, 10000.0),
            Param("layout", Kind.CHOICE, "halves", ("halves", "pairs")),
            Param("size", Kind.INT, None),
            Param("scaling", Kind.CHOICE, None, ("linear", "llama3")),
            Param("factor", Kind.NUMBER, 1.0),
            Param("low", Kind.NUMBER, 1.0),
            Param("high", Kind.NUMBER, 4.0),
            Param("original", Kind.INT, None),
        ),
        positions.rotary,
        "Rotates the first `size` features of each head, all when left out, by angles that "
        "grow with the position along the first axis (Su et al. 2021, section 3.4.2). Features "
        "that are rotated together are neighbours (`pairs`, as in the paper) or stand in the "
        "first and the second half (`halves`, as in GPT-NeoX). `linear` scaling divides the "
        "angles by `factor` (Chen et al. 2023); `llama3` does so where fewer than `low` turns "
        "fit the context `original`, leaves them where more than `high` do, and goes from one "
        "to the other between (Grattafiori et al. 2024).",
        resolve_defaults=positions.rotary_defaults,
        positions=("at",),
        example="rotary(theta = 500_000)",
    ),
    Op(
        "alibi",
        (_X, Param("heads", Kind.INT)),
        positions.alibi,
        "A bias of attention scores [heads, T, T] that falls with the distance i - j of the "
        "key j before the query i, by a slope for each head (Press et al. 2021, section 3). "
        "Of `x` only the sequence axis counts.",
        positions=("past", "cache_positions"),
        example="alibi(heads)",
    ),
    Op(
        "relative_bias",
        (
            _X,
            Param("heads", Kind.INT),
            Param("buckets", Kind.INT, 32),
            Param("distance", Kind.INT, 128),
            Param("causal", Kind.BOOL, False),
        ),
        positions.relative_bias,
        "A trained bias of attention scores [heads, T, T] for each head and bucket of "
        "distances (Raffel et al. 2019, section 2.1). Half of the buckets hold one distance "
        "each, the others share those up to `distance`, and the last all beyond. Half are for "
        "keys behind the query, or none where it is `causal`. Of `x` only the sequence axis "
        "counts.",
        weights=positions.relative_bias_weights,
        positions=("past", "cache_positions"),
        example="relative_bias(heads)",
    ),
    Op(
        "norm",
        (
            _X,
            Param("kind", Kind.CHOICE, "layer", ("layer", "rms", "l2")),
            Param("eps", Kind.NUMBER, 1e-5),
            Param("scale", Kind.BOOL, None),
            Param("bias", Kind.BOOL, None),
        ),
        rules.norm,
        "Normalises the last axis: `layer` (Ba et al. 2016), `rms` (Zhang and Sennrich 2019), "
        "or `l2`, x / max(||x||, eps). Then multiplies by a trained `scale`, by default not "
        "for `l2`, and adds a `bias`, by default for `layer` alone.",
        resolve_defaults=rules.norm_defaults,
        weights=rules.norm_weights,
        example="norm(rms, eps = 1e-6)",
    ),
    Op(
        "linear",
        (_X, Param("dim", Kind.INT), _on("bias")),
        products.linear,
        "A product of the last axis with a trained matrix [dim, D], and a bias.",
        weights=products.linear_weights,
        flops=products.linear_flops,
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
        resolve_defaults=attention.defaults,
        weights=attention.weights,
        flops=attention.flops,
        scratch=attention.scratch,
        cache=attention.cache,
        example="attention(heads, causal)",
    ),
    Op(
        "attend",
        (
            Param("q", Kind.TENSOR),
            Param("k", Kind.TENSOR),
            Param("v", Kind.TENSOR),
            Param("causal", Kind.BOOL, False),
            Param("window", Kind.INT, None),
            Param("scale", Kind.NUMBER, None),
            Param("bias", Kind.TENSOR, None),
        ),
        attention.attend,
        "The core of attention (Vaswani et al. 2017, section 3.2.1) of queries [T, H, h] to "
        "keys [S, K, h] and values [S, K, w], where groups of H / K heads share those of one: "
        "[T, H, w]. Padding is never attended to. `window` is how many positions a query of "
        "causal attention sees, its own among them (Beltagy et al. 2020). `bias` [H, T, S] is "
        "added to the scores; `scale` is 1 / sqrt(h) when left out.",
        resolve_defaults=attention.attend_defaults,
        flops=attention.attend_flops,
        scratch=attention.attend_scratch,
        positions=("past", "left_pad"),
        cached=("k", "v"),
        cache_length=attention.attend_cache_length,
        cache_window=attention.attend_window,
        example="attend(q, k, v, causal)",
    ),
    Op(
        "mlp",
        (
            _X,
            Param("sizes", Kind.SIZES),
            Param("act", Kind.CHOICE, "gelu", tuple(_ACTIVATIONS)),
            _on("bias"),
        ),
        products.mlp,
        "Products with an activation between them: one or more hidden sizes, then the size "
        "that comes out.",
        weights=products.mlp_weights,
        flops=products.mlp_flops,
        scratch=products.mlp_scratch,
        example="mlp(4 * D, D, relu)",
    ),
    Op(
        "experts",
        (
            _X,
            Param("count", Kind.INT),
            Param("top", Kind.INT),
            Param("hidden", Kind.INT),
            Param("act", Kind.CHOICE, "silu", tuple(_ACTIVATIONS)),
        ),
        products.experts,
        "For each vector, the sum of what `top` of `count` experts make of it, in the shares "
        "that a router gives them (Shazeer et al. 2017; Jiang et al. 2024, section 2.1). An "
        "expert is down(act(gate x) * up x) with `hidden` features. The flops are those of "
        "the experts chosen; computed are all, and those not chosen count 0.",
        weights=products.experts_weights,
        flops=products.experts_flops,
        scratch=products.experts_scratch,
        example="experts(8, 2, 14336)",
    ),
    Op(
        "conv1d",
        (
            _X,
            Param("dim", Kind.INT),
            Param("kernel", Kind.INT),
            Param("stride", Kind.INT, 1),
            Param("padding", Kind.INT, 0),
            _on("bias"),
        ),
        products.conv1d,
        "A convolution along the sequence with trained kernels [dim, C, kernel]: each product "
        "sees `kernel` positions, `stride` further than the one before, of the sequence with "
        "`padding` zeros at both ends. A varying axis must keep its length.",
        weights=products.conv1d_weights,
        flops=products.conv1d_flops,
        scratch=products.conv1d_scratch,
        example="conv1d(D, 3, padding = 1)",
    ),
    *(
        Op(name, (_X,), rules.same, doc, example=name)
        for name, doc in rules.ACTIVATIONS.items()
    ),
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
        positions=("at",),
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
        "at",
        (_X, Param("tokens", Kind.TENSOR), Param("token", Kind.INT)),
        shapes.at,
        "The vector at the first position where `tokens` have the number `token`; at the "
        "first position of all where none has.",
        example="at(tokens, 49407)",
    ),
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
        "multiply",
        (_X, Param("other", Kind.TENSOR)),
        rules.multiply,
        "The product of two tensors of one shape, number by number; written `a * b`.",
        example="multiply(a, b)",
    ),
    Op(
        "dot",
        (_X, Param("other", Kind.TENSOR)),
        rules.dot,
        "The sum of the products of two tensors of one shape along the last axis.",
        example="dot(a, b)",
    ),
    Op(
        "scale",
        (_X, Param("by", Kind.NUMBER)),
        rules.same,
        "The product with a number; written `x * 0.5`.",
        example="scale(sqrt(D))",
    ),
    Op(
        "logit_scale",
        (_X, Param("start", Kind.NUMBER, 2.6592)),
        rules.same,
        "The product with the exponential of one trained number, at first `start` (Radford et "
        "al. 2021, section 2.3).",
        weights=rules.logit_scale_weights,
        example="logit_scale",
    ),
    Op(
        "layer_scale",
        (_X, Param("start", Kind.NUMBER, 1e-5)),
        rules.feature_wise,
        "The product with a trained number for each feature, at first `start` (Touvron et al. "
        "2021, section 2).",
        weights=rules.layer_scale_weights,
        example="layer_scale(1e-5)",
    ),
    Op(
        "add_bias",
        (_X,),
        rules.feature_wise,
        "The sum with a trained number for each feature, at first 0.",
        weights=rules.add_bias_weights,
        example="add_bias",
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
        drops_prefix=True,
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
OPERATORS = OPS | DERIVED

# Former names of operators, for the help of a message.
RENAMED = {"temperature": "logit_scale"}
