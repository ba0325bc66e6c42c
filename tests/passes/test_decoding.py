"""What is derived of a model for decoding: what is kept, what is made once, what is refused."""

from __future__ import annotations

import pytest

import archdsl
from archdsl.diagnostics import ArchError
from archdsl.graph.cost import cost
from archdsl.graph.nodes import Graph, walk
from archdsl.graph.sites import parameters
from archdsl.graph.verify import verify
from archdsl.passes import optimise
from archdsl.passes.decoding import Decoding, decoding
from archdsl.passes.open_attention import open_attention
from archdsl.semantics.analysis import analyse
from tests import predicting

CAUSAL = [*predicting.models(), *predicting.variants()]


def graph(spec: str) -> Graph:
    return optimise(analyse(spec).graph)


def of(body: str) -> Decoding:
    text = f"model M(D = 8, n = 16) {{\n  input tokens: int[T <= n] < 9\n{body}\n}}\n"
    return decoding(analyse(archdsl.parse(text, "m.arch")).graph)


@pytest.mark.parametrize("spec", CAUSAL)
def test_every_causal_spec_is_decoded(spec: str) -> None:
    whole = graph(spec)
    plan = decoding(whole)
    verify(plan.graph)
    assert not any(
        node.op == "attention" for node, _ in walk(plan.graph.nodes) if "op" in vars(node)
    )
    grows = sum((s.elements for s in plan.states if s.past), start=whole.varying[0].bound * 0)
    once = sum(
        (s.elements for s in plan.states if not s.past), start=whole.varying[0].bound * 0
    )
    # What a cost says is kept is what is kept.
    bounds = {v.name: v.bound for v in whole.varying}
    kept = sum(e if isinstance(e, int) else e.at(bounds) for e in (grows, once))
    assert kept == cost(whole).cache_bytes // 4


@pytest.mark.parametrize("spec", CAUSAL)
def test_opened_attention_has_the_weights_that_it_had(spec: str) -> None:
    whole = graph(spec)
    opened = verify(open_attention(whole))
    ours = [(p.path, p.weight.shape) for p in parameters(opened)]
    assert ours == [(p.path, p.weight.shape) for p in parameters(whole)]


def test_states_say_what_they_are() -> None:
    plan = decoding(graph("t5.arch:small"))
    assert (plan.tokens, plan.axis, plan.logits) == ("target", "T", "logits")
    assert [str(state).split(" mixed")[0] for state in plan.states] == [
        "decoder.{}.self.attention.attend: float[T, heads = 8, size = 64]",
        "decoder.{}.cross.attention.k_heads: float[T = S, heads = 8, size = 64]",
        "decoder.{}.cross.attention.v_heads: float[T = S, heads = 8, size = 64]",
    ]
    assert [(state.past, state.copies) for state in plan.states] == [
        (True, 6),
        (False, 6),
        (False, 6),
    ]


def test_grouped_heads_keep_only_their_own() -> None:
    (state,) = decoding(graph("llama.arch:llama_3_8B")).states
    assert str(state.elements) == "65536 T"  # 32 layers of keys and values of 8 heads of 128


def test_what_no_logits_need_is_left_out() -> None:
    plan = of(
        "  h = tokens -> embed(9, D) -> attention(2, causal)\n"
        "  output all: float[D] = h -> mean(T)\n"
        "  output logits: float[T, 9] = h -> linear(9)\n"
        "  loss next_token(logits, tokens)"
    )
    assert [name for name, _ in plan.graph.outputs] == ["logits"]
    assert "mean" not in [getattr(node, "op", "") for node, _ in walk(plan.graph.nodes)]


REFUSED = {
    "a shifted sequence": (
        "  output logits: float[T, 9] = tokens -> embed(9, D) -> prepend(cls) -> slice(T, 1)"
        " -> linear(9)\n  loss next_token(logits, tokens)",
        "prepend has no position for each of `T`",
        "prepend(cls)",
    ),
    "no loss": (
        "  output logits: float[T, 9] = tokens -> embed(9, 9)",
        "`M` generates nothing: its loss is not `next_token`",
        None,
    ),
    "a loss of no output": (
        "  h = tokens -> embed(9, 9)\n  output y: float[T, 9] = h -> relu\n"
        "  loss next_token(h, tokens)",
        "`M` generates nothing: its loss is not of an input and an output",
        None,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_stepped_is_told(name: str) -> None:
    body, message, place = REFUSED[name]
    with pytest.raises(ArchError) as raised:
        of(body)
    (told,) = raised.value.diagnostics
    assert message in told.message
    assert told.code == ("not-causal" if place else "generation")
    assert (told.span and told.span.text) == place
