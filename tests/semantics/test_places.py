"""Paths of weights: labels, blocks, stacks, block parameters, tied tables."""

from __future__ import annotations

import pytest

from archdsl.analysis import analyse
from archdsl.graph.sites import parameters
from tests.semantics.small import graph, model


def paths(text: str) -> list[str]:
    """The paths of the weights, without `weight` and `bias`."""
    places = (
        p.path.removesuffix(".weight").removesuffix(".bias") for p in parameters(graph(text))
    )
    return list(dict.fromkeys(places))


PRE_NORM = """
block pre_norm(x: float[T, D], sublayer: block): float[T, D] {
  x + (x -> norm -> sublayer)
}

block twice(x: float[T, D], inner: block = norm): float[T, D] {
  x -> inner -> inner
}

block called(x: float[T, D], inner: block): float[T, D] {
  inner(x) + x
}
"""


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("x -> norm", ["norm"]),
        ("x -> norm -> norm -> norm", ["norm", "norm_2", "norm_3"]),
        ("x -> a: norm -> norm", ["a", "norm"]),
        ("x -> norm -> norm_2: norm -> norm", ["norm", "norm_2", "norm_3"]),
        ("x -> mlp(4, 4, D)", ["mlp.0", "mlp.1", "mlp.2"]),
        ("x -> norm * 2", ["norm.0", "norm.1"]),
        ("x -> h: norm * depth", ["h.0", "h.1"]),
        (
            "x -> { norm -> norm } * 2",
            ["stack.0.norm", "stack.0.norm_2", "stack.1.norm", "stack.1.norm_2"],
        ),
        ("x -> { norm } * 1 -> { norm } * 1", ["stack.0.norm", "stack_2.0.norm"]),
        ("x -> h: { a: norm -> norm } * 2", ["h.0.a", "h.0.norm", "h.1.a", "h.1.norm"]),
        ("x -> h: { g: norm * 2 } * 2", ["h.0.g.0", "h.0.g.1", "h.1.g.0", "h.1.g.1"]),
        ("x -> { norm -> norm }", ["norm", "norm_2"]),
        ("x -> g: { norm -> norm }", ["g.norm", "g.norm_2"]),
        ("x -> g: { h: { norm } }", ["g.h.norm"]),
        ("x -> pre_norm(linear(D))", ["pre_norm.norm", "pre_norm.linear"]),
        ("x -> pre_norm(f: linear(D))", ["pre_norm.norm", "pre_norm.f"]),
        (
            "x -> pre_norm({ linear(D) -> norm })",
            ["pre_norm.norm", "pre_norm.linear", "pre_norm.norm_2"],
        ),
        ("x -> p: pre_norm(norm) * 2", ["p.0.norm", "p.0.norm_2", "p.1.norm", "p.1.norm_2"]),
        ("x -> pre_norm(norm * 1)", ["pre_norm.norm", "pre_norm.norm_2.0"]),
        (
            "x -> pre_norm(pre_norm(norm))",
            ["pre_norm.norm", "pre_norm.pre_norm.norm", "pre_norm.pre_norm.norm_2"],
        ),
        ("x -> twice", ["twice.norm", "twice.norm_2"]),
        ("x -> twice(linear(D))", ["twice.linear", "twice.linear_2"]),
        ("x -> called(norm)", ["called.norm"]),
        ("(x -> norm) + (x -> norm)", ["norm", "norm_2"]),
        ("tokens -> e: embed(10, D)", ["e"]),
    ],
)
def test_weights_are_named_by_labels_and_blocks(expression: str, expected: list[str]) -> None:
    assert paths(model(f"float[T, D] = {expression}", blocks=PRE_NORM)) == expected


def test_a_stack_of_a_block_parameter_has_the_name_of_the_argument() -> None:
    block = "block f(x: float[T, D], inner: block): float[T, D] { x -> inner * 2 }"
    assert paths(model("float[T, D] = x -> f(linear(D))", blocks=block)) == [
        "f.linear.0",
        "f.linear.1",
    ]


def test_places_are_those_of_the_published_specs() -> None:
    found = [p.path for p in parameters(analyse("annalog.arch").graph)]
    assert found[:3] == [
        "source_tokens.weight",
        "source_positions.weight",
        "encoder.0.self.attention.q.weight",
    ]
    assert found[-1] == "head.bias"


# -- tied embeddings --


@pytest.mark.parametrize(
    "text",
    [
        "tokens -> e: embed(10, D) -> unembed(e)",
        "tokens -> embed(10, D) -> unembed(embed)",
        "(tokens -> e: embed(10, D)) + (tokens -> f: embed(tied = e)) -> unembed(f)",
        "tokens -> g: { e: embed(10, D) -> norm } -> unembed(e)",
    ],
)
def test_a_tied_table_is_one_weight(text: str) -> None:
    made = graph(model(f"float[T, 10] = {text}"))
    tables = [p for p in parameters(made) if p.weight.shape == (10, 8)]
    assert len(tables) == 1
    tied = [dict(n.attrs)["tied"] for n in made.nodes if n.op in ("embed", "unembed")]  # type: ignore[union-attr]
    assert {f"{place}.weight" for place in tied if place} == {tables[0].path}
