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


@pytest.mark.parametrize("how", ["x -> attention(2, over = x)", "attention(x, 2, over = x)"])
def test_the_arrow_brings_in_the_first_tensor(how: str) -> None:
    assert graph(model(f"float[T, D] = {how}")) == graph(
        model("float[T, D] = x -> attention(2, over = x)")
    )
