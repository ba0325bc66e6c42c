"""Which weights are split over devices, and why others are not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from archdsl.analysis import analyse
from archdsl.diagnostics import ArchError
from archdsl.execution.train_step import loss_graph
from archdsl.graph.linked_axes import RULES
from archdsl.graph.nodes import Graph
from archdsl.graph.ops import OPERATORS
from archdsl.graph.parser import parse
from archdsl.graph.sites import parameters
from archdsl.passes import optimise
from archdsl.passes.split_weights import Split, split_weights


def model(spec: str, **sizes: Any) -> Graph:
    return loss_graph(optimise(analyse(spec, settings=sizes).graph))


@functools.cache
def gpt(**sizes: Any) -> Graph:
    usual = {"vocab": 64, "context": 16, "D": 16, "heads": 4, "depth": 3}
    return model("gpt.arch", **(usual | sizes))


def small(text: str) -> Graph:
    return parse(f"graph G init normal(std = 0.02)\ninput x: float[8]\n{text}output y = %9\n")


def chosen(split: Split) -> dict[str, list[str]]:
    return {
        axis.name: [f"{each.path} {each.axis}" for each in axis.weights] for axis in split.axes
    }


def whole(split: Split) -> dict[str, str]:
    return {each.name: each.why for each in split.whole}


def test_the_rules_are_of_operators() -> None:
    assert OPERATORS.keys() >= RULES.keys()


def test_a_gpt() -> None:
    found, layer = split_weights(gpt(), 2), "self_attention_block.{}"
    assert chosen(found) == {
        "mlp.0": [
            f"{layer}.mlp.0.weight 0",
            f"{layer}.mlp.0.bias 0",
            f"{layer}.mlp.1.weight 1",
        ],
        "heads": [
            *(
                f"{layer}.attention.{name}.{each} 0"
                for name in "qkv"
                for each in ("weight", "bias")
            ),
            f"{layer}.attention.out.weight 1",
        ],
        "vocab": ["linear.weight 0", "linear.bias 0"],
        "embed": ["embed.weight 0"],
    }
    assert found.axis_of["self_attention_block.2.mlp.1.weight"] == 1
    assert found.share("self_attention_block.2.mlp.1.bias") == 1
    assert len(found.axis_of) == 3 * 10 + 3
    assert whole(found)["D"] == "`posenc` at `posenc` needs all of it"


def test_what_the_devices_of_a_gpt_add_up() -> None:
    rows, T, D, depth = 5, 16, 16, 3
    sums = {axis.name: axis.sums for axis in split_weights(gpt(), 2).axes}
    found = {
        name: [(each.backward, each.numbers(rows, {"T": T})) for each in of]
        for name, of in sums.items()
    }
    one = rows * T * D
    assert found == {
        "mlp.0": [(True, depth * one), (False, depth * one)],
        "heads": [*[(True, depth * one)] * 3, (False, depth * one)],
        "vocab": [(True, one), (False, 3 * rows * (T - 1))],
        "embed": [(False, one)],
    }


def test_grouped_heads_and_a_gated_mlp() -> None:
    sizes = {"D": 32, "heads": 8, "kv_heads": 4, "inner": 48, "vocab": 63, "depth": 2}
    found = split_weights(model("llama.arch", context=16, **sizes), 4)
    assert chosen(found) == {
        "inner": [
            f"h.{{}}.mlp.{name}" for name in ("gate.weight 0", "up.weight 0", "down.weight 1")
        ],
        "heads": [
            f"h.{{}}.attention.{name}.weight {int(name == 'out')}"
            for name in ("q", "k", "v", "out")
        ],
    }
    assert whole(found)["vocab"] == "63 is not a multiple of 4"


def test_a_table_that_is_shared_is_split_once() -> None:
    sizes = {"D": 32, "heads": 4, "vocab": 64, "depth": 1, "inner": 48, "tied": True}
    found = split_weights(model("llama.arch", context=16, **sizes), 2)
    (table,) = (axis for axis in found.axes if axis.name == "embed")
    assert [each.at for each in table.sums] == ["embed", "unembed", "next_token"]


def test_cross_attention_and_a_class_token() -> None:
    sizes = {"D": 16, "heads": 2, "depth": 2}
    found = split_weights(model("transformer.arch", vocab=64, context=16, **sizes), 2)
    names = [axis.name for axis in found.axes]
    assert (names.count("heads"), names.count("vocab")) == (3, 1)
    found = split_weights(model("vit.arch", image=8, patch=4, classes=6, **sizes), 2)
    assert [axis.name for axis in found.axes] == ["mlp.0", "heads", "mlp.0", "classes"]
    assert whole(found)["mlp.1"] == "`mlp.1.weight` is split along `mlp.0`"


def test_axes_by_name() -> None:
    assert [axis.name for axis in split_weights(gpt(), 2, ["vocab", "heads"]).axes] == [
        "heads",
        "vocab",
    ]


def test_frozen_weights_have_no_gradient_to_add_up() -> None:
    graph = gpt()
    frozen = {each.path for each in parameters(graph) if each.path != "linear.bias"}
    (axis,) = split_weights(graph, 2, ["heads"], frozen).axes
    assert [each.at.rpartition(".")[2] for each in axis.sums] == ["out"]


def test_a_norm_of_each_head_adds_up_the_gradient_of_its_scale() -> None:
    graph = small(
        """%1 = linear(x; dim = 8, bias = false) @ q: float[8]
%2 = reshape(%1; pattern = "(H h) -> H h", sizes = (H = 2)) @ split: float[H = 2, h = 4]
%3 = norm(%2; kind = "l2", eps = 1e-05, scale = true, bias = false) @ norm: float[H = 2, h = 4]
%4 = reshape(%3; pattern = "H h -> (H h)", sizes = ()) @ merge: float[8]
%9 = linear(%4; dim = 8, bias = true) @ out: float[8]
"""
    )
    (axis,) = split_weights(graph, 2).axes
    assert [(each.at, each.backward, each.size.value) for each in axis.sums] == [
        ("norm", True, 4),
        ("out", False, 8),
    ]


def test_a_matrix_from_an_axis_to_itself_stays_whole() -> None:
    graph = small(
        """%1 = linear(x; dim = 8, bias = false) @ up: float[8]
%9 = add(x, other = %1) @ add: float[8]
"""
    )
    with pytest.raises(ArchError, match=r"`up\.weight` has it twice"):
        split_weights(graph, 2)


def test_experts_stay_whole() -> None:
    graph = small(
        """%1 = linear(x; dim = 2, bias = false) @ router: float[2]
%2 = linear(x; dim = 8, bias = false) @ up: float[8]
%9 = mixture(%2, gates = %1; chosen = 1) * 2 @ experts: float[8]
  take %5: float[8]
  %6 = linear(%5; dim = 16, bias = false) @ up: float[16]
  %7 = linear(%6; dim = 8, bias = false) @ down: float[8]
  yield %7
"""
    )
    found = split_weights(graph, 2)
    assert found.axis_of == {"router.weight": 1, "up.weight": 1}
    assert whole(found)["up"] == "`mixture` at `experts` needs all of it"


@pytest.mark.parametrize(
    ("name", "graph", "message"),
    [
        ("heads", lambda: gpt(heads=4), "`heads` cannot be split over 3 devices"),
        ("head", gpt, "did you mean `heads`?"),
        ("D", gpt, "found: D = 16: `posenc` at `posenc` needs all of it"),
        ("D", gpt, "11 |     -> posenc(learned, context)"),
    ],
)
def test_what_cannot_be_split(name: str, graph: Callable[[], Graph], message: str) -> None:
    with pytest.raises(ArchError) as error:
        split_weights(graph(), 3 if name == "heads" else 2, [name])
    assert message in str(error.value)


def test_a_size_that_does_not_divide_names_its_axis() -> None:
    sizes = {"D": 32, "heads": 4, "kv_heads": 1, "vocab": 64, "depth": 1, "inner": 48}
    with pytest.raises(ArchError) as error:
        split_weights(model("llama.arch", context=16, **sizes), 2, ["heads"])
    assert "found: heads = 4: kv_heads = 1 is not a multiple of 2" in str(error.value)


def test_nothing_can_be_split() -> None:
    sizes = {"vocab": 63, "D": 15, "heads": 3}
    with pytest.raises(ArchError, match="no weight of `GPT` can be split over 8 devices"):
        split_weights(gpt(**sizes, context=7), 8)
