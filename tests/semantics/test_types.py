"""Types: causality, raggedness, and the names of axes."""

from __future__ import annotations

import pytest

from archdsl.analysis import analyse
from archdsl.diagnostics import ArchError
from archdsl.graph.nodes import Stack
from tests.semantics.small import graph, model, output


@pytest.mark.parametrize(
    ("expression", "type"),
    [
        ("x -> attention(2, causal)", "float[T, D = 8]"),
        ("x -> attention(2)", "float[T, D = 8] noncausal T"),
        ("x -> attention(2) -> attention(2, causal)", "float[T, D = 8] noncausal T"),
        ("x -> attention(2, causal) * 3", "float[T, D = 8]"),
        ("x -> attention(2) * 3", "float[T, D = 8] noncausal T"),
        ("x -> attention(2, causal, over = x -> attention(2))", "float[T, D = 8] noncausal T"),
        ("x -> softmax", "float[T, D = 8]"),
        ("x -> softmax(T)", "float[T, D = 8] noncausal T"),
        ("x + (x -> attention(2))", "float[T, D = 8] noncausal T"),
        ("x -> norm -> mlp(4, D) -> dropout(0.1)", "float[T, D = 8]"),
    ],
)
def test_causality_is_inferred(expression: str, type: str) -> None:
    assert output(graph(model(f"float[T, D] = {expression}"))) == type


def test_a_stack_is_noncausal_from_its_first_layer() -> None:
    """The output of the first layer is noncausal, so the body is typed as noncausal."""
    (stack,) = graph(model("float[T, D] = x -> { attention(2) -> norm } * 2")).nodes
    assert isinstance(stack, Stack)
    assert stack.last.carry_type.noncausal == {"T"}


def test_the_line_that_breaks_causality_is_one_on_the_way() -> None:
    """Another branch is noncausal too, but the logits do not depend on it."""
    text = model(
        "float[T, D] = x -> attention(2)",
        "float[T, 10] = tokens -> embed(10, D) -> attention(4) -> linear(10)",
    ).replace("\n}", "\nloss next_token(y1, tokens)\n}")
    with pytest.raises(ArchError) as raised:
        graph(text)
    (found,) = raised.value.diagnostics
    assert found.notes[0].span is not None
    assert found.notes[0].span.text == "attention(4)"


def test_raggedness_is_that_of_the_input_with_padding() -> None:
    varying = {v.name: v for v in analyse("transformer.arch").graph.varying}
    assert varying["S"].ragged == "source"
    assert varying["T"].ragged == "target"
    assert {v.ragged for v in analyse("gpt.arch").graph.varying} == {None}


def test_axes_bear_the_callers_names_outside_of_a_block() -> None:
    block = "block f(a: float[N, E]): float[N, 2 * E] { a -> linear(2 * E) -> softmax(N) }"
    assert (
        output(graph(model("float[16] = x -> f -> mean(T)", blocks=block)))
        == "float[16] noncausal T"
    )


PARTS = "block f(x: float[N, E], parts, size = E // parts): float[N, parts, size] "
PARTS += '{ x -> reshape("a (b c) -> a b c", b = parts) }'
HALF = "block f(x: float[N, E]): float[N, E // 2] "
HALF += '{ x -> linear(E // 2) -> reshape("a b -> a b") }'
LONGER = "block f(x: float[N, E]): float[N + 1, E] "
LONGER += '{ x -> prepend(cls) -> reshape("a b -> a b") }'
ANY = 'block f(x: float[..., E]): float[..., E] { x -> linear(E) -> reshape("a b -> a b") }'


@pytest.mark.parametrize(
    ("block", "called", "declared", "type"),
    [
        (PARTS, "f(x, n)", "float[T, 2, 4]", "float[T, n = 2, size = 4]"),
        (PARTS, "f(x, 2)", "float[T, 2, 4]", "float[T, parts = 2, size = 4]"),
        (PARTS, "f(x, n, D // n)", "float[T, 2, 4]", "float[T, n = 2, size = 4]"),
        (HALF, "f(x)", "float[T, 4]", "float[T, 4]"),
        (LONGER, "f(x)", "float[T + 1, D]", "float[cls:T = T + 1, D = 8]"),
        (ANY, "x -> f -> f", "float[T, D]", "float[T, D = 8]"),
    ],
)
def test_the_declared_type_of_a_block_names_the_axes_of_its_value(
    block: str, called: str, declared: str, type: str
) -> None:
    params = "D = 8, n = 2" if "n" in called else "D = 8"
    text = model(f"{declared} = {called} -> relu", blocks=block, params=params)
    assert output(graph(text)) == type


@pytest.mark.parametrize("how", ["x -> attention(2, over = x)", "attention(x, 2, over = x)"])
def test_the_arrow_brings_in_the_first_tensor(how: str) -> None:
    assert graph(model(f"float[T, D] = {how}")) == graph(
        model("float[T, D] = x -> attention(2, over = x)")
    )
