"""What the backward pass needs of a program, counted by hand."""

from __future__ import annotations

import re
from typing import Any

import pytest

from archdsl.analysis import analyse
from archdsl.execution.train_step import loss_graph
from archdsl.graph.ops import OPERATORS
from archdsl.graph.parser import parse
from archdsl.graph.sites import parameters
from archdsl.passes import optimise
from archdsl.passes.kept_values import LINEAR, PRODUCTS, VIEWS, kept_values
from archdsl.passes.program import Program, lower
from archdsl.passes.select_kernels import CPU

ROWS, T, D, HEADS, VOCAB, DEPTH = 3, 8, 4, 2, 50, 5


def gpt(target: str | None = CPU) -> Program:
    sizes: Any = {"vocab": VOCAB, "context": T, "D": D, "heads": HEADS, "depth": DEPTH}
    graph = loss_graph(optimise(analyse("gpt.arch", settings=sizes).graph))
    return lower(graph, ROWS, {"T": T}, target=target, trains=True)


def program(text: str, rows: int = 1) -> Program:
    head = "graph G init normal(std = 0.02)\n"
    return lower(parse(head + text), rows, {}, target=CPU, trains=True)


def test_the_sets_are_of_operators() -> None:
    assert set(OPERATORS) >= LINEAR >= VIEWS
    assert set(OPERATORS) >= PRODUCTS
    assert not PRODUCTS & LINEAR


def test_a_gpt() -> None:
    # The input, its norm, q, k, v, what attention gives, the sum, its norm, two of the MLP.
    layer = T * (8 * D + 2 * 4 * D) + T * HEADS  # and a logarithm per query and head
    rest = T * (2 * D + VOCAB)  # what the last norm takes and gives, and the logits
    found = kept_values(gpt())
    assert found.stored == ROWS * (DEPTH * layer + rest)
    assert found.logits == ROWS * T * VOCAB
    assert found.passing == ROWS * T * (D + VOCAB)  # of the linear layer of the logits


def test_tinygrad_stores_scores_and_their_softmax() -> None:
    more = kept_values(gpt(None)).stored - kept_values(gpt()).stored
    assert more == ROWS * DEPTH * HEADS * (2 * T * T - T)


def test_layers_that_are_computed_again_store_their_input() -> None:
    whole, again = kept_values(gpt()), kept_values(gpt(), recompute=True)
    layer = T * (8 * D + 2 * 4 * D) + T * HEADS
    assert whole.stored - again.stored == ROWS * ((DEPTH - 1) * layer - DEPTH * T * D)
    assert (whole.passing, whole.logits) == (again.passing, again.logits)


def test_pointwise_values_between_pointwise_operators_are_computed_again() -> None:
    found = program(
        """input x: float[6]
label y: float[4]
%1 = linear(x; dim = 8, bias = false) @ gate: float[8]
%2 = silu(%1) @ silu: float[8]
%3 = linear(x; dim = 8, bias = false) @ up: float[8]
%4 = multiply(%2, other = %3) @ multiply: float[8]
%5 = linear(%4; dim = 4, bias = false) @ down: float[4]
loss %6 = squared_error(%5, target = y): float
""",
        rows=2,
    )
    # x, %1, %3, %4 and the result, with its target; %2 is silu of %1.
    assert kept_values(found).stored == 2 * (6 + 3 * 8 + 2 * 4)


def test_a_table_has_no_batch() -> None:
    text = """input x: float[6]
label y: float[6]
%1 = weight(; sizes = (6), start = none, std = none) @ table: float[6]
%2 = exp(%1) @ exp: float[6]
%3 = multiply(x, other = %2) @ multiply: float[6]
loss %4 = squared_error(%3, target = y): float
"""
    one, many = (kept_values(program(text, rows)).stored for rows in (1, 10))
    assert many - one == 9 * 3 * 6  # x, %3 and y, but not the exponential


FACTORS = """input x: float[6]
label y: float[4]
%1 = linear(x; dim = 8, bias = false) @ up: float[8]
%2 = linear(%1; dim = 8, bias = false) @ middle: float[8]
%3 = linear(%2; dim = 4, bias = false) @ down: float[4]
loss %4 = squared_error(%3, target = y): float
"""


@pytest.mark.parametrize(
    ("frozen", "stored"),
    [
        ([], 6 + 8 + 8),  # x, %1 and %2
        (["up"], 8 + 8),
        (["middle"], 6 + 8),
        (["down"], 6 + 8),
        (["up", "middle"], 8),
        (["middle", "down"], 6),
    ],
)
def test_a_product_with_a_frozen_weight_needs_no_factor(frozen: list[str], stored: int) -> None:
    found = kept_values(program(FACTORS), frozen=frozenset(f"{n}.weight" for n in frozen))
    assert found.stored == stored + 2 * 4  # and the result, with its target


def test_no_gradient_flows_into_the_first_frozen_layers() -> None:
    found = gpt()
    paths = [each.path for each in parameters(found.graph)]
    frozen = frozenset(
        each for each in paths if not re.match(r"self_attention_block\.[34]\.", each)
    )
    whole, part = kept_values(found), kept_values(found, frozen=frozen)
    layer = T * (8 * D + 2 * 4 * D) + T * HEADS
    # Three layers less, and what the product for the logits takes.
    assert whole.stored - part.stored == ROWS * (3 * layer + T * D)
    again = kept_values(found, recompute=True, frozen=frozen)
    assert part.stored - again.stored == ROWS * (layer - 2 * T * D)
