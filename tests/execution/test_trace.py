"""Reading and replacing inner values: `model.trace` and `model.patch`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import archdsl
from archdsl.diagnostics import ArchError
from archdsl.model import Model

IDS = np.array([[1, 2, 3, 4, 5], [5, 4, 3, 2, 1]])
WEIGHTS = ["h.0.attention.weights", "h.1.attention.weights"]


@pytest.fixture(scope="module")
def model() -> Model:
    return archdsl.compile(
        "gpt2.arch", device="CPU", vocab=11, context=8, D=8, heads=2, depth=2
    )


def norm(x: NDArray[Any]) -> NDArray[Any]:
    """The layer norm of drawn weights, which scales by 1."""
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def test_inner_values_are_those_of_the_formulas(model: Model) -> None:
    trace = model.trace([*WEIGHTS, "h.1.*", "h.0", "hidden"], tokens=IDS)
    assert list(trace)[:2] == ["h.0.attention.weights", "h.0"]
    assert "h.0.attention" not in trace
    weights = trace["h.1.attention.weights"]  # [B, H, T, S]
    assert trace.axes("h.1.attention.weights") == ("B", "heads", "T", "T")
    assert np.allclose(weights.sum(-1), 1, atol=1e-6)
    assert not np.triu(weights, 1).any()
    assert np.allclose(trace["h.1.norm"], norm(trace["h.0"]), atol=1e-5)
    assert np.allclose(trace["h.1.a"], trace["h.0"] + trace["h.1.attention"], atol=1e-6)
    assert np.allclose(trace["h.1"], trace["h.1.a"] + trace["h.1.mlp"], atol=1e-6)
    assert np.allclose(trace["hidden"], norm(trace["h.1"]), atol=1e-5)


def test_a_replaced_value_changes_what_follows_from_it(model: Model) -> None:
    """Without its last layer, a model returns the norm of what goes into the layer."""
    other = np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float32)
    run = model.patch({"h.0": other, "h.1": lambda x: x * 0 + other}, tokens=IDS)
    assert list(run) == ["hidden", "logits"]
    assert np.allclose(run["hidden"], norm(other), atol=1e-5)


@pytest.mark.slow
def test_functions_get_values_that_follow_from_the_patches_before_them(model: Model) -> None:
    seen: list[NDArray[Any]] = []

    def doubled(x: NDArray[Any]) -> NDArray[Any]:
        seen.append(x)
        return 2 * x

    run = model.patch({"h.*.mlp": doubled, "h.0.attention": np.zeros((2, 5, 8))}, tokens=IDS)
    before = run.read(["posenc", "h.*.a", "h.0"])
    assert np.array_equal(before["h.0.a"], before["posenc"])
    assert np.allclose(before["h.0"], before["posenc"] + 2 * seen[0], atol=1e-6)
    assert np.allclose(run["h.1"], before["h.1.a"] + 2 * seen[1], atol=1e-6)


@pytest.mark.long
def test_a_model_without_patches_and_one_with_its_own_values_are_equal(model: Model) -> None:
    lazy = model.trace(tokens=IDS)
    assert list(lazy) == list(model.edges)
    assert lazy.types == model.edges
    own = {name: lazy[name] for name in ("h.0.attention.weights", "h.0.mlp", "h.1")}
    expected = model(tokens=IDS)["logits"].numpy()
    for patches in ({}, own):
        assert np.allclose(model.patch(patches, tokens=IDS)["logits"], expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("length", [3, 12])
def test_padding_is_neither_read_nor_attended_to(length: int) -> None:
    """Lengths are rounded up to buckets; a ragged axis has padding of its own."""
    model = archdsl.compile(
        "bert.arch:Bert", device="CPU", vocab=11, context=16, D=8, heads=2, depth=1
    )
    row = np.random.default_rng(0).integers(1, 11, length)
    (name,) = [name for name in model.edges if name.endswith("attention.weights")]
    alone = model.trace(name, tokens=row[None])[name]
    assert alone.shape == (1, 2, length, length)
    both = np.zeros((2, length + 2), int)
    both[0, :length], both[1] = row, 3
    beside = model.trace(name, tokens=both)[name]
    assert not beside[0, :, :, length:].any()
    assert np.allclose(beside[0, :, :length, :length], alone[0], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("h.1.atention", "has no edge `h.1.atention`"),
        ("h.7.attention", "did you mean `h."),
        ("x.*.attention", "one of its 51 edges; `model.edges` lists them"),
    ],
)
def test_an_unknown_edge_is_an_error(model: Model, name: str, message: str) -> None:
    with pytest.raises(ArchError, match=message):
        model.trace(name, tokens=IDS)


def test_a_patch_has_the_type_of_its_edge(model: Model) -> None:
    wrong: dict[str, tuple[Any, str]] = {
        "h.0": (np.zeros((2, 5, 7)), r"`h.0`: axis 2 must be 8"),
        "h.0.mlp": (np.zeros((5, 8)), "the batch axis comes first"),
        "h.0.attention.weights": (np.zeros((2, 2, 5, 4)), "`T` is 4 here and 5"),
        "h.1": (np.full((2, 5, 8), np.nan), "all numbers must be finite"),
        "h.1.norm": (np.zeros((2, 5, 8), bool), "float values are needed"),
    }
    for name, (value, message) in wrong.items():
        with pytest.raises(ArchError, match=message):
            model.patch({name: value}, tokens=IDS)
    with pytest.raises(
        ArchError, match=r"`h.0` and `h.0.add_2` are the same edge|`h.0.add_2` and"
    ):
        model.patch({"h.0": np.zeros((2, 5, 8)), "h.0.add_2": np.zeros((2, 5, 8))}, tokens=IDS)
    with pytest.raises(ArchError, match="has no input `tokns`"):
        model.patch({}, tokns=IDS)
