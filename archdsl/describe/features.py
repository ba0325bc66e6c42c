"""What a model is, in the field's words, read off its graph alone.

A feature that cannot be told for sure is left out: what is said here is true.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from archdsl.describe.sublayers import Attention, Mlp, Wiring
from archdsl.graph.cost import cost
from archdsl.graph.nodes import Apply, Graph, Stack
from archdsl.graph.ops import OPS
from archdsl.graph.products import MATMUL_OPS
from archdsl.graph.sites import sites
from archdsl.graph.types import Axis, Type

NONE = "none"
_POSITIONS = ("posenc", "rotary", "relative_bias", "alibi")
_COMPOSITE = frozenset({"attention", "mlp"})  # of products
_READOUTS = ("readout", "first", "mean", "at")


def features(graph: Graph) -> dict[str, str]:
    """The features of a model by name; one that it surely lacks is "none".

    Where parts of a model differ, as its stacks may, each form is named once. Flops are those
    of one example with each varying axis at its bound.
    """
    wiring, types, amounts = Wiring(graph), graph.types(), cost(graph)
    stacks = [node for node in graph.nodes if isinstance(node, Stack)]
    attentions = list(wiring.attentions())
    own = [each for each in attentions if not each.over]
    found: dict[str, str | None] = {
        **{f"input {each.name}": _shape(each.type) for each in graph.inputs},
        **{f"output {name}": _shape(types[ref]) for name, ref in graph.outputs},
        "vocabulary": _forms(wiring, "embed", lambda n: f"{n.attr['vocab']:,}"),
        "context": _join_unique(f"{axis.name} <= {axis.bound:,}" for axis in graph.varying),
        "padding": _join_unique(
            f"{i.name}: {i.pad}" for i in graph.inputs if i.pad is not None
        ),
        "patch": _forms(wiring, "patches", lambda n: f"{n.attr['patch']} x {n.attr['patch']}"),
        "convolutions": _forms(wiring, "conv1d", _convolution),
        "embedding": _embedding(wiring),
        "positions": _positions(wiring),
        "depth": " + ".join(str(stack.count) for stack in stacks) or NONE,
        "D": _join_unique(_width(stack) for stack in stacks) if stacks else None,
        "norm": _norm(wiring),
        "attention": _join_unique(map(_attention, own)),
        "cross-attention": _join_unique(_attention(each) for each in attentions if each.over),
        "mlp": _mlps(wiring),
        "biases": _biases(graph),
        "layer scale": _forms(wiring, "layer_scale", lambda n: f"from {n.attr['start']:g}"),
        "dropout": _forms(wiring, "dropout", lambda n: f"{n.attr['rate']:g}"),
        "readout": _join_unique(map(_readout, wiring.outside(*_READOUTS))),
        "logits": _logits(wiring),
        "loss": graph.loss.op if graph.loss else NONE,
        "fresh weights": _with_details(
            graph.init[0], *(f"{k} {n:g}" for k, n in graph.init[1])
        ),
        "parameters": f"{amounts.params:,}",
        "flops": f"{amounts.flops:.4g}",
    }
    return {name: text for name, text in found.items() if text}


# -- words --


def _join_unique(words: Iterable[str]) -> str:
    """Each form once, in the order of their appearance."""
    return "; ".join(dict.fromkeys(words)) or NONE


def _forms(wiring: Wiring, ops: str | tuple[str, ...], say: Callable[[Apply], str]) -> str:
    """The forms in which some operators are used."""
    return _join_unique(map(say, wiring.applies(*((ops,) if isinstance(ops, str) else ops))))


def _with_details(what: str, *more: str) -> str:
    """`rotary (theta 10000, halves)`"""
    return f"{what} ({', '.join(more)})" if more else what


def _shape(type: Type) -> str:
    """A type without what a spec calls its sizes, without bounds and what is derived."""
    named = (None if axis.size.value is not None else axis.name for axis in type.axes)
    axes = tuple(Axis(n, a.size, a.marks) for n, a in zip(named, type.axes, strict=True))
    return str(Type(type.dtype, axes))


def _width(stack: Stack) -> str:
    return str(stack.carry_type.axes[-1].size) if stack.carry_type.axes else NONE


# -- what comes first --


def _convolution(node: Apply) -> str:
    return f"{node.attr['dim']} of kernel {node.attr['kernel']}, stride {node.attr['stride']}"


def _embedding(wiring: Wiring) -> str:
    """How many tables there are, and by what their vectors are multiplied."""
    embeds = list(wiring.applies("embed"))
    tables = [node for node in embeds if node.attr["tied"] is None]
    if not tables:
        return NONE
    words = ["one table" if len(tables) == 1 else f"{len(tables)} tables"]
    if len(embeds) > len(tables) == 1:
        users = dict.fromkeys(name for node in embeds for name in wiring.sources(node.id))
        words[0] += f" for {' and '.join(users)}"
    after = [user for node in embeds for user in wiring.users.get(node.id, [])]
    scales = [n.attr["by"] for n in after if isinstance(n, Apply) and n.op == "scale"]
    words += [f"scaled by {by:.4g}" for by in dict.fromkeys(scales)]
    return ", ".join(words)


def _positions(wiring: Wiring) -> str | None:
    found = [_position(node) for node in wiring.applies(*_POSITIONS)]
    # Without one of these operators they may still come in, or be told by a convolution.
    others = len(wiring.graph.inputs) > 1 or any(wiring.applies("conv1d"))
    return _join_unique(found) if found or not others else None


def _position(node: Apply) -> str:
    attr = node.attr
    match node.op:
        case "posenc" if attr["kind"] == "learned":
            return _with_details("learned", f"{attr['context']:,}")
        case "posenc":
            return _with_details("sinusoidal", str(attr["layout"]))
        case "rotary":
            words = [f"theta {attr['theta']:.10g}", str(attr["layout"])]
            width = node.type.axes[-1].size.value
            words += [f"{attr['size']} of {width} features"] if attr["size"] != width else []
            if attr["scaling"]:
                words.append(f"{attr['scaling']} scaling by {attr['factor']:g}")
            return _with_details("rotary", *words)
        case "relative_bias":
            return _with_details("relative", f"{attr['buckets']} buckets to {attr['distance']}")
        case _:
            return node.op


# -- stacks --


def _norm(wiring: Wiring) -> str:
    """Kinds and places; norms of each head and of what comes out are none of the stream."""
    norms = [
        node
        for node in wiring.applies("norm")
        if node.attr["kind"] != "l2" and len(node.type.axes) < 3
    ]
    kinds = _join_unique(map(_norm_kind, norms))
    places = wiring.norm_places() if norms else None
    return f"{kinds}, {' and '.join(places)}" if places else kinds


def _norm_kind(node: Apply) -> str:
    lacking = [] if node.attr["scale"] else ["no scale"]
    lacking += ["no bias"] if node.attr["kind"] == "layer" and not node.attr["bias"] else []
    return _with_details(str(node.attr["kind"]), f"eps {node.attr['eps']:g}", *lacking)


def _attention(each: Attention) -> str:
    words = [f"{each.heads} heads" if each.heads > 1 else "1 head"]
    if each.kv_heads != each.heads:
        shared = f"{each.kv_heads} keys and values" if each.kv_heads > 1 else "1 key and value"
        words[0] += f" on {shared}"
    if each.width is not None and each.heads * each.head_size != each.width:
        words[0] += f" of {each.head_size}"
    words += ["causal"] if each.causal else []
    words += [f"window {each.window:,}"] if each.window else []
    usual = abs(each.scale * each.head_size**0.5 - 1) < 1e-6
    unusual = "unscaled scores" if each.scale == 1 else f"scores times {each.scale:g}"
    words += [] if usual else [unusual]
    words += [f"{each.normed} norm of queries and keys"] if each.normed else []
    words += [f"over {' and '.join(each.over)}"] if each.over else []
    return ", ".join(words)


def _mlps(wiring: Wiring) -> str | None:
    """All forms that are recognised; others there may be, so none is no answer."""
    forms = [*map(_mlp, wiring.mlps()), *map(_experts, wiring.applies("experts"))]
    return _join_unique(forms) if forms else None


def _mlp(each: Mlp) -> str:
    act = f"gated {each.act}" if each.gated else each.act
    return f"{act}, {' and '.join(f'{size:,}' for size in each.hidden)} hidden"


def _experts(node: Apply) -> str:
    attr = node.attr
    act, hidden = f"gated {attr['act']}", f"{attr['hidden']:,} hidden"
    return f"{attr['top']} of {attr['count']} experts, {act}, {hidden}"


def _biases(graph: Graph) -> str:
    """Which products have a bias, by the last part of their places."""
    having: dict[str, None] = {}
    lacking: dict[str, None] = {}
    others = False
    for node, _, here in sites(graph):
        weights = [weight.name for weight in OPS[node.op].weights(here)]
        if node.op not in MATMUL_OPS | _COMPOSITE:
            others = others or "bias" in weights or node.op == "add_bias"
            continue
        for place in (w.removesuffix("weight") for w in weights if w.endswith("weight")):
            word = place.rstrip(".")
            word = word if word.isalpha() else node.path.rpartition(".")[2] or node.op
            (having if f"{place}bias" in weights else lacking)[word] = None
    if not having:
        return "in no product" if others else NONE
    if set(having) & set(lacking):
        return "in some products"
    few, word = (having, "in") if len(having) <= len(lacking) else (lacking, "not in")
    return f"{word} {', '.join(few)}" if lacking else "everywhere"


# -- what comes last --


def _readout(node: Apply) -> str:
    match node.op:
        case "readout":
            return str(node.attr["name"])
        case "first":
            return "first position"
        case "at":
            return f"at token {node.attr['token']}"
        case _:
            return "mean"


def _logits(wiring: Wiring) -> str | None:
    """How logits over the vocabulary are made, where an output is such."""
    vocab = max((node.attr["vocab"] for node in wiring.applies("embed")), default=None)  # type: ignore[type-var]
    words = []
    for _, ref in wiring.graph.outputs:
        last = next(
            (n for n in wiring.chain_before(ref) if n.op in ("linear", "unembed")), None
        )
        if last and last.op == "unembed":
            words.append("tied to the embedding")
        elif last and last.attr["dim"] == vocab:
            words.append("a product of their own")
    return _join_unique(words) if words else None
