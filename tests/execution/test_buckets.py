"""Calls with a length of a bucket give what calls with a program of just that length give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import archdsl
from archdsl.execution import executable
from archdsl.execution.buckets import bucket_length, paddable_axes
from tests.execution.test_decoder import SPECS
from tests.semantics import small

TOLERANCE = 1e-5  # float32, of the largest number of an output; nearly all are equal to the bit
BERT = {"vocab": 50, "context": 40, "D": 24, "depth": 2, "heads": 4}
CASES = {**SPECS, "bert.arch:Bert": BERT}
QUICK = ("gpt.arch", "t5.arch", "bert.arch:Bert")

random = np.random.default_rng(5)


def inputs_of(model: archdsl.model.Model, length: int) -> dict[str, Any]:
    """Two rows of a length; where an axis is ragged, the second one is shorter."""
    lengths = {axis.name: length for axis in model.graph.varying}
    given: dict[str, Any] = {}
    for each in model.graph.inputs:
        shape = (2, *(axis.size.at(lengths) for axis in each.type.axes))
        if each.type.dtype == "float":
            given[each.name] = random.standard_normal(shape)
            continue
        tokens = random.integers(0, min(each.type.below or 50, 50), shape)
        if each.pad is not None:
            tokens[tokens == each.pad] = each.pad + 1
            tokens[1, length - 4 :] = each.pad
        given[each.name] = tokens
    return given


@pytest.mark.parametrize(
    "spec", [s if s in QUICK else pytest.param(s, marks=pytest.mark.slow) for s in CASES]
)
def test_outputs_are_those_of_a_program_of_that_length(
    spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = archdsl.compile(spec, device="CPU", seed=3, **CASES[spec])
    for length in (13, 18):
        given = inputs_of(model, length)
        bucket = {name: each.numpy() for name, each in model(**given).items()}
        with monkeypatch.context() as patch:
            patch.setattr(executable, "bucket_length", lambda length, _: length)
            exact = {name: each.numpy() for name, each in model(**given).items()}
        for name, each in exact.items():
            assert each.shape == bucket[name].shape
            assert abs(each - bucket[name]).max() <= TOLERANCE * abs(each).max(), name


def test_lengths_of_a_bucket_share_a_capture() -> None:
    model = archdsl.compile("gpt.arch", vocab=50, context=256, D=8, heads=2, depth=1)
    for length in (129, 133, 144, 130):
        assert model(tokens=random.integers(0, 50, (1, length)))["logits"].shape[1] == length
    assert len(model.executable._captures) == 1


def test_a_bucket_ends_at_the_bound() -> None:
    assert bucket_length(1000, 1010) == 1010
    assert [bucket_length(n, 64) for n in range(1, 9)] == [*range(1, 9)]
    assert all(n <= bucket_length(n, 4096) < 1.125 * n + 8 for n in range(1, 4097))


def test_axes_that_can_be_padded() -> None:
    def paddable(*body: str) -> frozenset[str]:
        return paddable_axes(small.graph(small.model(*body)))

    assert paddable("float[T, D] = x -> attention(2, causal)") == {"T"}
    assert paddable("float[T, D] = x -> attention(2)") == frozenset()
    assert paddable("float[D] = x -> mean(T)") == frozenset()
    # The second output sees all positions, and forbids padding for both.
    assert paddable("float[T, D] = x -> linear(D)", "float[D] = x -> mean(T)") == frozenset()
