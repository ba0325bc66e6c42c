"""The paths of inner values, and the graphs that read and replace them."""

from __future__ import annotations

from pathlib import Path

import pytest

import archdsl
from archdsl.analysis import analyse
from archdsl.graph.nodes import Graph, Input
from archdsl.graph.verify import verify
from archdsl.passes.edges import edges, read_and_replace
from archdsl.semantics.library import standard_library
from archdsl.syntax import ast
from archdsl.syntax.parser import parse


def graph_of(text: str) -> Graph:
    return analyse(archdsl.parse(text)).graph


NAMES = """
block double(x: float[T, D]): float[T, D] {
  y = x + x
  y + x
}

model Names(vocab = 5, D = 4) {
  input tokens: int[T <= 8] < vocab
  z = tokens -> embed(vocab, D) -> first: double -> relu
  output out: float[T, D] = z -> h: { double -> linear(D) } * 2 -> out: linear(D) -> tanh
}
"""


def test_paths_are_those_of_labels_blocks_edges_layers_and_outputs() -> None:
    found = edges(graph_of(NAMES))
    assert list(found.refs) == [
        *("embed", "first.add", "first.y", "first.add_2", "first", "relu", "z"),
        *("h.0.double.add", "h.0.double.y", "h.0.double.add_2", "h.0.double"),
        *("h.0.linear", "h.0"),
        *("h.1.double.add", "h.1.double.y", "h.1.double.add_2", "h.1.double"),
        *("h.1.linear", "h.1", "h"),
        *("out_2", "tanh", "out"),  # the name of an output goes before a label
    ]
    assert found.refs["first.y"] == found.refs["first.add"]
    assert found.refs["h.1"] == found.refs["h"] == found.refs["h.1.linear"]
    assert found.refs["out"] == found.refs["tanh"] != found.refs["out_2"]


def test_layers_that_share_their_weights_have_values_of_their_own() -> None:
    text = NAMES.replace("* 2", "* 2 tied")
    found = edges(graph_of(text))
    paths = {node.id: node.path for node in found.graph.nodes}
    first, second = (found.refs[f"h.{i}.linear"] for i in range(2))
    assert first != second
    assert paths[first] == paths[second] == "h.linear"


def test_a_layer_may_return_what_it_receives() -> None:
    text = """
      model Same() {
        input x: float[T <= 8, 4]
        output y: float[T, 4] = x -> h: { relu if 1 == 2 } * 2 -> tanh
      }"""
    found = edges(graph_of(text))
    assert found.refs == {"h.0": "x", "h.1": "x", "h": "x"} | dict.fromkeys(
        ("tanh", "y"), found.refs["tanh"]
    )
    graph = read_and_replace(found, ["y", "h.1"], ["h.1"])
    assert dict(graph.outputs)["h.1"] == "h.1"


def test_only_what_is_read_is_computed() -> None:
    whole = analyse("gpt2.arch", settings={"depth": 3}).graph
    for path, layers in (("h.0", 1), ("h.1.attention.weights", 2), ("logits", 3)):
        graph = read_and_replace(edges(whole, {path}), [path])
        ops = [node.op for node in graph.nodes]  # type: ignore[union-attr]
        divided = path.endswith("weights")
        assert ops.count("attend") + divided == layers
        assert ops.count("softmax") == divided
        assert graph.outputs[0][0] == path


def test_a_replaced_value_is_an_input_and_what_it_needed_is_not_computed() -> None:
    whole = analyse("gpt2.arch", settings={"depth": 2}).graph
    found = edges(whole, {"h.0", "logits"})
    graph = read_and_replace(found, ["logits"], ["h.0"])
    assert graph.inputs[1] == Input("h.0", found.types()["h.0"])
    assert not [node for node in graph.nodes if node.path.startswith(("h.0", "posenc"))]  # type: ignore[union-attr]
    # The table of the embedding is that of the logits, too.
    graph = read_and_replace(found, ["logits"], ["embed"])
    assert [table.path for table in graph.tables] == ["embed"]
    verify(graph)


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", sorted(standard_library().glob("*.arch")), ids=lambda p: p.name
)
def test_each_model_has_valid_edges(path: Path) -> None:
    file = parse(path.read_text(encoding="utf-8"), path.name)
    for model in (item for item in file.items if isinstance(item, ast.Model)):
        graph = analyse(f"{path.name}:{model.name.id}").graph
        found = edges(graph)
        verify(found.graph)
        assert {name for name, _ in graph.outputs} <= found.refs.keys()
        last = list(found.refs)[-1]
        middle = list(found.refs)[len(found.refs) // 2]
        some = edges(graph, {*found.maps[:1], last, middle})
        assert some.refs.keys() == found.refs.keys()
        verify(read_and_replace(some, [last, *found.maps[:1]], [middle]))
