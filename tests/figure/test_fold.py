"""The trees of figures, as text; and the words in their boxes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from archdsl.analysis import analyse, analyse_block
from archdsl.describe.flow import SIGNS
from archdsl.diagnostics import ArchError
from archdsl.figure.fold import fold
from archdsl.figure.structure import Box, Frame, Level, Sign, items, show
from archdsl.figure.titles import CIRCLES, KINDS, TITLES
from archdsl.graph.ops import OPERATORS
from archdsl.graph.verify import verify


@pytest.mark.parametrize("level", ["model", "block", "operator"])
@pytest.mark.parametrize("name", ["gpt", "vit", "transformer"])
def test_tree(name: str, level: Level, golden: Callable[[str, str], None]) -> None:
    golden(f"figure/{name}_{level}.txt", show(fold(analyse(f"{name}.arch").graph, level)))


@pytest.mark.parametrize(
    "spec",
    [
        "t5.arch",  # values that a stack receives from outside
        "mamba.arch",  # a state
        "dit.arch",  # one value for many steps
        "jamba.arch",  # several kinds of layers, and experts
        "clip.arch",  # two columns of equals
    ],
)
def test_tree_of_blocks(spec: str, golden: Callable[[str, str], None]) -> None:
    golden(f"figure/{spec.removesuffix('.arch')}_block.txt", show(fold(analyse(spec).graph)))


@pytest.mark.parametrize("name", ["self_attention_block", "cross_attention_block"])
def test_tree_of_a_block(name: str, golden: Callable[[str, str], None]) -> None:
    analysis = analyse_block(f"blocks.arch:{name}")
    assert analysis is not None
    golden(f"figure/{name}.txt", show(fold(analysis.graph)))


def test_layers_that_look_alike_are_drawn_once() -> None:
    """Each layer of a Universal Transformer adds coordinates of its own."""
    graph = analyse("universal.arch:base", settings={"depth": 2}).graph
    for level, parts in (("block", 1), ("operator", 2)):
        found = items(fold(graph, level).body)
        stacks = [item for item in found if isinstance(item, Frame) and item.count]
        assert [len(stack.parts) for stack in stacks] == [parts, parts]


def test_a_model_is_no_block() -> None:
    assert analyse_block("gpt.arch:GPT") is None
    assert analyse_block("gpt.arch") is None


def test_a_block_is_drawn_as_its_model_calls_it() -> None:
    """With the sizes, the choices and the blocks of the call, and its tensors as inputs."""
    analysis = analyse_block("whisper.arch:decoder_layer")
    assert analysis is not None
    assert [each.name for each in analysis.graph.inputs] == ["x", "memory"]
    found = [item for item in items(fold(analysis.graph).body) if isinstance(item, Box)]
    assert [item.title for item in found] == [
        *("Layer Norm", "Masked Multi-Head Attention"),
        *("Layer Norm", "Multi-Head Attention"),
        *("Layer Norm", "Feed Forward"),
    ]
    assert {item.type for item in found} == {"T × 512"}


def test_a_block_that_takes_a_block_has_that_of_the_call() -> None:
    analysis = analyse_block("llama.arch:rms_layer")
    assert analysis is not None
    verify(analysis.graph)
    notes = [item.note for item in items(fold(analysis.graph).body) if isinstance(item, Box)]
    assert notes == ["", "RoPE", "", "SwiGLU"]


def test_a_block_that_takes_a_block_and_is_not_called() -> None:
    with pytest.raises(ArchError, match="`pre_norm` cannot be drawn alone: it takes a block"):
        analyse_block("blocks.arch:pre_norm", {"eps": 1e-5})


def test_settings_of_a_block() -> None:
    analysis = analyse_block("blocks.arch:self_attention_block", {"causal": True, "heads": 1})
    assert analysis is not None
    titles = [item.title for item in items(fold(analysis.graph).body) if isinstance(item, Box)]
    assert titles == ["Layer Norm", "Masked Attention", "Layer Norm", "Feed Forward"]


def test_settings_of_a_block_may_be_names_and_fractions() -> None:
    given = {"act": "relu", "eps": 1e-6, "inner": 64}
    analysis = analyse_block("gpt2.arch:gpt_layer", given)
    assert analysis is not None
    boxes = [item for item in items(fold(analysis.graph).body) if isinstance(item, Box)]
    assert "eps = 1e-06" in dict(boxes[0].origin.facts)["operator"]
    assert 'act = "relu"' in dict(boxes[-1].origin.facts)["operator"]


def test_mistake_of_a_block_names_the_numbers_that_it_has_not() -> None:
    with pytest.raises(ArchError, match="drawn alone, `act` is 8") as error:
        analyse_block("gpt2.arch:gpt_layer", {"inner": 64})
    assert "drawn alone, `inner`" not in str(error.value)


def test_titles_are_of_operators() -> None:
    assert {*TITLES, *KINDS} <= set(OPERATORS)
    assert set(CIRCLES) == set(SIGNS)


def test_every_operator_is_drawn_once() -> None:
    """At the level of operators, what computes has an item, and no value has two."""
    graph = analyse("llama.arch").graph
    found = [
        item.id
        for item in items(fold(graph, "operator").body)
        if isinstance(item, Box | Sign) and item.origin.facts
    ]
    body = graph.nodes[1].bodies[0].nodes  # type: ignore[union-attr]
    assert sorted(found) == sorted(
        [node.id for node in (*graph.nodes, *body) if node.id != "%23"]
    )


def test_an_item_knows_its_line() -> None:
    graph = analyse("gpt.arch").graph
    (stack,) = (i for i in items(fold(graph).body) if isinstance(i, Frame))
    assert stack.origin.span is not None
    assert "self_attention_block" in stack.origin.span.line_text
    (norm, *_) = (i for i in items(stack.parts[0].body) if isinstance(i, Box))
    assert norm.origin.span is not None
    assert norm.origin.span.source.path.endswith("blocks.arch")
    assert "norm" in norm.origin.span.line_text
