"""`noncausal`, the axes along which a value is not causal, through chains of operators.

Where an axis has size T + c, the value at position i may depend on positions up to i - c of
T's input. A rule that breaks this must add T to `noncausal`; none may remove it.
"""

from __future__ import annotations

import pytest

from archdsl.analysis import analyse
from archdsl.graph.nodes import Graph
from archdsl.graph.parser import parse
from archdsl.graph.verify import BrokenGraph, verify
from archdsl.syntax.parser import parse as parse_spec
from tests.specs import used_only

MODEL = """
use "blocks.arch"
block pooled(x: float[T, D], memory: float[S, D]): float[T, D] {{
  x -> attention(2, over = memory)
}}
block windowed(x: float[T, D], over: float[T, D], heads): float[T, D] {{
  q = x -> reshape("T (H h) -> T H h", H = heads) -> rotary
  k = over -> reshape("T (H h) -> T H h", H = heads) -> rotary
  attend(q, k, k, causal, 3, bias = x -> alibi(heads)) -> reshape("T H h -> T (H h)")
}}
model M(D = 4) {{
  input x: float[T <= 8, D]
  input y: float[T, D]
  input s: float[S <= 6, D]
  input p: float[2, D]
  input kinds: int[T]
  input there: bool[T]
  output z: {type} = {chain}
}}
"""


def noncausal(chain: str, type: str = "float[T, D]") -> set[str]:
    """The axes along which the value of a chain is not causal."""
    graph = analyse(parse_spec(used_only(MODEL.format(chain=chain, type=type)))).graph
    verify(graph)
    return set(graph.types()[graph.outputs[0][1]].noncausal)


@pytest.mark.parametrize(
    "chain",
    [
        "x -> norm -> mlp(8, D) -> gelu -> dropout(0.1) -> scale(2)",
        "x + y",
        "x -> posenc(learned)",
        "x -> attention(2, causal)",
        "x -> attention(2, causal, over = y)",
        "x -> mixture(x -> top(2), mlp(8, D))",
        "x -> windowed(y, 2)",
        "x -> conv1d(D, 3, causal) -> conv1d(D, 4, causal, groups = 2, dilation = 3)",
        "x -> conv1d(D, 1)",
        "x + (x -> delay(2))",
        # The kernel at position i of the shorter sequence ends at position i of x.
        "x -> prepend(a) -> prepend(b) -> conv1d(D, 3)",
        # Position i of the longer sequence depends on i - 1 of x; after the slice, on i again.
        "x -> prepend(cls) -> attention(2, causal) -> slice(T, 1)",
        "x -> prepend(a) -> prepend(b) -> attention(2, causal) -> slice(T, 1) -> slice(T, 1)",
        # Along other axes positions are independent.
        "concat(x, y) -> linear(D)",
        "x -> softmax",
        "x -> slice(D, 0, 2) -> linear(D)",
        'x -> reshape("T (a b) -> a T b", a = 2) -> mean(a) -> linear(D)',
        'x -> reshape("T D -> D T") -> reshape("D T -> T D")',
        "x -> attention(2, causal) * 3",
    ],
)
def test_causal(chain: str) -> None:
    assert noncausal(chain) == set()


@pytest.mark.parametrize(
    ("chain", "axes"),
    [
        ("x -> attention(2)", {"T"}),
        ("x -> attention(2, over = y)", {"T"}),
        ("x -> conv1d(D, 3, padding = 1)", {"T"}),
        ("x -> prepend(a) -> conv1d(D, 4, padding = 1)", {"T"}),
        ("x -> windowed(y -> attention(2), 2)", {"T"}),
        ("x -> softmax(T)", {"T"}),
        # A memory along another axis is used whole; T stays causal.
        ("x -> attention(2, over = s)", {"S"}),
        # Axes that are noncausal in the memory stay so through causal attention.
        ("x -> attention(2, causal, over = y -> attention(2))", {"T"}),
        ("x -> attention(2, over = s -> attention(2, over = x))", {"S", "T"}),
        # It stays noncausal in later operators.
        ("x -> attention(2) -> prepend(cls) -> attention(2, causal) -> slice(T, 1)", {"T"}),
        ("x + (y -> attention(2))", {"T"}),
        ("(y -> attention(2)) + x", {"T"}),
        ("concat(x, y -> attention(2)) -> linear(D)", {"T"}),
        # Non-causal attention also sees positions that were put before the sequence.
        ("x -> prepend(cls) -> attention(2) -> slice(T, 1)", {"T"}),
        # The input of the second layer is already noncausal because of the first layer.
        ("x -> { norm -> attention(2) } * 2", {"T"}),
        ("x -> { attention(2, causal) -> pooled(s) } * 2", {"S"}),
        ("x -> { norm * 2 -> attention(2) * 2 } * 2", {"T"}),
    ],
)
def test_noncausal(chain: str, axes: set[str]) -> None:
    assert noncausal(chain) == axes


@pytest.mark.parametrize(
    ("chain", "type", "axes"),
    [
        ("x -> first", "float[D]", {"T"}),
        ("x -> mean", "float[D]", {"T"}),
        ("x -> mean(D)", "float[T]", set()),
        ("x -> prepend(cls) -> attention(2, causal)", "float[T + 1, D]", set()),
        # A prefix depends on no position of T.
        ("x -> prepend(cls) -> readout(cls)", "float[D]", set()),
        ("x -> prepend(a) -> prepend(b) -> attention(2, causal) -> first", "float[D]", set()),
        ("x -> prepend(a) -> prepend(b) -> slice(T, 0, 2)", "float[2, D]", set()),
        ("x -> prepend(a) -> prepend(b) -> slice(T, 1) -> first", "float[D]", set()),
        ("x -> prepend(a) -> slice(T, 0, 2)", "float[2, D]", {"T"}),
        ("x -> prepend(a) -> slice(T, 1) -> first", "float[D]", {"T"}),
        ("x -> prepend(cls) -> attention(2) -> readout(cls)", "float[D]", {"T"}),
        ("concat(p, x, T) -> attention(2, causal)", "float[T + 2, D]", set()),
        ("concat(p, x -> prepend(a), T)", "float[T + 3, D]", set()),
        ("concat(p, x, T) -> slice(T, 0, 2)", "float[2, D]", set()),
        ("concat(p, x, T) -> slice(T, 1, 3)", "float[2, D]", {"T"}),
        ("concat(x -> attention(2, over = p), p, T)", "float[T + 2, D]", {"T"}),
        ("concat(p -> attention(2, over = x), x, T)", "float[T + 2, D]", {"T"}),
        ("positions(T) -> sinusoid(D)", "float[T, D]", set()),
        # The end of one part comes after the start of the other.
        ("concat(x, y, T) -> attention(2, causal)", "float[T + T, D]", {"T"}),
        ("concat(x, s, T) -> attention(2, causal)", "float[T + S, D]", {"S", "T"}),
        ('x -> mean -> reshape("(one D) -> one D", one = 1)', "float[1, D]", {"T"}),
    ],
)
def test_noncausal_where_the_axes_change(chain: str, type: str, axes: set[str]) -> None:
    assert noncausal(chain, type) == axes


# -- masks --


@pytest.mark.parametrize(
    "mask",
    [
        "causal",
        "causal & within(3)",
        "causal & not within(3)",
        "causal & (chunk(2) | prefix(5))",
        "within(1)",
        "chunk(1)",
        "prefix(1)",
        "prefix(1) | causal & within(2)",
        "not (not causal | within(2))",
        "causal & same(kinds)",
        "within(1) | causal & keys(there)",
    ],
)
def test_a_mask_that_sees_the_past_alone(mask: str) -> None:
    assert noncausal(f"x -> attention(2, mask = {mask})") == set()


@pytest.mark.parametrize(
    "mask",
    [
        "none",
        "within(2)",
        "chunk(2)",
        "prefix(2)",
        "causal | within(2)",
        "causal | prefix(2)",
        "not causal",
        "not within(1)",
        "causal & within(3) | chunk(2)",
        "within(2) & chunk(4)",
        "not (causal & within(2))",
        "same(kinds)",
        "causal | queries(there)",
        "keys(there) & not causal",
    ],
)
def test_a_mask_that_sees_later_positions(mask: str) -> None:
    assert noncausal(f"x -> attention(2, mask = {mask})") == {"T"}


def test_a_prefix_of_positions_that_are_no_tokens_is_causal() -> None:
    chain = "x -> prepend(a) -> prepend(b) -> attention(2, mask = causal | prefix({n}))"
    assert noncausal(chain.format(n=2), "float[T + 2, D]") == set()
    assert noncausal(chain.format(n=3), "float[T + 2, D]") == {"T"}


@pytest.mark.parametrize(
    ("weigh", "axes"),
    [
        ("softmax(mask = causal)", set()),
        ("sigmoid", set()),
        ('reshape("H T S -> T S H") -> linear(2) -> reshape("T S H -> H T S")', set()),
        ("softmax", {"T"}),
        ("softmax(mask = within(2))", {"T"}),
        ("{ softmax(mask = causal) -> softmax }", {"T"}),
    ],
)
def test_blocks_between_scores_and_values(weigh: str, axes: set[str]) -> None:
    text = """
        block seen(x: float[T, D]): float[T, D] {{
          q = x -> reshape("T (H h) -> T H h", H = 2)
          mix(scores(q, q) -> {weigh}, q, causal) -> reshape("T H h -> T (H h)")
        }}
        model M() {{
          input x: float[T <= 8, 4]
          output y: float[T, 4] = x -> seen
        }}
    """
    graph = verify(analyse(parse_spec(text.format(weigh=weigh))).graph)
    assert graph.types()[graph.outputs[0][1]].noncausal == axes


# -- stacks, as graphs with wrong types --

STACK = """
graph G init xavier
axis S <= 6
axis T <= 8
input x: float[T, D = 4]
input s: float[S, D = 4]
%4 = stack(x) * 2 @ stack: float[T, D = 4]{result}
  take %1: float[T, D = 4]{carry}
  %2 = attention(%1, over = {memory}; heads = 1, mask = {mask}, kv_heads = 1, \
head_size = 4, scale = 0.5, bias = true, out_bias = true) @ attention: float[T, D = 4]{inside}
  yield %2
output y = %4
"""


def stack(memory: str, mask: str, carry: str, inside: str, result: str) -> Graph:
    text = STACK.format(memory=memory, mask=mask, carry=carry, inside=inside, result=result)
    return parse(text)


@pytest.mark.parametrize(
    ("memory", "mask", "axes"),
    [
        ("x", '"causal"', ""),
        ("%1", '"causal"', ""),
        ("%1", "none", " noncausal T"),
        ("s", "none", " noncausal S"),
    ],
)
def test_a_stack_as_it_is(memory: str, mask: str, axes: str) -> None:
    verify(stack(memory, mask, axes, axes, axes))


def test_a_causal_first_layer_does_not_make_the_second_one_causal() -> None:
    with pytest.raises(BrokenGraph) as broken:
        verify(stack("%1", "none", "", " noncausal T", " noncausal T"))
    assert str(broken.value) == (
        "%4 takes float[T, D = 4] and returns float[T, D = 4] noncausal T"
    )


def test_the_body_of_a_stack_cannot_drop_noncausal_axes() -> None:
    with pytest.raises(BrokenGraph) as broken:
        verify(stack("x", '"causal"', " noncausal T", "", ""))
    assert str(broken.value) == (
        "%2 has type float[T, D = 4] instead of float[T, D = 4] noncausal T"
    )
