"""States: their types, their cost, and their form after `expand`."""

from __future__ import annotations

import archdsl
from archdsl.analysis import analyse
from archdsl.describe.compare import difference
from archdsl.describe.expand import expand
from archdsl.graph.cost import cost
from archdsl.graph.nodes import Graph, Scan, Stack, walk
from archdsl.graph.parser import parse
from archdsl.graph.printer import show

MODEL = """
block cell(s: float[D], x: float[D], y: float[D]): float[D] {
  both = s + x
  both * y + both
}
block look(x: float[T, D], first: float[D], mix: block): float[T, D] {
  y = x -> mix
  state s: float[D] along T from first = cell(s, x, y)
  state last: float[D] along T = s
  last
}
block down(x: float[M, D]): float[M, D] {
  state s: float[D] along M = s * 0.5 + x
  s
}
model States(D = 2, n = 8) {
  input x: float[T <= n, D]
  input z: float[3, D]
  input first: float[D]
  h = x -> layer: { look(first, linear(D)) } * 3
  output a: float[T, D] = h
  output b: float[T, D] = look(h, first, attention(1))
  output c: float[3, D] = down(z)
}
"""


def graph() -> Graph:
    return analyse(archdsl.parse(MODEL)).graph


def test_a_state_is_causal_if_what_it_takes_is() -> None:
    types = {name: graph().types()[ref] for name, ref in graph().outputs}
    assert {name: str(type) for name, type in types.items()} == {
        "a": "float[T, D = 2]",
        "b": "float[T, D = 2] noncausal T",
        "c": "float[M = 3, D = 2]",
    }
    carried = [n.carry_type for n, _ in walk(graph().nodes) if isinstance(n, Scan)]
    assert [str(type) for type in carried[2:4]] == ["float[D = 2] noncausal T"] * 2


def test_states_are_printed_and_read_and_expanded() -> None:
    made = graph()
    assert parse(show(made)) == made
    text = archdsl.format(expand(made))
    assert difference(made, analyse(archdsl.parse(text)).graph) is None
    other = analyse(archdsl.parse(MODEL.replace("both * y + both", "both * y + x"))).graph
    assert difference(made, other) is not None


def test_decoding_keeps_one_position_of_each_state() -> None:
    found = cost(graph(), {"T": 5})
    assert str(found.cache_formula) == "64"  # 8 states of 2 numbers along T, 4 bytes each


def test_states_that_are_only_read_are_not_stored() -> None:
    spec = """
model M(n = 1000, K = 50) {
  input k: float[T <= n, K]
  state s: float[K, K] along T = s * 0.5 + contract("a, b -> a b", k, k)
  output y: float[T, K] = contract("T a b, T b -> T a", s, k)
}
"""
    assert cost(analyse(archdsl.parse(spec)).graph).activation_bytes < 1_000_000
    stored = spec.replace("T a b, T b -> T a", "T a b, S b -> S a")
    assert cost(analyse(archdsl.parse(stored)).graph).activation_bytes > 10_000_000


def test_layers_with_the_same_states_are_one_body() -> None:
    spec = MODEL.replace("{ look(first, linear(D)) } * 3", "part(first, i % 2 == 1) * 6 as i")
    spec += """
block part(x: float[T, D], first: float[D], other: block, odd = false): float[T, D] {
  x -> look(first, other) if odd
}
"""
    spec = spec.replace("first, i % 2 == 1", "first, linear(D), odd = true if i < 3 else false")
    stack = next(n for n in analyse(archdsl.parse(spec)).graph.nodes if isinstance(n, Stack))
    assert [len(stack.layers(kind)) for kind in range(len(stack.bodies))] == [3, 3]
