"""Splitting a model for decoding: caches, values computed once, and rejected models."""

from __future__ import annotations

import pytest

import archdsl
from archdsl.analysis import analyse
from archdsl.diagnostics import ArchError
from archdsl.graph.cost import cost
from archdsl.graph.nodes import Apply, Graph, walk
from archdsl.graph.parser import parse
from archdsl.graph.printer import show
from archdsl.graph.sites import parameters
from archdsl.graph.verify import verify
from archdsl.passes import optimise
from archdsl.passes.decompose import COMPOSITE, decompose
from archdsl.passes.keep_last_position import keep_last_position
from archdsl.passes.split_decoding import Decoding, split_decoding
from tests import specs
from tests.suite import mostly_long

CAUSAL = [*specs.causal_models(), *specs.causal_variants()]


def graph(spec: str) -> Graph:
    return optimise(analyse(spec).graph)


def of(body: str) -> Decoding:
    width = "D = 8, " if "D" in body else ""
    library = 'use "blocks.arch"\n' if "prepend" in body else ""
    text = f"{library}model M({width}n = 16) {{\n  input tokens: int[T <= n] < 9\n{body}\n}}\n"
    return split_decoding(analyse(archdsl.parse(text, "m.arch")).graph)


@pytest.mark.parametrize("spec", mostly_long(CAUSAL))
def test_every_causal_spec_is_decoded(spec: str) -> None:
    whole = graph(spec)
    plan = split_decoding(whole)
    halves = [plan.step, keep_last_position(plan.step, plan.axis)]
    halves += [plan.once] if plan.once else []
    for half in halves:
        assert parse(show(verify(half))) == half
        operators = {node.op for node, _ in walk(half.nodes) if isinstance(node, Apply)}
        assert not operators & COMPOSITE.keys()
    # The cost has the size of the actual states.
    bounds = {v.name: v.bound for v in whole.varying}
    kept = sum(state.elements.at(bounds) for state in plan.states)
    assert kept == cost(whole).cache_bytes // 4


@pytest.mark.parametrize("spec", mostly_long(CAUSAL))
def test_decomposing_keeps_the_weights(spec: str) -> None:
    whole = analyse(spec).graph
    ours = [(p.path, p.weight.shape) for p in parameters(verify(decompose(whole)))]
    assert ours == [(p.path, p.weight.shape) for p in parameters(whole)]


def test_states_print() -> None:
    plan = split_decoding(graph("t5.arch:small"))
    assert (plan.tokens, plan.axis, plan.logits) == ("target", "T", "logits")
    assert [str(state).split(" noncausal")[0] for state in plan.states] == [
        "decoder.{}.self.attention.split_heads_2.reshape: float[T, heads = 8, size = 64]",
        "decoder.{}.self.attention.split_heads_3.reshape: float[T, heads = 8, size = 64]",
        "decoder.{}.cross.attention.k_heads: float[T = S, heads = 8, size = 64]",
        "decoder.{}.cross.attention.v_heads: float[T = S, heads = 8, size = 64]",
    ]
    assert [(state.cache, state.layers) for state in plan.states] == [
        (True, 6),
        (True, 6),
        (False, 6),
        (False, 6),
    ]


def test_grouped_heads_cache_only_key_value_heads() -> None:
    keys, values = split_decoding(graph("llama.arch:llama_3_8B")).states
    assert str(keys.elements) == "32768 T"  # 32 layers of 8 heads of 128
    assert str(values.elements) == "32768 T"


def test_values_that_logits_do_not_need_are_dropped() -> None:
    plan = of(
        "  h = tokens -> embed(9, D) -> attention(2, causal)\n"
        "  output all: float[D] = h -> mean(T)\n"
        "  output logits: float[T, 9] = h -> linear(9)\n"
        "  loss next_token(logits, tokens)"
    )
    assert "all" not in [name for name, _ in plan.step.outputs]
    assert "mean" not in [getattr(node, "op", "") for node, _ in walk(plan.step.nodes)]


HEAD = (
    "  output logits: float[T, 9] = h -> slice(T, 3) -> linear(9)\n"
    "  loss next_token(logits, tokens)"
)


def test_positions_are_derived_once() -> None:
    plan = of(
        "  e = tokens -> embed(9, D) -> posenc(learned) -> rotary(at = positions(T))\n"
        "  p = positions(3) -> prompt: embed(3, D)\n"
        "  h = concat(p, e, T) -> posenc(learned, at = positions(T + 3)) -> rotary -> rotary\n"
        + HEAD
    )
    assert [state.path for state in plan.states] == ["prompt"]
    assert plan.lead == 3
    nodes = [node for node, _ in walk(plan.step.nodes) if isinstance(node, Apply)]
    made = [node for node in nodes if node.op == "positions"]
    assert [(node.attr["size"], str(node.type)) for node in made] == [
        ("T", "int[T] < 16"),
        ("T + 3", "int[T] < 19"),
    ]
    readers = [node for node in nodes if "at" in dict(node.inputs)]
    # In the order of the axes: those of the tokens start three positions later.
    assert [made.index(m) for n in readers for m in made if m.id == dict(n.inputs)["at"]] == [
        *(0, 0),
        *(1, 1, 1, 1),
    ]


def test_what_is_read_from_a_prefix_is_computed_once() -> None:
    plan = of(
        "  y = tokens -> embed(9, D) -> prepend(a) -> prepend(b) -> prepend(c)\n"
        "  start = y -> attention(2, causal) * 2 -> slice(T, 0, 2) -> norm\n"
        "  h = y -> attention(2, over = start)\n" + HEAD
    )
    assert [(state.path, state.cache) for state in plan.states] == [
        ("attention_2.k_heads", False),
        ("attention_2.v_heads", False),
    ]
    assert plan.once is not None
    assert [each.name for each in plan.once.inputs] == ["tokens"]


REFUSED = {
    "an input of more positions": (
        "  input more: int[T + 1] < 9\n"
        '  w = more -> more: embed(9, D) -> reshape("T d -> T d") -> slice(T, 1)\n'
        "  x = (tokens -> embed(9, D)) + w\n"
        "  output logits: float[T, 9] = x -> linear(9)\n  loss next_token(logits, tokens)",
        "the input `more` does not have one value per token",
        "more",
    ),
    "no loss": (
        "  output logits: float[T, 9] = tokens -> embed(9, 9)",
        "`M` cannot generate tokens: its loss is not `next_token`",
        None,
    ),
    "a loss of no output": (
        "  h = tokens -> embed(9, 9)\n  output y: float[T, 9] = h -> relu\n"
        "  loss next_token(h, tokens)",
        "`M` cannot generate tokens: its loss does not compare an output with an input",
        None,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_noncausal_models_are_rejected(name: str) -> None:
    body, message, place = REFUSED[name]
    with pytest.raises(ArchError) as raised:
        of(body)
    (found,) = raised.value.diagnostics
    assert message in found.message
    assert found.code == ("not-causal" if place else "generation")
    assert (found.span and found.span.text) == place
