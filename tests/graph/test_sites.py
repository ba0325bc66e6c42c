"""Nodes with their enclosing stacks: outer uses, and weights layer by layer."""

from __future__ import annotations

from archdsl.graph.nodes import refs, walk
from archdsl.graph.parser import parse
from archdsl.graph.sites import parameters, sites

NESTED = parse("""
graph G init xavier
input x: float[4]
input y: float[4]
%1 = linear(x; dim = 4, bias = true) @ first: float[4]
%9 = stack(%1) * 2 @ outer: float[4]
  take %2: float[4]
  %3 = add(%2, other = y) @ add: float[4]
  %6 = stack(%3) * 2 @ part.inner: float[4]
    take %4: float[4]
    %5 = linear(%4; dim = 4, bias = false): float[4]
    %7 = add(%5, other = %1) @ add: float[4]
    yield %7
  %8 = linear(%6; dim = 4, bias = false) @ part.last: float[4]
  yield %8
%10 = linear(%9; dim = 3, bias = false) @ head: float[3]
output z = %10
""")


def test_what_a_node_uses_from_outside() -> None:
    uses = {node.id: refs(node) for node, _ in walk(NESTED.nodes)}
    assert uses["%9"] == ("%1", "y")
    assert uses["%6"] == ("%3", "%1")
    assert uses["%7"] == ("%5", "%1")


def test_a_stack_can_return_its_carry_or_an_outer_value() -> None:
    graph = parse("""
graph G init xavier
input x: float
input y: float
%2 = stack(x) * 2 @ same: float
  take %1: float
  yield %1
%4 = stack(x) * 2 @ other: float
  take %3: float
  yield y
output z = %4
""")
    assert [refs(node) for node in graph.nodes] == [("x",), ("x", "y")]


def test_operators_come_with_their_enclosing_stacks() -> None:
    around = {node.id: [each.stack.id for each in stacks] for node, stacks, _ in sites(NESTED)}
    assert around == {
        "%1": [],
        "%3": ["%9"],
        "%5": ["%9", "%6"],
        "%7": ["%9", "%6"],
        "%8": ["%9"],
        "%10": [],
    }


def test_weights_come_in_the_order_of_execution() -> None:
    assert [(p.path, p.weight.shape, p.node) for p in parameters(NESTED)] == [
        ("first.weight", (4, 4), "%1"),
        ("first.bias", (4,), "%1"),
        ("outer.0.part.inner.0.weight", (4, 4), "%5"),
        ("outer.0.part.inner.1.weight", (4, 4), "%5"),
        ("outer.0.part.last.weight", (4, 4), "%8"),
        ("outer.1.part.inner.0.weight", (4, 4), "%5"),
        ("outer.1.part.inner.1.weight", (4, 4), "%5"),
        ("outer.1.part.last.weight", (4, 4), "%8"),
        ("head.weight", (3, 4), "%10"),
    ]
