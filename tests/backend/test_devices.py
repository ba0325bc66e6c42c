"""The models of specs/ on every device that runs without a GPU, with equal results.

benchmarks/device/agreement.py has the models, and says what equal means. OpenCL runs on PoCL,
WebGPU on Dawn over lavapipe; for the GPUs that this machine does not have see
`test_lowering.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

import archdsl
from archdsl.backend.optimizers import Rule
from archdsl.backend.target import probe, supports
from archdsl.diagnostics import ArchError
from archdsl.execution.train_step import TrainStep
from benchmarks.device.agreement import (
    MODELS,
    TOLERANCE,
    Logits,
    described,
    gradient_error,
    gradients,
    is_stepped,
    reference,
    save_weights,
    stepped_error,
    whole_errors,
)

HALVES = ("float16", "bfloat16")
CASES = [
    *((spec, "float32") for spec in MODELS),
    *(("vit.arch", dtype) for dtype in HALVES),
    # OpenCL on a CPU emulates half precision, at ten times the time.
    *(pytest.param("transformer.arch", dtype, marks=pytest.mark.slow) for dtype in HALVES),
]


@pytest.fixture(scope="module", params=["CPU", "CL", "WEBGPU"])
def device(request: pytest.FixtureRequest) -> str:
    """A device that runs here; tried in another process, because drivers may crash."""
    backend = probe(request.param)
    if not backend.runs:
        pytest.skip(f"{backend.name} does not run here: {backend.reason}")
    return backend.name


class Files(dict[str, Path]):
    """For each model a file of weights, written when it is first asked for."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __missing__(self, spec: str) -> Path:
        self[spec] = save_weights(spec, self.folder)
        return self[spec]


class Expected(dict[str, list[Logits]]):
    """The logits of a spec's batches on the CPU, computed when they are first asked for."""

    def __init__(self, weights: Mapping[str, Path]):
        self.weights = weights

    def __missing__(self, spec: str) -> list[Logits]:
        self[spec] = reference(spec, self.weights[spec])
        return self[spec]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    return Files(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def expected(weights: Mapping[str, Path]) -> Mapping[str, list[Logits]]:
    return Expected(weights)


@pytest.mark.few(3)
@pytest.mark.parametrize(("spec", "dtype"), CASES)
def test_a_device_computes_what_the_cpu_does(
    device: str,
    spec: str,
    dtype: str,
    weights: Mapping[str, Path],
    expected: Mapping[str, list[Logits]],
) -> None:
    model = described(spec, device=device, dtype=dtype)
    if not supports(device, dtype):
        with pytest.raises(ArchError, match=f"{device} cannot compute in {dtype}"):
            model.load(weights[spec])
        return
    model.load(weights[spec])
    assert max(whole_errors(model, spec, expected[spec])) <= TOLERANCE[dtype]


@pytest.mark.long
@pytest.mark.parametrize("spec", [spec for spec in MODELS if is_stepped(spec)])
def test_steps_compute_what_the_whole_does(
    device: str,
    spec: str,
    weights: Mapping[str, Path],
    expected: Mapping[str, list[Logits]],
) -> None:
    model = described(spec, device=device)
    model.load(weights[spec])
    assert stepped_error(model, spec, expected[spec]) <= TOLERANCE["float32"]


@pytest.mark.slow
def test_gradients_are_those_of_the_cpu(device: str, weights: Mapping[str, Path]) -> None:
    found, wanted = (
        gradients("llama.arch", weights["llama.arch"], name, "float32")
        for name in (device, "CPU")
    )
    assert gradient_error(found, wanted) <= TOLERANCE["float32"]


def losses(device: str, kernels: str) -> list[float]:
    """The losses of three steps of training, and of the batch after them."""
    sizes = {"vocab": 31, "context": 12, "D": 16, "heads": 2, "depth": 1}
    model = archdsl.compile("gpt.arch", device=device, kernels=kernels, seed=1, **sizes)
    step = TrainStep(model.executable, Rule(), clip=1.0, ema=0.9)
    random, found = np.random.default_rng(0), []
    for number in range(3):
        batch = {"tokens": random.integers(0, 31, (2, 10), np.int32)}
        done = step([batch], 1e-2, seed=(0, number))
        assert done.norm > 1  # clipped
        found.append(done.loss)
    return [*found, step.evaluate(batch).value]


@pytest.mark.slow
def test_losses_of_training_are_those_of_the_cpu(device: str) -> None:
    expected = losses("CPU", "best")
    assert expected[-1] < expected[-2] - 0.05
    found = losses(device, "tinygrad" if device == "CPU" else "best")
    assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.few(1)
@pytest.mark.parametrize("spec", MODELS)
def test_the_batches_can_be_told_apart(spec: str, expected: Mapping[str, list[Logits]]) -> None:
    """Logits that hardly depend on the inputs would be equal on all devices."""
    first, *others = expected[spec]
    assert np.isfinite(first).all()
    for other in others:
        assert np.abs(first - other).max() > 0.1 * np.abs(first).max()
