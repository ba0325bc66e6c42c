"""The first value of a float16 model that is not finite is named, with its layer and line."""

from __future__ import annotations

import numpy as np
import pytest

import archdsl
from archdsl.analysis import analyse
from archdsl.diagnostics import ArchError
from archdsl.graph.nodes import Graph
from archdsl.model import Model
from archdsl.passes import optimise
from archdsl.passes.widen import widen

SPEC = """\
block up(x: float[T, D]): float[T, D] {
  x + (x -> norm(rms) -> wide: linear(2 * D, bias = false) -> relu -> linear(D, bias = false))
}

model Deep(vocab = 9, D = 4) {
  input tokens: int[T <= 8] < vocab
  x = tokens -> embed(vocab, D) -> layer: up * 3 -> norm(rms)
  output logits: float[T, vocab] = x -> head: linear(vocab, bias = false)
  loss next_token(logits, tokens)
}
"""


@pytest.fixture
def model() -> Model:
    return archdsl.compile(archdsl.parse(SPEC, "deep.arch"), dtype="float16", device="CPU")


def scale(model: Model, name: str, factor: float) -> None:
    weight = model.parameters[name]
    weight.assign((weight.cast("float32") * factor).cast("float16").contiguous()).realize()


def test_sums_beyond_float16_are_finite(model: Model) -> None:
    tokens = [[1, 2, 3]]
    for i in range(3):
        scale(model, f"layer.{i}.wide.weight", 1e3)
        scale(model, f"layer.{i}.linear.weight", 1e5)
    whole = archdsl.compile(archdsl.parse(SPEC, "deep.arch"), device="CPU")
    for name, weight in model.parameters.items():
        whole.parameters[name].assign(weight.cast("float32").contiguous()).realize()
    right = whole(tokens=tokens)["logits"].numpy()
    assert (
        np.abs(model(tokens=tokens)["logits"].numpy() - right).max()
        < 2e-3 * np.abs(right).max()
    )


def test_the_first_infinite_value_is_named(model: Model) -> None:
    for name, value in (("embed.weight", 1), ("layer.1.wide.weight", 60000)):
        weight = model.parameters[name]
        weight.assign(weight.full_like(value).contiguous()).realize()
    for run in (
        lambda: model(tokens=[[1, 2, 3]]),
        lambda: model.decoder(1).feed(np.array([[1, 2, 3]])),
        lambda: list(model.generate([1, 2, 3], max_new_tokens=2)),
    ):
        with pytest.raises(ArchError) as caught:
            run()
        (diagnostic,) = caught.value.diagnostics
        assert diagnostic.code == "overflow"
        assert "`layer.1.wide`" in diagnostic.message
        assert diagnostic.span is not None
        assert (diagnostic.span.source.path, diagnostic.span.line) == ("deep.arch", 2)
        assert "inf" in str(diagnostic.found)


def test_an_input_beyond_float16_is_named() -> None:
    spec = "model M(D = 4) { input x: float[D]  output y: float[D] = x -> linear(D) }"
    model = archdsl.compile(archdsl.parse(spec), dtype="float16", device="CPU")
    with pytest.raises(ArchError, match=r"the input `x` is not finite in float16"):
        model(x=[[1, 2, 70000, 4]])


def test_which_values_are_wide() -> None:
    graph: Graph = optimise(analyse(archdsl.parse(SPEC)).graph)
    (stack,) = (node for node in graph.nodes if hasattr(node, "bodies"))
    narrow = {node.id: node.op for node in stack.last.nodes if node.id not in widen(graph)}
    assert sorted(narrow.values()) == ["norm", "relu"]
    assert stack.id in widen(graph)
