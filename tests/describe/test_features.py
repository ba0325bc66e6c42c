"""The features of a model, and the first difference of two graphs."""

from __future__ import annotations

import pytest

from archdsl.analysis import analyse
from archdsl.describe.compare import difference, operators
from archdsl.describe.features import features
from archdsl.diagnostics import ArchError
from tests.semantics.small import graph, model

HEADS = """
use "blocks.arch"
block heads_of(x: float[T, D], n): float[T, n, D // n] {
  x -> reshape("T (n size) -> T n size", n = n)
}
block joined(x: float[T, H, h]): float[T, H * h] { x -> reshape("T n size -> T (n size)") }
block looked(x: float[T, D], z: float[S, E], by: block, shared = 2): float[T, D] {
  q = x -> q: linear(D) -> heads_of(4) -> by
  k = z -> k: linear(D // 4 * shared, bias = false) -> heads_of(shared) -> by
  v = z -> v: linear(D // 4 * shared) -> heads_of(shared)
  attend(q, k, v, scale = 1) -> joined -> out: linear(D)
}
block gated(x: float[T, D]): float[T, D] {
  (x -> linear(24) -> silu) * (x -> linear(24)) -> linear(D)
}
block routed(x: float[T, D]): float[T, D] { x -> mixture(x -> top(2), gated) }
block pre(x: float[T, D], f: block): float[T, D] { x + (x -> norm(rms) -> f) }
block post(x: float[T, D], f: block): float[T, D] { x + (x -> f) -> norm }
block sandwich(x: float[T, D], f: block): float[T, D] { x + (x -> norm -> f -> norm) }
block parallel(x: float[T, D]): float[T, D] {
  n = x -> norm
  x + (n -> attention(2, causal)) + (n -> mlp(8, D))
}
"""


@pytest.mark.parametrize(
    ("body", "name", "expected"),
    [
        ("x -> attention(2)", "attention", "2 heads"),
        (
            "x -> attention(2, causal, kv_heads = 1)",
            "attention",
            "2 heads with 1 key-value head, causal",
        ),
        ("x -> { attention(2, head_size = 8) } * 2", "attention", "2 heads of 8"),
        ("x -> attention(2, scale = 1)", "attention", "2 heads, unscaled scores"),
        ("x -> attention(2, scale = 0.25)", "attention", "2 heads, scores times 0.25"),
        ("x -> attention(1) -> attention(1)", "attention", "1 head"),
        ("x -> attention(2) -> attention(2, causal)", "attention", "2 heads; 2 heads, causal"),
        ("x -> norm", "attention", "none"),
        ("x -> attention(2, over = x)", "attention", "none"),
        ("x -> attention(2, over = x)", "cross-attention", "2 heads, over x"),
        (
            "x -> { looked(x, norm(rms)) } * 2",
            "cross-attention",
            "4 heads with 2 key-value heads, unscaled scores, rms norm of queries and keys, "
            "over x",
        ),
        ("looked(x, x, relu)", "attention", "4 heads with 2 key-value heads, unscaled scores"),
        ("x -> posenc(learned, 4)", "positions", "learned (4)"),
        ("x -> posenc(sinusoidal)", "positions", "sinusoidal (pairs)"),
        ("looked(x, x, rotary(500, pairs))", "positions", "rotary (theta 500, pairs)"),
        ("looked(x, x, rotary)", "positions", "rotary (theta 10000, halves)"),
        ("x -> norm", "positions", None),
        ("(tokens -> a: embed(10, D)) + (tokens -> b: embed(10, D))", "positions", None),
        ("(tokens -> a: embed(10, D)) + (tokens -> b: embed(10, D))", "embedding", "2 tables"),
        ("tokens -> embed(10, D) -> scale(2)", "embedding", "one table, scaled by 2"),
        ("x -> pre(attention(2)) * 2", "norm", "rms (eps 1e-05), before each sublayer"),
        ("x -> post(attention(2)) * 2", "norm", "layer (eps 1e-05), after each residual add"),
        (
            "x -> { post(attention(2)) -> post(relu) } * 2",
            "norm",
            "layer (eps 1e-05), after each residual add",
        ),
        (
            "x -> sandwich(attention(2)) * 2",
            "norm",
            "layer (eps 1e-05), before each sublayer and after each sublayer",
        ),
        ("x -> { pre(relu) -> post(relu) } * 2", "norm", "rms (eps 1e-05); layer (eps 1e-05)"),
        ("x -> parallel * 2", "norm", "layer (eps 1e-05), before each sublayer"),
        ("x -> norm(layer, bias = false)", "norm", "layer (eps 1e-05, no bias)"),
        ("x -> norm(l2)", "norm", "none"),
        ("x -> { mlp(4, 6, D, relu) } * 2", "mlp", "relu, 4 and 6 hidden"),
        ("x -> mlp(4, D, relu)", "mlp", None),
        ("x -> gated * 2", "mlp", "gated silu, 24 hidden"),
        ("x -> { linear(6) -> tanh -> linear(D) } * 2", "mlp", "tanh, 6 hidden"),
        ("x -> { linear(D) -> tanh } * 2", "mlp", None),
        ("x -> routed * 2", "mlp", "2 of 8 experts, gated silu, 24 hidden"),
        ("x -> linear(D) -> norm", "biases", "everywhere"),
        ("x -> linear(D, bias = false) -> norm", "biases", "in no linear layer"),
        ("x -> linear(D, bias = false) -> norm(rms)", "biases", "none"),
        ("x -> a: linear(D, bias = false) -> b: linear(D)", "biases", "in b"),
        ("x -> attention(2, bias = false, out_bias = true)", "biases", "in out"),
        ("looked(x, x, relu)", "biases", "not in k"),
        ("tokens -> embed(10, D) -> unembed(embed)", "logits", "tied to the embedding"),
        ("tokens -> embed(10, D) -> linear(10)", "logits", "a separate linear layer"),
        ("x -> linear(10)", "logits", None),
        ("x -> layer_scale(0.1)", "layer scale", "from 0.1"),
        ("x -> dropout(0.1)", "dropout", "0.1"),
        ("x -> prepend(cls) -> readout(cls)", "readout", "cls"),
        ("x -> mean", "readout", "mean"),
        ("x -> norm", "readout", "none"),
        ("tokens -> embed(10, D) -> linear(10) -> linear(D)", "logits", None),
        ("x -> at(tokens, 3)", "readout", "at token 3"),
        ("x -> norm * 2 -> norm * 3", "depth", "2 + 3"),
        ("x -> norm * 2", "D", "8"),
        ("x -> norm", "D", None),
        ("x -> norm", "depth", "none"),
        ("x -> norm", "parameters", "16"),
        ("x -> linear(D)", "flops", "512"),
    ],
)
def test_each_feature(body: str, name: str, expected: str | None) -> None:
    assert _feature(body, name) == expected


def _feature(body: str, name: str) -> str | None:
    """A feature of a model with one output, of any type."""
    text = model(f"float[T, D] = {body}", blocks=HEADS)
    for type in ("float[T, D]", "float[D]", "float[T, 10]", "float[T + 1, D]"):
        try:
            made = graph(text.replace("y0: float[T, D]", f"y0: {type}"))
        except ArchError as error:
            if error.diagnostics[0].code not in ("shape-mismatch", "type-mismatch"):
                raise
        else:
            return features(made).get(name)
    raise AssertionError(body)


def test_all_features_of_a_published_model() -> None:
    assert features(analyse("llama.arch:smollm2_135M").graph) == {
        "input tokens": "int[T]",
        "output hidden": "float[T, 576]",
        "output logits": "float[T, 49152]",
        "vocabulary": "49,152",
        "context": "T <= 8,192",
        "padding": "none",
        "patch": "none",
        "convolutions": "none",
        "embedding": "one table",
        "positions": "rotary (theta 100000, halves)",
        "depth": "30",
        "D": "576",
        "norm": "rms (eps 1e-05), before each sublayer",
        "attention": "9 heads with 3 key-value heads, causal",
        "cross-attention": "none",
        "mlp": "gated silu, 1,536 hidden",
        "biases": "none",
        "layer scale": "none",
        "dropout": "none",
        "readout": "none",
        "logits": "tied to the embedding",
        "loss": "next_token",
        "initialization": "normal (std 0.02)",
        "parameters": "134,515,008",
        "flops": "6.842 T",
    }


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ("x -> norm", "x -> norm", None),
        ("x -> relu", "x -> { relu }", None),
        ("x -> a: relu", "x -> b: relu", None),
        (
            "x -> a: norm",
            "x -> b: norm",
            tuple(
                f'norm(kind = "layer", eps = 1e-05, scale = true, bias = true) at {place}: '
                "float[T, D = 8]"
                for place in "ab"
            ),
        ),
        ("x -> relu * 2", "x -> relu * 3", ("relu * 2", "relu * 3")),
        (
            "x -> relu -> gelu",
            "x -> relu",
            ("gelu(): float[T, D = 8]", "output y0: float[T, D = 8]"),
        ),
        ("x + (x -> relu)", "(x -> relu) + x", ("add(): float[T, D = 8]",) * 2),
    ],
)
def test_the_first_difference(left: str, right: str, expected: tuple[str, str] | None) -> None:
    ours, theirs = (graph(model(f"float[T, D] = {body}")) for body in (left, right))
    assert difference(ours, theirs) == expected


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("T <= 4", "T <= 5"),
        ("< 10", "< 11"),
        ("< 10", "< 10 pad 0"),
        ("output y0", "output z"),
        ("input x", "init xavier input x"),
        ("D = 8", "D = 9"),
        ("}", "loss cross_entropy(y0, label: int[T] < 8) }"),
    ],
)
def test_inputs_outputs_and_init_are_compared(old: str, new: str) -> None:
    text = model("float[T, D] = x -> norm")
    ours, theirs = graph(text), graph(text.replace(old, new))
    assert difference(ours, ours) is None
    assert difference(ours, theirs) is not None
    assert difference(theirs, ours) is not None


def test_operators_of_only_one_graph() -> None:
    ours = graph(model("float[T, D] = x -> { norm -> relu -> relu } * 2"))
    theirs = graph(model("float[T, D] = x -> { norm -> gelu -> relu } * 3"))
    assert operators(ours, theirs) == ("1 relu", "1 gelu")


def test_positions_are_none_if_no_operator_encodes_them() -> None:
    text = "model M() { input t: int[T <= 4] < 9 output y: float[T, 8] = t -> embed(9, 8) }"
    assert features(graph(text))["positions"] == "none"
