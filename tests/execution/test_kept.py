"""One contract for all models with states: what decoding keeps does not grow with the position,
a step computes what the whole sequence does, and time grows linearly."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np
import pytest

import archdsl
from archdsl.execution.decoder import Decoder, _leaves
from archdsl.graph.nodes import Scan, walk
from archdsl.passes import optimise
from archdsl.passes.recurrences import plan
from tests.execution.test_decoder import SPECS, TOLERANCE

pytestmark = pytest.mark.slow

# Models whose layers only have states, tails of convolutions, or windows; and hybrids, of which
# the layers with attention alone keep all positions.
FIXED: dict[str, dict[str, Any]] = {
    "delta_net.arch:GatedDeltaNet": {},
    "mamba.arch:Mamba": {},
    "mamba2.arch:Mamba2": {"depth": 4},
    "retnet.arch:RetNet": {},
    "retnet.arch:GatedRetNet": {},
    "rwkv7.arch:RWKV7": {"depth": 4},
    "transformer_xl.arch:TransformerXL": {},
}
HYBRID: dict[str, dict[str, Any]] = {
    "falcon_h1.arch:FalconH1": {},
    "granite4.arch:Granite4": {"depth": 4, "layers": "mamba attention mamba attention"},
    "jamba.arch:Jamba": {"depth": 4, "attention_every": 2, "attention_at": 1},
    "olmo_hybrid.arch:OLMoHybrid": {"depth": 4},
    "qwen3_next.arch:Qwen3Next": {"depth": 4},
}
WITHOUT_STATES = {"transformer_xl.arch:TransformerXL"}  # but with a window
ROWS = 2


def made(spec: str, **sizes: Any) -> archdsl.Model:
    sizes = SPECS[spec] | {**FIXED, **HYBRID}[spec] | sizes
    return archdsl.compile(spec, device="CPU", seed=3, **sizes)


def scans(model: archdsl.Model) -> list[Scan]:
    return [node for node, _ in walk(model.graph.nodes) if isinstance(node, Scan)]


def kept_bytes(decoder: Decoder) -> int:
    return sum(each.nbytes() for _, each in _leaves(decoder._caches))


def test_every_model_with_a_state_is_here() -> None:
    every = {
        spec: archdsl.compile(spec, device="CPU", **sizes) for spec, sizes in SPECS.items()
    }
    found = {spec for spec, model in every.items() if scans(model)}
    assert found == {*FIXED, *HYBRID} - WITHOUT_STATES


@pytest.mark.parametrize("spec", [*FIXED, *HYBRID])
def test_what_is_kept_and_what_steps_compute(spec: str) -> None:
    model = made(spec)
    decoder = Decoder(model.executable, ROWS)
    # What `cost` says, for each row.
    states = [each for each in decoder.plan.states if each.written]
    elements = sum(each.elements.at({"T": 9}) for each in states)
    assert 4 * elements == model.cost(T=9).cache_bytes
    growing = [each for each in states if each.elements.vars]
    assert bool(growing) == (spec in HYBRID)
    # Ten times the context: the same bytes, but for attention.
    longer = Decoder(made(spec, context=900).executable, ROWS)
    before = kept_bytes(decoder)
    assert (kept_bytes(longer) == before) == (spec in FIXED)

    random = np.random.default_rng(5)
    tokens = random.integers(2, 50, (ROWS, 80))
    right = model(tokens=tokens)["logits"].numpy()
    scale = TOLERANCE * abs(right).max()
    pieces = np.split(tokens, [1, 2, 40, 41, 79], axis=1)
    found = []
    for piece in pieces:
        found.append(decoder.feed(piece))
        assert kept_bytes(decoder) == before
    assert abs(np.concatenate(found, 1) - right).max() <= scale

    decoder.reset()
    lengths = (50, 7)
    ends = decoder.prefill([tokens[i, :n].tolist() for i, n in enumerate(lengths)])
    assert all(abs(ends[i] - right[i, n - 1]).max() <= scale for i, n in enumerate(lengths))
    following = decoder.feed(np.stack([tokens[i, n : n + 3] for i, n in enumerate(lengths)]))
    for i, n in enumerate(lengths):
        assert abs(following[i] - right[i, n : n + 3]).max() <= scale


@pytest.mark.parametrize("spec", sorted({*FIXED, *HYBRID} - WITHOUT_STATES))
def test_its_states_are_computed_for_many_positions_at_once(spec: str) -> None:
    graph = optimise(made(spec).graph)
    types = graph.types()
    for node, _ in walk(graph.nodes):
        if isinstance(node, Scan):
            found = plan(node, types)
            assert found is not None
            assert found.q is not None  # the states of all positions are not in memory
            corrects = spec.startswith(("delta_net", "olmo_hybrid", "qwen3_next", "rwkv7"))
            assert (found.a is not None) == corrects


@pytest.mark.parametrize("spec", sorted({*FIXED} - WITHOUT_STATES))
def test_time_grows_with_the_length_and_not_with_its_square(spec: str) -> None:
    model = made(spec, context=20_000)
    seconds = []
    for length in (2_000, 16_000):
        tokens = np.random.default_rng(1).integers(2, 50, (1, length))
        model(tokens=tokens)["logits"].numpy()
        runs = []
        for _ in range(3):
            start = perf_counter()
            model(tokens=tokens)["logits"].numpy()
            runs.append(perf_counter() - start)
        seconds.append(min(runs))
    assert seconds[1] < 3 * 8 * seconds[0]  # its square is 64 times as much
