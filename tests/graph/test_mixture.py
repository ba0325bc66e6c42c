"""Mixtures in the graph: what is valid, how many experts are chosen, and what they cost."""

from __future__ import annotations

import pytest

from archdsl.graph.cost import cost
from archdsl.graph.mixture import most_chosen
from archdsl.graph.parser import parse
from archdsl.graph.printer import show
from archdsl.graph.sites import parameters
from archdsl.graph.verify import BrokenGraph, verify
from archdsl.passes.decompose import decompose
from archdsl.passes.eliminate_dead_code import eliminate_dead_code
from archdsl.passes.fuse import fuse

VALID = """\
graph G init normal(std = 0.02)
axis T <= 8
input x: float[T, D = 4]
%1 = linear(x; dim = 3, bias = false) @ router: float[T, E = 3]
%2 = top(%1; count = 2) @ top: float[T, E = 3]
%3 = multiply(%1, other = %2) @ multiply: float[T, E = 3]
%8 = mixture(x, gates = %3; chosen = 2) * 3 @ experts: float[T, 5]
  take %4: float[D = 4]
  %5 = mlp(%4; sizes = (6, 4), act = "relu", bias = false) @ mlp: float[4]
  %6 = norm(%5; kind = "layer", eps = 1e-05, scale = true, bias = true) @ norm: float[4]
  %7 = linear(%6; dim = 5, bias = true) @ linear: float[5]
  yield %7
output y = %8
"""


def test_a_mixture_as_it_is() -> None:
    graph = verify(parse(VALID))
    assert show(graph) == VALID
    for other in (decompose(graph), fuse(decompose(graph)), eliminate_dead_code(graph)):
        verify(other)
    assert [p.path for p in parameters(graph)][:3] == [
        *("router.weight", "experts.0.mlp.0.weight", "experts.0.mlp.1.weight")
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("gates = %3", "gates = %7", "%8 uses %7, which is not defined before it"),
        ("chosen = 2", "chosen = 4", "%8 chooses 4 of 3 experts"),
        ("* 3 @", "* 2 @", "%8 has 2 experts and 3 gates"),
        ("take %4: float[D = 4]", "take %4: float[D = 5]", "%8 passes float[D = 4] to a body"),
        ("mlp(%4;", "mlp(x;", "%5 uses x, which is not defined before it"),
        ("yield %7", "yield %3", "%8 returns %3, not of its body"),
        ("experts: float[T, 5]", "experts: float[T, 4]", "%8 has type float[T, 4] instead of"),
        ("gates = %3", "gates = x", "%8 has 3 experts and 4 gates"),
    ],
)
def test_what_is_broken(old: str, new: str, message: str) -> None:
    with pytest.raises(BrokenGraph) as broken:
        verify(parse(VALID.replace(old, new)))
    assert str(broken.value).startswith(message)


def test_the_cost_of_the_chosen_experts() -> None:
    found = cost(parse(VALID), {"T": 5})
    expert = 4 * 6 + 6 * 4 + 4 * 5
    assert found.params == 12 + 3 * (expert + 4 + 4 + 5)
    assert found.flops == 5 * 2 * (12 + 2 * expert)
    # The gates, the result, and one expert for all vectors: 4 numbers, 6 hidden ones, and 4.
    assert found.activation_bytes == 4 * 5 * (3 + 5 + 4 + 6 + 4)


@pytest.mark.parametrize(
    ("lines", "most"),
    [
        ("%1 = softmax(x; axis = none): float[T, 4]", 4),
        ("%1 = top(x; count = 3): float[T, 4]", 3),
        ("%0 = top(x; count = 3): float[T, 4]\n%1 = scale(%0; by = 2.0): float[T, 4]", 3),
        ("%0 = top(x; count = 3): float[T, 4]\n%1 = add(%0, other = x): float[T, 4]", 4),
        ("%0 = top(x; count = 1): float[T, 4]\n%1 = sigmoid(%0): float[T, 4]", 4),
        (
            "%0 = top(x; count = 3): float[T, 4]\n%2 = top(%0; count = 2): float[T, 4]\n"
            "%1 = multiply(%0, other = %2): float[T, 4]",
            2,
        ),
    ],
)
def test_how_many_are_chosen(lines: str, most: int) -> None:
    graph = parse(f"graph G init xavier\naxis T <= 8\ninput x: float[T, 4]\n{lines}\n")
    assert most_chosen({n.id: n for n in graph.nodes}, graph.types(), "%1") == most
