"""The table of operators: name, parameters, type rule, weights, cost, documentation.

Each operator also has a function in the table of backend/emit.py. A composite operator has an
entry in the table of passes/decompose.py instead. A computation that the language can express
is a block in specs/, not an operator.

`OPS` are the operators that a spec can name, `OPERATORS` also those that only passes insert.
"""

from __future__ import annotations

from archdsl.graph import (
    attention,
    axes,
    convolution,
    elementwise,
    losses,
    positions,
    products,
    rotary,
    rules,
    shapes,
)
from archdsl.graph.derived_ops import DERIVED
from archdsl.graph.mixture import MIXTURE
from archdsl.graph.params import (
    X,
    activation,
    axis,
    flag,
    integer,
    mask,
    number,
    offset,
    tensor,
    token,
)
from archdsl.graph.scores import SCORES
from archdsl.graph.signature import Kind, Op, Param
from archdsl.graph.split import SPLIT
from archdsl.graph.tensor_ops import TENSOR_OPS

_PAIR = (
    " Axes are matched by name; a tensor that lacks axes of the other one is the same at all "
    "their positions."
)

_ROWS = (
    Op(
        "embed",
        (X, integer("vocab", None), integer("dim", None), Param("tied", Kind.LABEL, None)),
        rules.embed,
        "Looks up a trained vector of size `dim` for each token: the rows of a table [vocab, "
        "dim]. `tied` uses the table of another `embed` (Vaswani et al. 2017, section 3.4).",
        weights=rules.embed_weights,
        example="embed(vocab, D)",
    ),
    Op(
        "unembed",
        (X, Param("tied", Kind.LABEL), integer("vocab", None), integer("dim", None)),
        rules.unembed,
        "Computes logits over the vocabulary: multiplies each vector by the table of the "
        "named `embed` (Press and Wolf 2016).",
        flops=rules.unembed_flops,
        example="unembed(tokens)",
    ),
    Op(
        "positions",
        (Param("size", Kind.SIZE),),
        positions.positions,
        "The number of each position of an axis, from 0. Left padding does not count, and a "
        "decoding step continues from the tokens before it.",
        positions=("past", "left_pad"),
        example="positions(T)",
    ),
    Op(
        "renumber",
        (
            X,
            offset("times", 1),
            offset("plus", 0),
            integer("by", 1),
            integer("modulo", None),
        ),
        positions.renumber,
        "Computes (`times` * x + `plus`) // `by`, modulo `modulo`, for whole numbers; also "
        "written `p + 2`, `13 - p`, `p * 2`, `p // 14`. The result must not be negative.",
        example="renumber(plus = 2)",
    ),
    Op(
        "sinusoid",
        (
            X,
            integer("dim"),
            number("theta", 10000.0),
            Param("layout", Kind.CHOICE, "pairs", ("pairs", "halves")),
            flag("closed", False),
            Param("start", Kind.CHOICE, "sine", ("sine", "cosine")),
        ),
        positions.sinusoid,
        "The sines and cosines of each number, with geometric frequencies from 1 down to "
        "1 / `theta` (Vaswani et al. 2017, section 3.5): `dim` features for positions or for "
        "the steps of a diffusion. `closed` includes 1 / `theta`, as in the authors' code. "
        "With `pairs` sines and cosines alternate; with `halves` all of `start` come first.",
        example="sinusoid(256)",
    ),
    Op(
        "posenc",
        (
            X,
            Param("kind", Kind.CHOICE, choices=("learned", "sinusoidal")),
            integer("context", None),
            Param("layout", Kind.CHOICE, "pairs", ("pairs", "halves")),
            integer("grid", None),
            integer("rows", None),
            tensor("at", None),
        ),
        positions.posenc,
        "Adds an encoding of each position: trained vectors (`learned`), or sines and cosines "
        "(`sinusoidal`, Vaswani et al. 2017, section 3.5). With `pairs` sines and cosines "
        "alternate; with `halves` all sines come first, as in Marian. `context` is the number "
        "of learned positions; the default is the longest length of the axis. `at` are other "
        "positions than those of the axis: `at = positions(T) + 2`. With `grid` they "
        "are those of `grid` x `grid` patches of an image, after the prepended ones; for an "
        "image with `rows` rows of patches, they are interpolated by cubic convolution (Keys "
        "1981).",
        resolve_defaults=positions.posenc_defaults,
        weights=positions.posenc_weights,
        positions=("at",),
        example="posenc(learned, context)",
    ),
    Op(
        "rotary",
        (
            X,
            number("theta", 10000.0),
            Param("layout", Kind.CHOICE, "halves", ("halves", "pairs")),
            integer("size", None),
            Param("scaling", Kind.CHOICE, None, rotary.SCALINGS),
            number("factor", 1.0),
            number("low", 1.0),
            number("high", 4.0),
            number("slow", 1.0),
            number("fast", 32.0),
            integer("original", None),
            number("scale", None),
            Param("factors", Kind.TEXT, ""),
            Param("long", Kind.TEXT, ""),
            number("mscale", None),
            number("mscale_all", None),
            flag("truncate", True),
            tensor("at", None),
        ),
        rotary.rotary,
        "Rotates pairs of features of each head by angles that grow with the position along "
        "the first axis (Su et al. 2021, section 3.4.2). Only the first `size` features are "
        "rotated; the default is all. With `pairs` two neighbours form a pair, as in the "
        "paper; with `halves` one comes from each half, as in GPT-NeoX. `at` are other "
        "positions than those of the axis. `linear` scaling "
        "divides the angles by `factor` (Chen et al. 2023). `llama3` scaling does so only for "
        "features that make fewer than `low` turns in the context `original`, leaves those "
        "with more than `high` turns unchanged, and interpolates in between (Grattafiori et "
        "al. 2024). `yarn` does so with `slow` and `fast`, and interpolates over the number of "
        "the pair (Peng et al. 2023, section 3.2); with `truncate` it starts and ends at whole "
        "pairs. `dynamic` multiplies `theta` in a sequence "
        "longer than `original`, so that its smallest angle is divided by `factor` * length / "
        "`original` - (`factor` - 1). `factors` are numbers that divide the angles, one for "
        "each pair, with spaces in between; `longrope` divides by `long` instead in a sequence "
        "longer than `original` (Ding et al. 2024). `scale` multiplies the result: by default "
        "0.1 ln(`factor`) + 1 with `yarn`, and sqrt(1 + ln(`factor`) / ln(`original`)) with "
        "`longrope`. `mscale` and `mscale_all`, if both are given and above 0, replace the "
        "former by (0.1 `mscale` ln(`factor`) + 1) / (0.1 `mscale_all` ln(`factor`) + 1). With "
        "`dynamic` and `longrope` the angles of all positions depend on the length of the "
        "sequence, so step-by-step decoding ends at `original`.",
        resolve_defaults=rotary.rotary_defaults,
        same_up_to=rotary.same_up_to,
        positions=("at",),
        example="rotary(theta = 500_000)",
    ),
    Op(
        "alibi",
        (X, integer("heads")),
        positions.alibi,
        "Computes a bias for attention scores, [heads, T, T]: -slope * (i - j) for query i and "
        "key j, with one slope per head (Press et al. 2021, section 3). Only the sequence axis "
        "of `x` is used.",
        positions=("past", "cache_positions"),
        example="alibi(heads)",
    ),
    Op(
        "relative_bias",
        (
            X,
            integer("heads"),
            integer("buckets", 32),
            integer("distance", 128),
            flag("causal", False),
        ),
        positions.relative_bias,
        "Computes a trained bias for attention scores, [heads, T, T], with one number per "
        "head and bucket of distances (Raffel et al. 2019, section 2.1). Half of the buckets "
        "hold one distance each; the others hold ranges that grow up to `distance`, and the "
        "last also holds all larger distances. Half of all buckets are for keys after the "
        "query; with `causal` none are. Only the sequence axis of `x` is used.",
        weights=positions.relative_bias_weights,
        positions=("past", "cache_positions"),
        example="relative_bias(heads)",
    ),
    Op(
        "norm",
        (
            X,
            Param("kind", Kind.CHOICE, "layer", ("layer", "rms", "l2")),
            number("eps", 1e-5),
            flag("scale", None),
            flag("bias", None),
        ),
        rules.norm,
        "Normalises the last axis: `layer` (Ba et al. 2016), `rms` (Zhang and Sennrich 2019), "
        "or `l2`, x / max(||x||, eps). Then it multiplies by a trained `scale` (default: for "
        "`layer` and `rms`) and adds a trained `bias` (default: for `layer`).",
        resolve_defaults=rules.norm_defaults,
        weights=rules.norm_weights,
        example="norm(rms, eps = 1e-6)",
    ),
    Op(
        "linear",
        (X, integer("dim"), flag("bias", True)),
        products.linear,
        "Multiplies the last axis by a trained matrix [dim, D] and adds a trained bias [dim].",
        weights=products.linear_weights,
        flops=products.linear_flops,
        example="linear(D)",
    ),
    Op(
        "attention",
        (
            X,
            integer("heads"),
            *mask(),
            tensor("over", None),
            integer("kv_heads", None),
            integer("head_size", None),
            number("scale", None),
            flag("bias", True),
            flag("out_bias", None),
        ),
        attention.attention,
        "Multi-head attention with its projections (Vaswani et al. 2017, section 3.2), over "
        "the sequence itself, or over another sequence given as `over`. A query sees what the "
        "[mask](language.md#masks) lets it see, and no padding. With fewer `kv_heads` than "
        "`heads`, groups of heads share keys and values (Ainslie et al. 2023). Defaults: "
        "`head_size` is D / heads, `scale` is 1 / sqrt(head_size), `out_bias` is `bias`. Axes "
        "before T are those of separate sequences, such as the windows of an image.",
        resolve_defaults=attention.defaults,
        write_out=attention.write_out,
        weights=attention.weights,
        flops=attention.flops,
        scratch=attention.scratch,
        cache=attention.cache,
        example="attention(heads, causal)",
    ),
    Op(
        "attend",
        (
            tensor("q"),
            tensor("k"),
            tensor("v"),
            *mask(),
            Param("window", Kind.INT, None, short=True),
            number("scale", None),
            number("softcap", None),
            tensor("bias", None),
            tensor("sink", None),
        ),
        attention.attend,
        "Attention without projections (Vaswani et al. 2017, section 3.2.1): queries [T, H, "
        "h], keys [S, K, h] and values [S, K, w] give [T, H, w]. Each group of H / K query "
        "heads shares one head of keys and values. A query sees what the "
        "[mask](language.md#masks) lets it see, and no padding; one that sees nothing gives 0. "
        "`window` = n is short for `within(n)` in a causal mask (Beltagy et al. 2020). The "
        "scores are q k^T * `scale`, by default 1 / sqrt(h); then `softcap` * tanh(scores / "
        "`softcap`) (Gemma Team 2024, section 2); then `bias` [H, T, S] is added. `sink` [H] "
        "joins the denominator of the softmax as the score of a key without a value (OpenAI "
        "2025, section 2.1). Axes before T and S are those of separate sequences, such as the "
        "windows of an image; `bias` and the tensors of the mask may have them too.",
        resolve_defaults=attention.attend_defaults,
        write_out=attention.write_out,
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
        (X, Param("sizes", Kind.SIZES), activation("gelu"), flag("bias", True)),
        products.mlp,
        "Linear layers with an activation between them: one or more hidden sizes, then the "
        "output size.",
        weights=products.mlp_weights,
        flops=products.mlp_flops,
        scratch=products.mlp_scratch,
        example="mlp(4 * D, D, relu)",
    ),
    Op(
        "conv1d",
        (
            X,
            integer("dim"),
            integer("kernel"),
            integer("stride", 1),
            integer("padding", 0),
            flag("bias", True),
            flag("causal", False),
            integer("groups", 1),
            integer("dilation", 1),
        ),
        convolution.conv1d,
        "A convolution along the sequence with trained kernels [dim, C / groups, kernel] and a "
        "trained bias [dim]; `padding` zeros are added at both ends. With `causal` as many as "
        "the kernel needs are added in front, and none at the end. The features are divided "
        "into `groups`, each with its own kernels; `groups = D` is a depthwise convolution. "
        "Between two positions that a kernel uses there are `dilation` - 1 others. Padding of "
        "a ragged axis counts as zeros. A stride of a varying axis T gives (T + 2 `padding` - "
        "`kernel`) // `stride` + 1 positions, without those that see padding at the end.",
        weights=convolution.weights,
        flops=convolution.flops,
        scratch=convolution.scratch,
        tail=convolution.tail,
        without_tail=("causal",),
        example="conv1d(D, 3, padding = 1)",
    ),
    *(
        Op(name, (X,), rules.same, doc, example=name)
        for name, doc in (rules.ACTIVATIONS | rules.FUNCTIONS).items()
    ),
    Op(
        "patches",
        (X, integer("patch"), integer("stride", None), integer("padding", 0)),
        shapes.patches,
        "Cuts an image [C, H, W] into squares and flattens each into a vector of C * patch * "
        "patch numbers, in the order channel, row, column (Dosovitskiy et al. 2020, section "
        "3.1). The squares begin every `stride` rows and columns, by default every `patch`; "
        "`padding` zeros are added around the image. With `linear` behind it, it is a "
        "convolution of the image.",
        example="patches(16)",
    ),
    Op(
        "readout",
        (X, Param("name", Kind.MARK)),
        shapes.readout,
        "Selects the vector at a position with a name, which `prepend` or `concat` gave.",
        example="readout(cls)",
    ),
    Op(
        "at",
        (X, tensor("tokens"), token("token", None)),
        shapes.at,
        "Selects the vector at the first position where `tokens` equals `token`, or at "
        "position 0 if there is none. Without `token`, at the first position of the largest.",
        example="at(tokens, 49407)",
    ),
    Op(
        "at_end",
        (X, tensor("tokens", None), token("padding", None)),
        shapes.at_end,
        "Selects the vector at the last position, which is no padding of a ragged axis. With "
        "`padding`, at the last position where `tokens` is another number, or at position 0 if "
        "there is none.",
        example="at_end(tokens, 0)",
    ),
    Op(
        "mean",
        (X, axis(None)),
        shapes.mean,
        "The mean along an axis (default: the sequence); of bools, the share of true ones. "
        "Padding of a ragged axis is ignored.",
        example="mean(T)",
    ),
    *SCORES,
    *TENSOR_OPS,
    *(
        Op(
            name,
            (X, tensor("other"), Param("along", Kind.AXES, None)),
            {"add": elementwise.add, "multiply": elementwise.multiply}.get(
                name, elementwise.pair
            ),
            doc + _PAIR,
            resolve_defaults=elementwise.match_axes,
            check_names=elementwise.check_order,
            example=f"{name}(a, b)",
        )
        for name, doc in rules.PAIRS.items()
    ),
    Op(
        "compare",
        (
            X,
            Param("kind", Kind.CHOICE, choices=tuple(elementwise.COMPARISONS)),
            tensor("other", None),
            number("to", None),
            Param("along", Kind.AXES, None),
        ),
        elementwise.compare,
        "Whether each number is equal to that of another tensor, less, and so on, or to the "
        "number `to`: a bool tensor; also written `a == b`, `a < 3`, …. In a product it keeps "
        "the numbers where it is true." + _PAIR,
        resolve_defaults=elementwise.match_axes,
        check_names=elementwise.check_order,
        example="compare(ids, equal, to = 3)",
    ),
    Op(
        "scale",
        (X, number("by")),
        rules.scaled,
        "The product of a tensor and a number; also written `x * 0.5`, `x / 2` or `-x`. That "
        "of whole numbers is float.",
        example="scale(sqrt(D))",
    ),
    Op(
        "shift",
        (X, number("by")),
        rules.same,
        "The sum of a tensor and a number; also written `x + 1` or `x - 1`.",
        example="shift(1)",
    ),
    Op(
        "weight",
        (Param("sizes", Kind.SIZES, ()), number("start", None), number("std", None)),
        rules.weight,
        "A trained tensor; also written as a statement, `weight name: float[D] = zeros`. All "
        "its elements start at `start`, or are drawn from a normal distribution with the "
        "standard deviation `std`; without both, the `init` of the model draws them.",
        weights=rules.weight_weights,
        example="weight(D, start = 0)",
    ),
    Op(
        "concat",
        (
            X,
            tensor("other"),
            axis(None),
            Param("along", Kind.AXES, None),
            Param("name", Kind.MARK, None),
        ),
        shapes.concat,
        "Concatenates two tensors, of floats or of whole numbers, along an axis (default: the "
        "last). A tensor of fixed size in front of a sequence is a prefix: the result stays "
        "causal. Along the last axis, a tensor that lacks some of the others is the same along "
        "them, as in `a + b`.",
        resolve_defaults=shapes.concat_defaults,
        adds_prefix=True,
        example="concat(a, b, T)",
    ),
    Op(
        "reshape",
        (X, Param("pattern", Kind.TEXT), Param("sizes", Kind.NAMED_SIZES, ())),
        axes.reshape,
        "Splits, merges and reorders axes by name; `1` adds or drops an axis of size 1.",
        example='reshape("T (heads size) -> heads T size", heads = 8)',
    ),
    Op(
        "slice",
        (X, axis(), integer("start", 0), integer("stop", None)),
        shapes.slice_,
        "Selects the positions from `start` up to, but not including, `stop` of an axis.",
        drops_prefix=True,
        example="slice(D, 0, 64)",
    ),
    Op(
        "delay",
        (X, integer("by", 1), flag("padded", True)),
        shapes.delay,
        "Gives each position of the first axis the value of the position `by` before it. The "
        "first ones, which have none, get zeros; without `padded` they are left out.",
        tail=shapes.delay_tail,
        without_tail=("padded",),
        example="delay(1)",
    ),
    Op(
        "dropout",
        (X, number("rate")),
        rules.dropout,
        "In training, sets each value to 0 with probability `rate` and divides the others by "
        "1 - rate (Srivastava et al. 2014). Otherwise it does nothing.",
        random=True,
        example="dropout(0.1)",
    ),
    Op(
        "next_token",
        (
            tensor("logits"),
            tensor("tokens"),
            tensor("where", None),
            integer("ahead", 1),
            number("smoothing", 0.0),
        ),
        losses.next_token,
        "The mean cross entropy, in nats, of each token given the tokens before it. The "
        "logits must be causal. With `ahead` = 2 they predict the token after the next. Only "
        "tokens at which `where` is true count. `smoothing` is spread over all classes "
        "(Szegedy et al. 2015, section 7).",
        loss=True,
        example="next_token(logits, tokens)",
    ),
    Op(
        "cross_entropy",
        (
            tensor("logits"),
            tensor("label"),
            tensor("where", None),
            number("smoothing", 0.0),
        ),
        losses.cross_entropy,
        "The mean cross entropy, in nats, of the correct classes. Only labels at which `where` "
        "is true count, such as the masked tokens of BERT. `smoothing` is spread over all "
        "classes (Szegedy et al. 2015, section 7).",
        loss=True,
        example="cross_entropy(logits, label: int < classes)",
    ),
    Op(
        "binary_cross_entropy",
        (tensor("logits"), tensor("label"), tensor("where", None)),
        losses.binary_cross_entropy,
        "The mean cross entropy, in nats, of labels that are 0 or 1, each by itself. The "
        "probability of 1 is sigmoid(logit).",
        loss=True,
        example="binary_cross_entropy(logits, label: bool[tags])",
    ),
    Op(
        "squared_error",
        (X, tensor("target"), tensor("where", None)),
        losses.squared_error,
        "The mean of (x - target)^2.",
        loss=True,
        example="squared_error(y, target: float[D])",
    ),
    Op(
        "contrastive",
        (
            X,
            tensor("other"),
            Param("kind", Kind.CHOICE, "softmax", ("softmax", "sigmoid")),
            tensor("bias", None),
        ),
        losses.contrastive,
        "Compares the vector `x` [D] of each example with the vectors `other` [D] of the whole "
        "batch by dot products. `softmax`: the mean cross entropy, in nats, of finding the "
        "right `other` for each `x`, and the other way round (Radford et al. 2021, figure 3). "
        "`sigmoid`: the binary cross entropy of each pair, with `bias` added to its dot "
        "product, divided by the number of examples (Zhai et al. 2023, algorithm 1).",
        loss=True,
        example="contrastive(images, texts)",
    ),
    Op(
        "z_loss",
        (tensor("logits"), tensor("where", None)),
        losses.z_loss,
        "The mean of (log sum exp(logits))^2, which keeps logits small (Chowdhery et al. 2022, "
        "section 5).",
        loss=True,
        example="z_loss(logits)",
    ),
    Op(
        "penalty",
        (X, tensor("where", None)),
        losses.penalty,
        "The mean of `x`, such as a loss that balances experts.",
        loss=True,
        example="penalty(balance)",
    ),
)

OPS = {op.name: op for op in _ROWS}
OPERATORS = OPS | DERIVED
# Forms are called like operators and make other nodes of the graph.
FORMS = {MIXTURE.name: MIXTURE, SPLIT.name: SPLIT}
CALLED = OPS | FORMS  # all that a spec can call, besides blocks

# Former names of operators and blocks, for the help of a message.
RENAMED = {"temperature": "logit_scale"}
