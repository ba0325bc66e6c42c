"""The models of specs/ on every device that runs without a GPU, with equal results.

The reference is the CPU in float32 without the JIT. Equal means: the largest difference is
within TOLERANCE of the largest logit. OpenCL runs on PoCL, WebGPU on Dawn over lavapipe; for
the GPUs that this machine does not have see `test_lowering.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tinygrad.helpers import Context

import archdsl
from archdsl.backend.target import probe, supports
from archdsl.diagnostics import ArchError
from archdsl.model import Model

Inputs = dict[str, NDArray[Any]]

TOLERANCE = {"float32": 1e-5, "float16": 5e-3, "bfloat16": 5e-2}
HALVES = ("float16", "bfloat16")

# Lengths are odd and of the encoder-decoders unequal, in a padded batch; models of one size
# share most of their kernels.
SIZES = {"D": 32, "heads": 4, "depth": 2}
TOKENS = {"vocab": 59, "context": 20, **SIZES}
MODELS: dict[str, dict[str, Any]] = {
    "gpt.arch": TOKENS,
    "transformer.arch": TOKENS,
    "vaswani2017.arch": {"hidden": 128, **TOKENS},
    "annalog.arch": {"hidden": 128, **TOKENS},
    "vit.arch": {"image": 16, "patch": 4, "classes": 10, **SIZES},
}
CASES = [
    *((spec, "float32") for spec in MODELS),
    *(("vit.arch", dtype) for dtype in HALVES),
    # OpenCL on a CPU emulates half precision, at ten times the time.
    *(pytest.param("transformer.arch", dtype, marks=pytest.mark.slow) for dtype in HALVES),
]
LENGTHS = {"S": (11, 6, 1), "T": (17, 2, 9)}


@pytest.fixture(scope="module", params=["CPU", "CL", "WEBGPU"])
def device(request: pytest.FixtureRequest) -> str:
    """A device that runs here; tried in another process, because drivers may crash."""
    backend = probe(request.param)
    if not backend.runs:
        pytest.skip(f"{backend.name} does not run here: {backend.reason}")
    return backend.name


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """For each model a file of weights so large that attention is not near uniform."""
    folder = tmp_path_factory.mktemp("weights")
    paths = {}
    for spec, settings in MODELS.items():
        random = np.random.default_rng(7)
        arrays: dict[str, Any] = {
            path: ((p.weight.init == "ones") + 0.2 * random.standard_normal(p.weight.shape))
            for path, p in archdsl.compile(spec, **settings).weights.items()
        }
        paths[spec] = folder / f"{spec}.npz"
        np.savez(paths[spec], **{k: v.astype(np.float32) for k, v in arrays.items()})
    return paths


@functools.cache
def batches(spec: str) -> tuple[Inputs, ...]:
    """Three batches of one shape, for the three ways in which a JIT runs: plain, captured
    and replayed."""
    random = np.random.default_rng(11)
    graph = archdsl.compile(spec, **MODELS[spec]).graph

    def tokens(axis: str, pad: int | None) -> NDArray[np.int64]:
        lengths = LENGTHS[axis]
        values = random.integers(2, MODELS[spec]["vocab"], (len(lengths), max(lengths)))
        if pad is not None:
            values[np.arange(max(lengths)) >= np.array(lengths)[:, None]] = pad
        return values

    def batch() -> Inputs:
        return {
            each.name: random.random((3, 3, 16, 16), np.float32)
            if each.type.dtype == "float"
            else tokens(str(each.type.axes[0].size), each.pad)
            for each in graph.inputs
        }

    return batch(), batch(), batch()


def logits(model: Model, inputs: Inputs) -> NDArray[np.float32]:
    values: NDArray[np.float32] = model(**inputs)["logits"].numpy()
    return values


class Expected(dict[str, list[NDArray[np.float32]]]):
    """The logits of a spec's batches on the CPU, computed when they are first asked for."""

    def __init__(self, weights: Mapping[str, Path]):
        self.weights = weights

    def __missing__(self, spec: str) -> list[NDArray[np.float32]]:
        model = archdsl.compile(spec, device="CPU", **MODELS[spec])
        model.load(self.weights[spec])
        with Context(JIT=0):  # type: ignore[no-untyped-call]
            self[spec] = [logits(model, inputs) for inputs in batches(spec)]
        return self[spec]


@pytest.fixture(scope="module")
def expected(weights: Mapping[str, Path]) -> Mapping[str, list[NDArray[np.float32]]]:
    return Expected(weights)


def errors(
    model: Model, spec: str, expected: Mapping[str, list[NDArray[np.float32]]]
) -> list[float]:
    """The largest difference of each batch, as a part of the largest logit."""
    return [
        float(np.abs(logits(model, inputs) - wanted).max() / np.abs(wanted).max())
        for inputs, wanted in zip(batches(spec), expected[spec], strict=True)
    ]


@pytest.mark.few(3)
@pytest.mark.parametrize(("spec", "dtype"), CASES)
def test_a_device_computes_what_the_cpu_does(
    device: str,
    spec: str,
    dtype: str,
    weights: Mapping[str, Path],
    expected: Mapping[str, list[NDArray[np.float32]]],
) -> None:
    model = archdsl.compile(spec, device=device, dtype=dtype, **MODELS[spec])
    if not supports(device, dtype):
        with pytest.raises(ArchError, match=f"{device} cannot compute in {dtype}"):
            model.load(weights[spec])
        return
    model.load(weights[spec])
    assert max(errors(model, spec, expected)) <= TOLERANCE[dtype]


@pytest.mark.few(1)
@pytest.mark.parametrize("spec", MODELS)
def test_the_batches_can_be_told_apart(
    spec: str, expected: Mapping[str, list[NDArray[np.float32]]]
) -> None:
    """Logits that hardly depend on the inputs would be equal on all devices."""
    first, *others = expected[spec]
    assert np.isfinite(first).all()
    for other in others:
        assert np.abs(first - other).max() > 0.1 * np.abs(first).max()
