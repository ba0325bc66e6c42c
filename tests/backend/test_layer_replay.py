"""Replayed layers: the same to the bit as if each layer were traced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tinygrad import Context, Tensor

import archdsl
from archdsl.backend import layer_replay
from archdsl.backend.context import ExecutionContext
from archdsl.backend.emit import EMIT
from archdsl.backend.program import Program
from archdsl.backend.tensors import realize_outside_capture
from archdsl.execution.decoder import Decoder
from archdsl.graph.nodes import Graph
from archdsl.passes.program import Program as Lowered
from tests.execution.test_decoder import SPECS
from tests.suite import some

DEPTH = 4
FEW = ("gpt.arch:GPT", "mistral.arch:Mistral", "t5.arch:T5")  # which have all that there is
LAYERED = [name for name, sizes in SPECS.items() if "depth" in sizes]


def outputs(spec: str, kernels: str) -> list[NDArray[Any]]:
    """The logits of a forward pass, a prefill of two rows, and two decoding steps after it."""
    model = archdsl.compile(
        spec, device="CPU", kernels=kernels, seed=5, **{**SPECS[spec], "depth": DEPTH}
    )
    random = np.random.default_rng(2)
    decoder = Decoder(model.executable, rows=2)
    others: dict[str, Any] = {}
    for each in model.graph.inputs:
        if each.name != decoder.plan.tokens:
            lengths = {axis.name: axis.near(9) for axis in model.graph.varying}
            sizes = [axis.size.at(lengths) for axis in each.type.axes]
            whole = each.type.dtype == "int"
            others[each.name] = (
                random.integers(2, 50, (2, *sizes))  # type: ignore[misc]
                if whole
                else random.standard_normal((2, *sizes))  # type: ignore[misc]
            )
    tokens = random.integers(2, 50, (2, 11))
    found = [model(**{decoder.plan.tokens: tokens}, **others)[decoder.plan.logits].numpy()]
    decoder.begin(**others)
    found.append(decoder.prefill([tokens[0, :7].tolist(), tokens[1].tolist()]))
    return [*found, *(decoder.feed(tokens[:, i : i + 1]) for i in range(2))]


@pytest.mark.parametrize(
    "case",
    [
        *some([(spec, "best") for spec in LAYERED], ("gpt.arch:GPT", "best")),
        *some([(spec, "tinygrad") for spec in FEW]),
        *(
            pytest.param((spec, "tinygrad"), marks=pytest.mark.slow)
            for spec in LAYERED
            if spec not in FEW
        ),
    ],
    ids="-".join,
)
def test_the_same_as_if_each_were_traced(
    case: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name, emit in EMIT.items():
        counted = lambda op, n=name, emit=emit: (calls.append(n), emit(op))[1]  # noqa: E731
        monkeypatch.setitem(EMIT, name, counted)
    replayed = outputs(*case)
    few = len(calls)
    with Context(JIT=0):  # type: ignore[no-untyped-call]  # without a capture, nothing is replayed
        traced = outputs(*case)
    assert few < len(calls) - few
    for quick, plain in zip(replayed, traced, strict=True):
        assert np.array_equal(quick, plain)


def weights(*values: Tensor) -> ExecutionContext:
    """The context of a stack `h` with one weight for each layer."""
    named = {f"h.{i}.weight": each for i, each in enumerate(values)}
    return ExecutionContext(Lowered(Graph("none", (), (), (), ()), 1, ()), named, {}, "CPU")


def passed(
    run: ExecutionContext, count: int, kinds: Sequence[int] = (), **more: Tensor
) -> tuple[list[float], list[int]]:
    """The output of a stack of multiply-adds for ones, and which of its layers were traced.

    A layer of kind n adds 1 + n.
    """
    traced = []
    kinds = kinds or [0] * count

    def one(i: int, x: Tensor) -> Tensor:
        traced.append(i)
        made = x * run.weights[f"h.{i}.weight"] + (1 + kinds[i])
        return made + more[f"x{i}"] if f"x{i}" in more else made

    def own(i: int) -> dict[str, Tensor]:
        return layer_replay.layer_tensors(run.weights, {}, f"h.{i}")

    program = Program(
        lambda x: layer_replay.run_layers(run.realize_layer, kinds, x, one, own), "CPU"
    )
    found = [program(ones()).tolist() for _ in range(2)]
    assert found[0] == found[1]
    return found[0], traced


def ones(*more: float) -> Tensor:
    return Tensor(np.array([1.0, 1.0, *more], np.float32), device="CPU").realize()


def test_two_copies_are_traced() -> None:
    values = [realize_outside_capture(ones() * i) for i in range(5)]
    assert passed(weights(*values), 5) == ([65, 65], [0, 1])


def test_two_layers_of_each_kind_are_traced() -> None:
    values = [realize_outside_capture(ones() * i) for i in range(7)]
    found, traced = passed(weights(*values), 7, kinds := [0, 1, 0, 0, 1, 0, 1])
    right = 1
    for i, kind in enumerate(kinds):
        right = right * i + 1 + kind
    assert (found, traced) == ([right, right], [0, 1, 2, 4])


def test_weights_that_are_parts_of_one() -> None:
    whole = realize_outside_capture(
        Tensor(np.arange(10, dtype=np.float32), device="CPU").repeat(1).contiguous()
    )
    values = [whole[2 * i : 2 * i + 2] for i in range(5)]
    found, traced = passed(weights(*values), 5)
    right = np.ones(2)
    for i in range(5):
        right = right * [2 * i, 2 * i + 1] + 1
    assert found == right.tolist()
    assert traced == [0, 1, 2, 3, 4]


def test_what_one_copy_has_and_others_have_not() -> None:
    values = [realize_outside_capture(ones() * i) for i in range(4)]
    assert passed(weights(*values), 4, x1=ones()) == ([22, 22], [0, 1, 2, 3])


def test_a_copy_whose_weights_are_of_another_dtype_or_shape() -> None:
    values = [realize_outside_capture(ones() * i) for i in range(5)]
    values[3] = realize_outside_capture(values[3].cast("float16").contiguous())
    values[4] = realize_outside_capture(Tensor([4.0], device="CPU"))
    assert passed(weights(*values), 5) == ([65, 65], [0, 1, 3, 4])


def test_a_copy_that_has_more_weights() -> None:
    run = weights(*[realize_outside_capture(ones() * i) for i in range(4)])
    run = replace(run, weights={**run.weights, "h.2.bias": ones()})
    assert passed(run, 4) == ([16, 16], [0, 1, 2])
