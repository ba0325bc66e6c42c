"""The curves of cost equal the cost, for all sizes of the varying axes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from archdsl.analysis import analyse, analyse_models
from archdsl.describe.cost_curves import cost_curves, sizes
from archdsl.graph.cost import cost
from archdsl.graph.nodes import Graph
from archdsl.graph.types import Varying
from tests.suite import some

SPECS = sorted(path.name for path in Path("specs").glob("*.arch"))
NUMBERS = ("params", "weight_bytes", "flops", "activation_bytes", "cache_bytes")


def numbers(graph: Graph, at: dict[str, int]) -> dict[str, int]:
    found = cost(graph, at)
    return {name: getattr(found, name) for name in NUMBERS}


@pytest.mark.parametrize("spec", some(SPECS, "gpt2.arch", "transformer.arch", "vit.arch"))
def test_they_are_the_cost(spec: str) -> None:
    for found in analyse_models(spec, {}):
        graph = found.graph
        curves = cost_curves(graph)
        assert curves.at() == numbers(graph, {})
        for share in (0, 3, 60):  # of 100; another one for each axis
            at = {
                axis.name: axis.near(axis.bound * (share + 7 * i) // 100)
                for i, axis in enumerate(graph.varying)
            }
            assert curves.at(at) == numbers(graph, at)


def evaluate(formula: list[Any], at: dict[str, int]) -> int:
    """The value of a formula in `as_data`, as a page computes it."""
    total = 0
    for factor, axes in formula:
        for each in axes:
            factor *= (
                at[each] if isinstance(each, str) else evaluate(each["of"], at) // each["by"]
            )
        total += factor
    return total


@pytest.mark.parametrize("spec", some(["gpt2.arch", "wav2vec2.arch"], "gpt2.arch"))
def test_the_data_have_the_formulas_and_the_curves(spec: str) -> None:
    graph = analyse(spec).graph
    data = json.loads(json.dumps(cost_curves(graph).as_data()))
    assert [axis["name"] for axis in data["axes"]] == list(graph.bounds)
    for axis in data["axes"]:
        for index, size in enumerate(axis["sizes"]):
            at = graph.bounds | {axis["name"]: size}
            for name, formulas in data["formulas"].items():
                found = max(evaluate(formula, at) for formula in formulas)
                assert axis[name][index] == found
    for name, formulas in data["formulas"].items():
        found = max(evaluate(formula, graph.bounds) for formula in formulas)
        assert found == getattr(cost(graph), name)


def test_a_batch_multiplies_all_but_the_weights() -> None:
    curves = cost_curves(analyse("gpt2.arch").graph, "float16")
    one, four = curves.at({"T": 64}), curves.at({"T": 64}, batch=4)
    assert {name: four[name] / one[name] for name in one} == {
        **dict.fromkeys(("params", "weight_bytes"), 1),
        **dict.fromkeys(("flops", "activation_bytes", "cache_bytes"), 4),
    }
    assert one["weight_bytes"] == 2 * one["params"]


@pytest.mark.long
def test_a_state_has_a_constant_cache() -> None:
    (axis,) = cost_curves(analyse("mamba.arch").graph).as_data()["axes"]
    assert len(set(axis["cache_bytes"])) == 1 < len(set(axis["flops"]))


def test_sizes_of_an_axis_with_a_small_bound() -> None:
    assert sizes(Varying("T", bound=1)) == (1,)
    assert sizes(Varying("N", bound=1000, least=400)) == (400, 512, 1000)
