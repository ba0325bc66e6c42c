"""Describes a model by features such as its norm, attention and positions.

Features are recognized from the graph. One that is uncertain is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from archdsl.describe.sublayers import Attention, Mlp, Wiring
from archdsl.graph import masks
from archdsl.graph.cost import cost, format_count
from archdsl.graph.nodes import Apply, Graph, Input, Stack, describe_losses, walk
from archdsl.graph.ops import OPS
from archdsl.graph.printer import literal
from archdsl.graph.products import MATMUL_OPS
from archdsl.graph.sites import sites
from archdsl.graph.types import Axis, Type

NONE = "none"
_POSITIONS = ("posenc", "rotary", "relative_bias", "alibi")
_COMPOSITE = frozenset({"attention", "mlp"})  # of linear layers
_READOUTS = ("readout", "slice", "mean", "at")


def features(graph: Graph) -> dict[str, str]:
    """The features of a model by name; the value is "none" if the model lacks the feature.

    If parts of a model differ, each form is listed once. Flops are for one example with each
    varying axis at its bound.
    """
    wiring, types, amounts = Wiring(graph), graph.types(), cost(graph)
    stacks = [node for node in graph.nodes if isinstance(node, Stack)]
    attentions = list(wiring.attentions())
    own = [each for each in attentions if not each.over]
    found: dict[str, str | None] = {
        **{f"input {each.name}": _input(each) for each in graph.inputs},
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
        "layer scale": _join_unique(_layer_scales(wiring)),
        "dropout": _forms(wiring, "dropout", lambda n: f"{n.attr['rate']:g}"),
        "readout": _join_unique(filter(None, map(_readout, wiring.outside(*_READOUTS)))),
        "logits": _logits(wiring),
        "loss": describe_losses(graph) or NONE,
        "initialization": _with_details(
            graph.init[0], *(f"{k} {n:g}" for k, n in graph.init[1])
        ),
        "parameters": f"{amounts.params:,}",
        "flops": format_count(amounts.flops),
    }
    return {name: text for name, text in found.items() if text}


# -- formatting --


def _join_unique(words: Iterable[str]) -> str:
    """Joins distinct forms in the order of appearance."""
    return "; ".join(dict.fromkeys(words)) or NONE


def _forms(wiring: Wiring, ops: str | tuple[str, ...], say: Callable[[Apply], str]) -> str:
    """The forms in which operators are used."""
    return _join_unique(map(say, wiring.applies(*((ops,) if isinstance(ops, str) else ops))))


def _with_details(what: str, *more: str) -> str:
    """`rotary (theta 10000, halves)`"""
    return f"{what} ({', '.join(more)})" if more else what


def _input(each: Input) -> str:
    default = "" if each.default is None else f" = {literal(each.default)}"
    return _shape(each.type) + default


def _shape(type: Type) -> str:
    """A type without the names of fixed sizes, bounds and causality."""
    named = (None if axis.size.value is not None else axis.name for axis in type.axes)
    axes = tuple(Axis(n, a.size, a.marks) for n, a in zip(named, type.axes, strict=True))
    return str(Type(type.dtype, axes))


def _width(stack: Stack) -> str:
    return str(stack.type.axes[-1].size) if stack.type.axes else NONE


# -- inputs --


def _convolution(node: Apply) -> str:
    return f"{node.attr['dim']} of kernel {node.attr['kernel']}, stride {node.attr['stride']}"


def _embedding(wiring: Wiring) -> str:
    """The number of tables, and the scale of their vectors."""
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
    # Without these operators, an input or a convolution can still encode positions.
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
    """The kinds and places of norms, except norms of heads and l2 norms."""
    norms = [
        node
        for node in wiring.applies("norm")
        if node.attr["kind"] != "l2" and len(node.type.axes) < 3
    ]
    kinds = _join_unique(map(_norm_kind, norms))
    places = wiring.norm_places() if norms else None
    return f"{kinds}, {' and '.join(places)}" if places else kinds


def _norm_kind(node: Apply) -> str:
    missing = [] if node.attr["scale"] else ["no scale"]
    missing += ["no bias"] if node.attr["kind"] == "layer" and not node.attr["bias"] else []
    return _with_details(str(node.attr["kind"]), f"eps {node.attr['eps']:g}", *missing)


def _attention(each: Attention) -> str:
    words = [f"{each.heads} heads" if each.heads > 1 else "1 head"]
    if each.kv_heads != each.heads:
        words[0] += f" with {each.kv_heads} key-value head{'s' if each.kv_heads > 1 else ''}"
    if each.width is not None and each.heads * each.head_size != each.width:
        words[0] += f" of {each.head_size}"
    parts = each.mask.parts if each.mask.op == "&" else (each.mask,)
    words += ["causal"] if masks.CAUSAL in parts else []
    others = masks.both(*(part for part in parts if part != masks.CAUSAL))
    if others.op == "within" and masks.CAUSAL in parts:
        words.append(f"window {others.args[0]:,}")
    elif others != masks.EVERYTHING:
        words.append(masks.shown(others).strip("`"))
    usual = abs(each.scale * each.head_size**0.5 - 1) < 1e-6
    unusual = "unscaled scores" if each.scale == 1 else f"scores times {each.scale:g}"
    words += [] if usual else [unusual]
    words += [f"{each.normed} norm of queries and keys"] if each.normed else []
    words += [f"over {' and '.join(each.over)}"] if each.over else []
    return ", ".join(words)


def _layer_scales(wiring: Wiring) -> Iterator[str]:
    """The starts of trained vectors that multiply features, except those of norms."""
    for node in wiring.applies("multiply"):
        sides = [wiring.producers.get(ref) for _, ref in node.inputs]
        applied = [each for each in sides if isinstance(each, Apply)]
        if not any(each.op == "norm" for each in applied):
            for each in applied:
                if each.op == "weight" and each.type.axes:
                    start = each.attr["start"]
                    yield "drawn" if start is None else f"from {start:g}"


def _mlps(wiring: Wiring) -> str | None:
    """The recognized forms of mlps; None if there are none, since others may exist."""
    forms = list(map(_mlp, wiring.mlps()))
    return _join_unique(forms) if forms else None


def _mlp(each: Mlp) -> str:
    act = f"gated {each.act}" if each.gated else each.act
    act = "{} of {} experts, {}".format(*each.chosen, act) if each.chosen else act
    return f"{act}, {' and '.join(f'{size:,}' for size in each.hidden)} hidden"


def _biases(graph: Graph) -> str:
    """The linear layers that have a bias, by the last part of their paths."""
    having: dict[str, None] = {}
    missing: dict[str, None] = {}
    others = False
    adds = (n for n, _ in walk(graph.nodes) if isinstance(n, Apply) and n.op == "add")
    added = {ref for node in adds for _, ref in node.inputs}
    for node, _, here in sites(graph):
        weights = [weight.name for weight in OPS[node.op].weights(here)]
        if node.op not in MATMUL_OPS | _COMPOSITE:
            others = others or "bias" in weights or (node.op == "weight" and node.id in added)
            continue
        for place in (w.removesuffix("weight") for w in weights if w.endswith("weight")):
            word = place.rstrip(".")
            word = word if word.isalpha() else node.path.rpartition(".")[2] or node.op
            (having if f"{place}bias" in weights else missing)[word] = None
    if not having:
        return "in no linear layer" if others else NONE
    if set(having) & set(missing):
        return "in some linear layers"
    few, word = (having, "in") if len(having) <= len(missing) else (missing, "not in")
    return f"{word} {', '.join(few)}" if missing else "everywhere"


# -- outputs --


def _readout(node: Apply) -> str | None:
    match node.op:
        case "readout":
            return str(node.attr["name"])
        case "slice":
            places = node.attr["axis"], node.attr["start"], node.attr["stop"]
            return "first position" if places == (0, 0, 1) else None
        case "at":
            return f"at token {node.attr['token']}"
        case _:
            return "mean"


def _logits(wiring: Wiring) -> str | None:
    """How logits over the vocabulary are computed, if an output has them."""
    vocab = max((node.attr["vocab"] for node in wiring.applies("embed")), default=None)  # type: ignore[type-var]
    words = []
    for _, ref in wiring.graph.outputs:
        last = next(
            (n for n in wiring.chain_before(ref) if n.op in ("linear", "unembed")), None
        )
        if last and last.op == "unembed":
            words.append("tied to the embedding")
        elif last and last.attr["dim"] == vocab:
            words.append("a separate linear layer")
    return _join_unique(words) if words else None
