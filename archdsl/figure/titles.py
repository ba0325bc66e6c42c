"""The words in the boxes, as papers print them: of an operator, and of a block by its parts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from archdsl.figure.structure import Kind
from archdsl.graph import masks
from archdsl.graph.nodes import Apply, Mixture, Node, Scan, Stack
from archdsl.graph.rules import ACTIVATIONS, POINTWISE
from archdsl.graph.types import Type
from archdsl.semantics.library import tree
from archdsl.syntax import ast

# The words for an operator, where they are not its name.
TITLES = {
    "embed": "Embedding",
    "unembed": "Linear",
    "linear": "Linear",
    "conv1d": "Convolution",
    "rotary": "RoPE",
    "alibi": "ALiBi",
    "relative_bias": "Relative Position Bias",
    "sinusoid": "Sinusoids",
    "patches": "Patches",
    "concat": "Concatenate",
    "contract": "Product",
    "attend": "Scaled Dot-Product Attention",
    "scores": "Attention Scores",
    "mix": "Weighted Sum",
    "renumber": "Renumber",
    "at": "Vector at Token",
    "at_end": "Last Position",
    "top": "Top k",
    "gelu": "GELU",
    "gelu_tanh": "GELU",
    "quick_gelu": "Quick GELU",
    "relu": "ReLU",
    "silu": "SiLU",
    "sum": "Sum",
    "mean": "Mean",
}
KINDS: dict[str, Kind] = {
    "attention": "attention",
    "attend": "attention",
    "scores": "attention",
    "mix": "attention",
    "mlp": "feed",
    "norm": "norm",
    "embed": "embed",
    "posenc": "embed",
    "patches": "embed",
    "sinusoid": "embed",
    "rotary": "embed",
    "alibi": "embed",
    "relative_bias": "embed",
    "positions": "plain",
    "weight": "plain",
    "linear": "linear",
    "unembed": "linear",
    "conv1d": "linear",
    "softmax": "activation",
    **dict.fromkeys(ACTIVATIONS, "activation"),
}
# What an MLP consists of.
_FEED_FORWARD = POINTWISE | {"linear", "mlp", "reshape", "weight", "dropout"}
GATED = {
    "silu": "SwiGLU",
    "gelu": "GEGLU",
    "gelu_tanh": "GEGLU",
    "relu": "ReGLU",
    "sigmoid": "GLU",
}
# Words that are small within a title.
_SMALL = {
    word.capitalize(): word for word in ("of", "at", "to", "in", "and", "or", "by", "over")
}
CIRCLES = {"add": "+", "subtract": "−", "multiply": "×", "divide": "÷"}


def words(name: str) -> str:
    """A name of a spec as words of a title.

    >>> words("self_attention_block"), words("mlp"), words("norm_2"), words("x")
    ('Self-Attention Block', 'MLP', 'Norm', 'x')
    """
    if len(name) == 1:
        return name
    name = re.sub(r"_\d+$", "", name)
    known = {"mlp": "MLP", "rms": "RMS", "moe": "MoE", "ssm": "SSM", "id": "ID", "cls": "CLS"}
    parts = [known.get(w, w[:1].upper() + w[1:]) for w in name.split("_") if w]
    found = " ".join(parts[:1] + [_SMALL.get(part, part) for part in parts[1:]])
    return re.sub(r"\b(Self|Cross) Attention", r"\1-Attention", found)


def label(path: str, op: str) -> str:
    """The last name of a path, if it says more than the operator.

    >>> label("h.head", "linear"), label("h.linear_2", "linear"), label("conv", "conv1d")
    ('head', '', '')
    """
    name = re.sub(r"_\d+$", "", path.rpartition(".")[2])
    return "" if op.startswith(name) or name.isdecimal() else name


def of_operator(node: Apply, types: Mapping[str, Type]) -> tuple[str, str, Kind]:
    """The title, the note and the colour of an operator."""
    note, kind = label(node.path, node.op), KINDS.get(node.op, "other")
    attr = node.attr
    match node.op:
        case "attention":
            title, note = _attention(node, types), ""
        case "mlp":
            title, note = _feed(node), ""
        case "norm":
            title, note = f"{words(str(attr['kind']))} Norm", ""
        case "posenc":
            learned = attr["kind"] == "learned"
            title, note = ("Position Embedding" if learned else "Positional Encoding"), ""
        case "unembed" | "embed" if attr["tied"] is not None:
            tied = str(attr["tied"])
            title, note = TITLES[node.op], f"tied to {TITLES.get(tied) or words(tied)}"
        case "slice" if node.names:
            title, note = "Slice", node.names[0].rpartition(".")[2]
        case "readout":
            title, note = "Readout", f"[{words(str(attr['name']))}]"
        case "weight":
            title, note = words(_owner(node.path)), ""
        case "scale":
            title = f"Scale by {attr['by']:.3g}"
        case "conv1d" if attr["groups"] != 1:
            title = "Depthwise Convolution" if attr["groups"] == attr["dim"] else "Convolution"
        case _:
            title = TITLES.get(node.op) or words(node.op)
    return title, words(note) if note.islower() else note, kind


def of_group(
    path: str, nodes: Sequence[Node], types: Mapping[str, Type]
) -> tuple[str, str, Kind]:
    """The title, the note and the colour of a block, from what it holds; else from its name."""
    applies = [node for node in nodes if isinstance(node, Apply)]
    ops = Counter(node.op for node in applies)
    name = words(path.rpartition(".")[2])
    for node in nodes:
        if isinstance(node, Mixture):
            return "Mixture of Experts", f"{node.chosen} of {node.count}", "feed"
        if isinstance(node, Scan):
            return words(_written_in(nodes) or name), "state", "attention"
    for node in applies:
        if node.op in ("attention", "attend"):
            notes = [TITLES[op] for op in ("rotary", "alibi") if op in ops]
            return _attention(node, types), ", ".join([*notes, *_window(node)]), "attention"
    if "softmax" in ops and ("mix" in ops or ops["contract"] > 1):
        return "Multi-Head Attention", "", "attention"
    if not set(ops) - _FEED_FORWARD and (ops["linear"] > 1 or ops["mlp"]):
        acts = [op for op in ops if op in ACTIVATIONS]
        gated = ops["linear"] > 2 and ops["multiply"] and len(acts) == 1
        return _feed(nodes[-1]), GATED.get(acts[0], "gated") if gated else "", "feed"
    if ops["conv1d"]:
        return ("Convolution" if "Attention" in name else name), "", "linear"
    if not set(ops) - {"linear", "reshape", "add", "weight"} and ops["linear"]:
        return name, "", "linear"
    return name, "", "embed" if {"embed", "patches", "posenc"} & set(ops) else "other"


def _written_in(nodes: Sequence[Node]) -> str | None:
    """The name of the block in a file whose body has most of these operators."""
    found: Counter[str] = Counter()
    for node in nodes:
        if node.span is not None:
            blocks = (i for i in tree(node.span.source).items if isinstance(i, ast.Block))
            around = (b for b in blocks if b.span.start <= node.span.start < b.span.end)
            found.update(block.name.id for block in around)
    return max(found, key=lambda name: found[name]) if found else None


def _feed(node: Node) -> str:
    """An MLP of each vector of a sequence, or of one vector."""
    return "Feed Forward" if len(node.type.axes) > 1 else "MLP"


def of_stack(node: Stack) -> str:
    """The name of a stack's block; a spec that gives only a letter calls it a layer."""
    name = node.path.rpartition(".")[2]
    return "Layer" if len(name) < 3 or name in ("stack", "layers", "blocks") else words(name)


def _owner(path: str) -> str:
    """The name of a weight; that of the block around it if the weight has only a common one."""
    *around, name = path.split(".")
    return around[-1] if around and name in ("weight", "bias") else name


def _attention(node: Apply, types: Mapping[str, Type]) -> str:
    """`Masked Multi-Head Attention`, with the words for shared keys and values."""
    if node.op == "attention":
        heads, shared = node.attr["heads"], node.attr["kv_heads"]
    else:
        tensors = dict(node.inputs)
        heads, shared = (types[tensors[key]].axes[-2].size.value for key in "qk")
    mask = masks.parse(node.attr["mask"])
    masked = (
        "Masked " if masks.CAUSAL in (mask, *(mask.parts if mask.op == "&" else ())) else ""
    )
    if heads == 1:
        return f"{masked}Attention"
    grouped = (
        "Multi-Head" if heads == shared else "Multi-Query" if shared == 1 else "Grouped-Query"
    )
    return f"{masked}{grouped} Attention"


def _window(node: Apply) -> list[str]:
    atoms = masks.atoms(masks.parse(node.attr["mask"]))
    return [f"window {atom.args[0]:,}" for atom in atoms if atom.op == "within"]
