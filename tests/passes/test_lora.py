"""Low-rank matrices beside linear layers: the graph, and what it computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tinygrad import Tensor

import archdsl
from archdsl.analysis import analyse
from archdsl.diagnostics import ArchError
from archdsl.execution.adapters import initial_adapter, with_lora
from archdsl.execution.decoder import Decoder
from archdsl.execution.executable import Executable
from archdsl.graph.cost import cost, parameter_count
from archdsl.graph.nodes import Graph, Stack
from archdsl.graph.parser import parse
from archdsl.graph.printer import show
from archdsl.graph.sites import parameters
from archdsl.graph.verify import verify
from archdsl.model import Model
from archdsl.passes.lora import adapted, add_lora

TOKENS = np.random.default_rng(0).integers(0, 31, (2, 5))
# With operators that are decomposed, a bias, and experts.
SPEC = """
use "blocks.arch"

block layer(x: float[T, D]): float[T, D] {
  a = x + (x -> norm -> attention(2, causal, bias = true))
  a + (a -> norm -> mixture_mlp(2, 1, 8)) + (a -> mlp(20, D))
}

model Small(vocab = 31, context = 12, D = 16) {
  input tokens: int[T <= context] < vocab
  output logits: float[T, vocab] =
    tokens -> embed(vocab, D) -> h: layer * 2 -> head: linear(vocab)
  loss next_token(logits, tokens)
  init normal(std = 0.2)
}
"""


@pytest.fixture(scope="module")
def llama() -> Graph:
    return analyse("llama.arch:tiny").graph


@pytest.fixture(scope="module")
def model() -> Model:
    return archdsl.compile(archdsl.parse(SPEC), device="CPU")


def filled(model: Model, rank: int, alpha: float, targets: list[str]) -> Executable:
    """A model with random matrices of a rank."""
    graph = with_lora(model.executable, rank, alpha, targets).graph
    random = np.random.default_rng(1)
    shapes = {path: value.shape for path, value in initial_adapter(graph, 0).items()}
    return model.executable.extended(
        graph, {path: random.standard_normal(n, np.float32) / 5 for path, n in shapes.items()}
    )


def merged(executable: Executable, scale: float) -> Mapping[str, NDArray[np.float32]]:
    """The adapted weights of a model without an adapter that computes the same."""
    weights = {path: each.numpy() for path, each in executable.parameters.items()}
    pairs = adapted(executable.graph).items()
    return {path: weights[path] + scale * weights[b] @ weights[a] for path, (a, b) in pairs}


@pytest.mark.parametrize("targets", [[], ["h.*.attention.q", "**.down"], ["head"]])
def test_a_graph_with_an_adapter_is_valid_and_prints(llama: Graph, targets: list[str]) -> None:
    graph = verify(add_lora(llama, 3, 0.5, targets))
    assert parse(show(graph)) == graph
    assert [each.count for each in graph.nodes if isinstance(each, Stack)] == [2]
    shapes = {each.path: each.weight.shape for each in parameters(llama)}
    names = {"[]": ("attention", "mlp"), "['head']": ("head",)}
    words = set(names.get(str(targets), ("q", "down")))
    wanted = {p for p in shapes if words & set(p.split("."))}
    assert set(adapted(graph)) == wanted
    added = sum(3 * sum(shapes[path]) for path in wanted)
    assert parameter_count(graph) == parameter_count(llama) + added


def test_the_cost_counts_the_low_rank_products(llama: Graph) -> None:
    graph = add_lora(llama, 3, 0.5, ["head"])
    more = 2 * 5 * 3 * (48 + 97)
    assert cost(graph, {"T": 5}).flops == cost(llama, {"T": 5}).flops + more


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["h.*.attention.query"], "no linear layer matches `h.*.attention.query`"),
        (["h.0.attention"], "an adapter changes all layers of a kind alike"),
        (["embed"], "no linear layer matches `embed`"),
    ],
)
def test_targets_that_fit_no_layer(llama: Graph, targets: list[str], message: str) -> None:
    with pytest.raises(ArchError, match=message.replace("*", r"\*")):
        add_lora(llama, 3, 0.5, targets)


def test_an_unknown_target_has_a_suggestion(llama: Graph) -> None:
    with pytest.raises(ArchError, match=r"did you mean `h\.\*\.attention`"):
        add_lora(llama, 3, 0.5, ["h.*.atention"])


def test_a_second_adapter_is_refused(llama: Graph) -> None:
    with pytest.raises(ArchError, match="the model has an adapter"):
        add_lora(add_lora(llama, 3, 0.5), 3, 0.5)


@pytest.mark.parametrize(
    ("rank", "alpha", "message"),
    [(0, 1.0, "rank cannot be 0"), (2, float("nan"), "alpha cannot be nan")],
)
def test_numbers_that_are_not_allowed(
    model: Model, rank: int, alpha: float, message: str
) -> None:
    with pytest.raises(ArchError, match=message):
        with_lora(model.executable, rank, alpha)


def test_the_matrices_are_drawn_as_in_peft(llama: Graph) -> None:
    drawn = initial_adapter(add_lora(llama, 8, 1.0), 0)
    a = np.concatenate([v.ravel() * v.shape[1] ** 0.5 for p, v in drawn.items() if "_A" in p])
    assert abs(a).max() <= 1
    assert abs(a.mean()) < 0.05
    assert abs(a.var() - 1 / 3) < 0.03
    assert not any(value.any() for path, value in drawn.items() if "_B" in path)


@pytest.mark.long
def test_logits_and_decoding_equal_those_of_the_merged_weights(model: Model) -> None:
    executable = filled(model, 2, 3.0, ["h", "head"])
    before: Any = model(tokens=TOKENS)["logits"].numpy()
    found = executable.forward({"tokens": TOKENS}, ["logits"])["logits"].numpy()
    decoder = Decoder(executable, len(TOKENS))
    stepped = np.concatenate([decoder.feed(TOKENS[:, :3]), decoder.feed(TOKENS[:, 3:])], 1)
    for path, value in merged(executable, 1.5).items():
        model.parameters[path].assign(Tensor(value, device="CPU")).realize()
    expected = model(tokens=TOKENS)["logits"].numpy()
    np.testing.assert_allclose(found, expected, atol=2e-5)
    np.testing.assert_allclose(stepped, expected, atol=2e-5)
    assert abs(expected - before).max() > 0.1
