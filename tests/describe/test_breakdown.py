"""The parts of a model add up to the model."""

from __future__ import annotations

import json

import pytest

from archdsl.analysis import analyse
from archdsl.cli import main
from archdsl.describe.breakdown import breakdown, breakdown_at, shorten
from archdsl.graph.cost import cost
from archdsl.graph.types import Size


@pytest.mark.parametrize(
    "spec", ["gpt2.arch", "jamba.arch", "albert.arch", "t5.arch", "deepseek.arch"]
)
@pytest.mark.parametrize("levels", [1, 3])
def test_the_parts_add_up(spec: str, levels: int) -> None:
    graph = analyse(spec).graph
    found, parts = cost(graph), breakdown(graph, levels)
    outer = [each for each in parts if each.level == 0]
    assert sum(each.params for each in outer) == found.params
    assert sum((each.flops for each in outer), start=Size.of(0)) == found.flops_formula
    at = breakdown_at(graph, found.sizes, levels)
    assert [each.part for each in at] == parts
    shares = [(each.params_share, each.flops_share) for each in at if each.part.level == 0]
    assert [sum(each) for each in zip(*shares, strict=True)] == pytest.approx([1, 1])
    assert sum(each.flops for each in at if each.part.level == 0) == found.flops
    assert max(each.level for each in parts) < levels


def test_parts_follow_the_parts_around_them() -> None:
    names = [each.path for each in breakdown(analyse("gpt.arch").graph)]
    assert names[2:5] == [
        f"self_attention_block.{{}}{end}" for end in ("", ".norm", ".attention")
    ]


def test_the_command_prints_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "gpt2.arch:small", "--blocks"]) == 0
    line = "    attention       28,348,416  22.8%      96.64 G  33.1%"
    assert line in capsys.readouterr().out.splitlines()
    assert main(["check", "gpt2.arch:small", "--blocks", "1", "--json"]) == 0
    (model,) = json.loads(capsys.readouterr().out)["models"]
    assert sum(each["params"] for each in model["blocks"]) == model["params"]


def test_the_numbers_of_many_layers_are_abbreviated() -> None:
    assert shorten("h.{0, 2, 4, 6, 8, 10, 12, 14, 16}") == "h.{0, 2, 4, … 16}"
    assert shorten("h.{0-4, 6}") == "h.{0-4, 6}"
    name = "a_name_with_more_letters_than_fit_into_a_column"
    assert shorten(name) == name
