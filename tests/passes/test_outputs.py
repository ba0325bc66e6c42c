"""Each pass, and all of them, keep the outputs: on every spec, and on generated graphs.

float32, 1e-5 of the largest number of an output. The plain form is computed by tinygrad's own
kernels, with nothing left out, shared or fused.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tinygrad import Tensor

import archdsl
from archdsl.backend import interpret
from archdsl.backend.context import ExecutionContext
from archdsl.graph.nodes import Graph
from archdsl.graph.parser import parse
from archdsl.graph.sites import parameters
from archdsl.graph.verify import verify
from archdsl.passes import PIPELINE, Pass, optimise
from archdsl.passes.decompose import decompose
from archdsl.passes.fuse import fuse
from archdsl.passes.program import lower
from tests.backend.on_cpu import ready
from tests.execution.test_decoder import SPECS
from tests.suite import some

TOLERANCE = 1e-5
ENCODERS = {
    "bert.arch:Bert": {"vocab": 50, "context": 20, "D": 24, "depth": 2, "heads": 4},
    "vit.arch": {"image": 32, "patch": 8, "classes": 7, "D": 24, "heads": 4, "depth": 2},
}
PASSES: dict[str, tuple[Pass, ...]] = {
    **{each.__name__: (each,) for each in PIPELINE},
    "PIPELINE": PIPELINE,
    "fuse": (decompose, fuse),
    "all": (*PIPELINE, fuse),
}


def computed(
    graph: Graph, inputs: dict[str, Tensor], weights: dict[str, Tensor], target: str | None
) -> dict[str, NDArray[Any]]:
    batch, sizes = interpret.measured(graph, inputs)
    program = lower(verify(decompose(graph)), batch, sizes, target=target)
    run = ExecutionContext(program, weights, {}, "CPU")
    return {name: each.numpy() for name, each in interpret.forward(run, inputs).items()}


def assert_same_outputs(
    graph: Graph, passes: tuple[Pass, ...], inputs: dict[str, Tensor], weights: Any
) -> None:
    plain = computed(graph, inputs, weights, None)
    passed = graph
    for each in passes:
        passed = verify(each(passed))
    for target in (None, "cpu"):
        found = computed(passed, inputs, weights, target)
        assert found.keys() == plain.keys()
        for name, right in plain.items():
            scale = max(float(np.abs(right).max()), 1e-6)
            assert np.abs(found[name] - right).max() <= TOLERANCE * scale, (name, target)


def drawn(graph: Graph) -> dict[str, Tensor]:
    """Inputs of two rows."""
    random = np.random.default_rng(4)
    found = {}
    for each in graph.inputs:
        lengths = {axis.name: axis.near(9) for axis in graph.varying}
        shape = [2, *(a.size.at(lengths) for a in each.type.axes)]
        if each.type.dtype == "float":
            values = random.standard_normal(shape).astype(np.float32)
        else:
            low = 1 if each.pad == 0 else 0
            values = random.integers(low, each.type.below or 5, shape).astype(np.int32)
        found[each.name] = Tensor(values, device="CPU").realize()
    return found


FEW = ("gpt.arch:GPT", "t5.arch:T5")  # which have most that there is


@pytest.mark.long
@pytest.mark.parametrize(
    "spec",
    [
        *some(FEW, "gpt.arch:GPT"),
        *(
            pytest.param(spec, marks=pytest.mark.slow)
            for spec in (*SPECS, *ENCODERS)
            if spec not in FEW
        ),
    ],
)
def test_passes_keep_the_outputs_of_every_spec(spec: str) -> None:
    sizes = SPECS.get(spec) or ENCODERS[spec]
    model = archdsl.compile(spec, device="CPU", seed=3, **sizes)
    inputs, weights = drawn(model.graph), dict(model.parameters)
    for name in ("PIPELINE", "all"):
        assert_same_outputs(model.graph, PASSES[name], inputs, weights)


OPERATORS = {
    "linear": "dim = 4, bias = true",
    "mlp": 'sizes = (6, 4), act = "gelu", bias = true',
    "norm": 'kind = "rms", eps = 1e-05, scale = true, bias = false',
    "scale": "by = 0.5",
    **dict.fromkeys(("relu", "silu", "tanh", "gelu"), ""),
    **dict.fromkeys(("add", "multiply"), ""),
}
nodes = st.tuples(st.sampled_from(sorted(OPERATORS)), st.integers(0, 99), st.integers(0, 99))


def generated(drawn_nodes: list[tuple[str, int, int]], outputs: list[int]) -> Graph:
    """A graph of float[T, 4] values, each computed from earlier ones."""
    lines = ["graph G init normal(std = 0.5)", "axis T <= 12", "input x: float[T, 4]"]
    made = ["x"]
    for number, (name, first, second) in enumerate(drawn_nodes, 1):
        x, other = made[first % len(made)], made[second % len(made)]
        pair = f", other = {other}" if name in ("add", "multiply") else ""
        attrs = f"; {OPERATORS[name]}" if OPERATORS[name] else ""
        lines.append(f"%{number} = {name}({x}{pair}{attrs}) @ p{number}: float[T, 4]")
        made.append(f"%{number}")
    refs = dict.fromkeys(made[1:][each % (len(made) - 1)] for each in outputs)
    lines += [f"output y{i} = {ref}" for i, ref in enumerate(refs)]
    return verify(parse("\n".join(lines) + "\n"))


@pytest.mark.long
@settings(max_examples=25)
@given(
    drawn_nodes=st.lists(nodes, min_size=1, max_size=12),
    outputs=st.lists(st.integers(0, 99), min_size=1, max_size=3),
    name=st.sampled_from(sorted(PASSES)),
)
def test_passes_keep_the_outputs_of_generated_graphs(
    drawn_nodes: list[tuple[str, int, int]], outputs: list[int], name: str
) -> None:
    ready()
    graph = generated(drawn_nodes, outputs)
    random = np.random.default_rng(1)
    weights = {
        each.path: Tensor(
            random.standard_normal(each.weight.shape).astype(np.float32), device="CPU"
        )
        for each in parameters(graph)
    }
    inputs = {"x": Tensor(random.standard_normal((2, 7, 4)).astype(np.float32), device="CPU")}
    assert_same_outputs(graph, PASSES[name], inputs, weights)


def test_the_pipeline_has_all_passes_without_a_target() -> None:
    graph = generated([("mlp", 0, 0), ("mlp", 0, 0), ("relu", 1, 0)], [2])
    assert [node.op for node in optimise(graph).nodes if hasattr(node, "op")].count("mlp") == 0
