"""Inputs: their sizes may use numbers named above them, and they may have a default."""

from __future__ import annotations

import numpy as np
import pytest

import archdsl
from archdsl.describe.compare import difference
from archdsl.graph.nodes import Stack
from archdsl.graph.parser import parse
from archdsl.graph.printer import show
from tests.describe.test_expand import same_again
from tests.semantics.small import graph

DEFAULTS = """
model Defaults(types = 3) {
  kind = types - 1
  input kinds: int[T <= 8] < types = kind
  input gains: float[T, 2] = -0.5
  input marks: bool[2] = true
  input tokens: int[T <= 8] < 5 pad 0
  output y: float[T, 3] = (tokens -> embed(5, 3)) + (kinds -> kinds: embed(types, 3))
  output z: float[T, 2] = gains
  output m: bool[2] = marks
}
"""


def test_the_type_of_an_input_uses_numbers_named_above_it() -> None:
    found = graph("""
      model M(n = 4) {
        side = n // 2
        input x: float[side, 8]
        output y: float[side, 8] = x -> norm
      }
    """)
    assert str(found.inputs[0].type) == "float[side = 2, 8]"


def test_an_axis_is_ragged_above_the_input_that_pads_it() -> None:
    found = graph("""
      model M(D = 4) {
        input x: float[T <= 8, D]
        y = x -> mean(T)
        input tokens: int[T] < 5 pad 0
        output a: float[D] = y + (tokens -> embed(5, D) -> mean(T))
      }
    """)
    assert [(axis.name, axis.ragged) for axis in found.varying] == [("T", "tokens")]


def test_whole_division_of_a_fraction_is_a_size() -> None:
    """A quarter of each head is turned."""
    found = graph("""
      model Part(D = 64, heads = 4, pct = 0.25) {
        input x: float[T <= 8, heads, D // heads]
        output y: float[T, heads, D // heads] = x -> rotary(halves, size = D * pct // heads)
        expect D * pct // heads == 4
      }
    """)
    assert "size = 4," in show(found)


def test_layers_whose_numbers_a_string_has() -> None:
    found = graph("""
      model M(wide = "1 3.0 x 10") {
        input x: float[4]
        output y: float[4] = x -> { relu if has(wide, i) else tanh } * 6 as i
      }
    """)
    (stack,) = found.nodes
    assert isinstance(stack, Stack)
    assert [stack.kind(i) for i in range(6)] == [0, 1, 0, 1, 0, 0]


def test_defaults_are_in_the_graph_its_text_and_its_expansion() -> None:
    found = graph(DEFAULTS)
    defaults = {each.name: each.default for each in found.inputs}
    assert defaults == {"kinds": 2, "gains": -0.5, "marks": True, "tokens": None}
    assert [each.name for each in found.required] == ["tokens"]
    assert parse(show(found)) == found
    assert "input kinds: int[T <= 8] < 3 = 2\n" in same_again(found)


def test_a_default_is_a_difference() -> None:
    other = DEFAULTS.replace("= kind\n", "= 0\n").replace("kind = types - 1\n", "")
    found = difference(graph(DEFAULTS), graph(other))
    assert found == ("input kinds: int[T] < 3 = 2", "input kinds: int[T] < 3 = 0")


def test_a_default_on_a_line_of_its_own_is_formatted() -> None:
    tree = archdsl.parse(DEFAULTS)
    assert archdsl.parse(archdsl.format(tree)) == tree


def test_none_leaves_out_a_tensor() -> None:
    text = """
      block seen(x: float[T, D], bias = none): float[T, D] {
        q = x -> reshape("T (H h) -> T H h", H = 2)
        attend(q, q, q, bias = bias) -> reshape("T H h -> T (H h)")
      }
      model M(near = true) {
        input x: float[T <= 5, 4]
        bias = (x -> near: relative_bias(2)) if near else none
        output y: float[T, 4] = x -> seen(bias)
      }
    """
    near = show(graph(text))
    far = show(graph(text.replace("near = true", "near = false")))
    assert ("bias = %" in near, "bias" in far) == (True, False)


HEARD = """
model M(D = 4, more = false) {
  input wave: float[5 <= N <= 60]
  input heard: int[N] < 2 pad 0 = 1
  h = wave -> reshape("N -> N 1") -> conv1d(D, 5, stride = 2)
  output y: float[D] = h -> mean
  output z: float[D] if more = h -> linear(D) -> mean
}
"""


def test_an_input_that_only_gives_lengths_stays() -> None:
    found = graph(HEARD)
    assert [each.name for each in found.inputs] == ["wave", "heard"]
    assert parse(show(found)) == found


@pytest.mark.long
def test_an_input_with_padding_may_have_a_default() -> None:
    model = archdsl.compile(archdsl.parse(HEARD), device="CPU")
    wave = np.random.default_rng(0).standard_normal((2, 21))
    heard = np.arange(21) < [[21], [8]]
    rows = model(wave=wave, heard=heard.astype(int))["y"].numpy()
    for row, length in enumerate((21, 8)):
        alone = model(wave=wave[row : row + 1, :length])["y"].numpy()
        np.testing.assert_allclose(rows[row : row + 1], alone, atol=1e-6)


SEVERAL = """
model Several(task: one_of(classify, tag, none) = classify, classes = 5) {
  input x: float[T <= 8, 4]
  y = x -> linear(classes)
  output whole: float[classes] = y -> mean
  output parts: float[T, classes] = y
  loss cross_entropy(whole, label: int < classes) if task == classify
  loss cross_entropy(parts, tags: int[T] < classes) + 0.1 * z_loss(parts) if task == tag
}
"""


@pytest.mark.parametrize(
    ("task", "labels", "losses"),
    [("classify", ["label"], 1), ("tag", ["tags"], 2), ("none", [], 0)],
)
def test_the_loss_whose_condition_holds(task: str, labels: list[str], losses: int) -> None:
    found = archdsl.compile(archdsl.parse(SEVERAL), task=task).graph
    assert [each.name for each in found.labels] == labels
    assert len(found.losses) == losses
