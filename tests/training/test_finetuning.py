"""Frozen weights, adapters, and adapters of quantized models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tinygrad import Tensor

import archdsl
from archdsl.analysis import analyse
from archdsl.backend.optimizers import Rule
from archdsl.cli import main
from archdsl.diagnostics import ArchError
from archdsl.execution.adapters import adapter_weights, base_hash
from archdsl.execution.train_step import TrainStep
from archdsl.formats import LazyTensor, read_checkpoint, write_safetensors
from archdsl.graph.nodes import Graph
from archdsl.model import Model
from archdsl.published.peft import WEIGHTS
from archdsl.training.finetuning import frozen_weights, prepare_finetuning
from archdsl.training.settings import Settings
from tests.cli.tiny import gpt2

SIZES: dict[str, Any] = {
    "vocab": 40, "context": 16, "D": 64, "heads": 2, "inner": 64, "depth": 2, "tied": True,
}  # fmt: skip
TOKENS = np.random.default_rng(0).integers(0, 40, (2, 16))
LAYER = (
    *("norm", "attention.q", "attention.k", "attention.v", "attention.out", "norm_2"),
    *("mlp.gate", "mlp.up", "mlp.down"),
)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return analyse("llama.arch", settings=SIZES).graph


def compiled(**how: Any) -> Model:
    return archdsl.compile("llama.arch", device="CPU", **SIZES | how)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["embed.*"], {"embed"}),
        (["h.0"], {f"h.0.{each}" for each in LAYER}),
        (["h.1-7.*.down", "norm"], {"h.1.mlp.down", "norm"}),
        (["h.*.norm*"], {"h.0.norm", "h.0.norm_2", "h.1.norm", "h.1.norm_2"}),
        (["**.q", "**.k"], {f"h.{i}.attention.{part}" for i in (0, 1) for part in "qk"}),
    ],
)
def test_patterns_select_weights(graph: Graph, patterns: list[str], expected: set[str]) -> None:
    assert frozen_weights(graph, patterns) == {f"{path}.weight" for path in expected}


@pytest.mark.parametrize(
    ("pattern", "help"),
    [("h.*.atention", "h.*.attention"), ("h.2-5.mlp", "h.*.mlp"), ("embd.*", "embed")],
)
def test_a_pattern_that_matches_nothing(graph: Graph, pattern: str, help: str) -> None:
    with pytest.raises(ArchError) as found:
        frozen_weights(graph, ["embed", pattern])
    (one,) = found.value.diagnostics
    assert one.message == f"no weight matches `{pattern}`"
    assert one.help == f"did you mean `{help}`?"


def test_an_adapter_is_all_that_is_trained() -> None:
    settings = Settings(lora_rank=2, lora_targets=("h.*.attention",), freeze=("**.q.lora_A",))
    executable, frozen = prepare_finetuning(compiled().executable, settings)
    parts = [f"{part}.lora_{side}.weight" for part in ("q", "k", "v", "out") for side in "AB"]
    expected = {f"h.{i}.attention.{part}" for i in (0, 1) for part in parts[1:]}
    assert executable.weights.keys() - frozen == expected


def test_an_adapter_is_set_alone_and_the_base_is_known_by_its_hash() -> None:
    model = compiled(depth=1)
    executable, _ = prepare_finetuning(model.executable, Settings(lora_rank=2))
    before, hashed = executable.parameters.stored(), base_hash(executable)
    path = adapter_weights(executable.graph)[0]
    new = np.full(executable.weights[path].weight.shape, 2.5, np.float32)
    executable.fill({path: LazyTensor("float32", new.shape, lambda: new)})
    after = executable.parameters.stored()
    assert (executable.parameters[path].numpy() == 2.5).all()
    assert list(after) == list(executable.weights)
    assert all(after[other] is before[other] for other in after if other != path)
    assert base_hash(executable) == hashed
    other, _ = prepare_finetuning(compiled(depth=1, seed=1).executable, Settings(lora_rank=2))
    assert base_hash(other) != hashed


def test_targets_need_a_rank() -> None:
    with pytest.raises(ArchError, match="lora_targets has no effect without lora_rank"):
        prepare_finetuning(compiled().executable, Settings(lora_targets=("h",)))


@pytest.mark.long
def test_quantized_weights_are_not_trained() -> None:
    executable = compiled(quantize="int8", depth=1).executable
    with pytest.raises(ArchError, match="8 of the weights to train are quantized"):
        TrainStep(executable, Rule())


@pytest.mark.long
def test_gradients_through_quantized_weights() -> None:
    """Those of an adapter are as if the weights were stored dequantized."""
    quantized, full = compiled(quantize="int8", depth=1), compiled(depth=1)
    for path, weight in full.parameters.items():
        weight.assign(Tensor(quantized.parameters[path].numpy(), device="CPU")).realize()
    stored = quantized.parameters.quantized
    before = {path: each.values.numpy() for path, each in stored.items()}
    gradients, losses = [], []
    for model in (quantized, full):
        settings = Settings(lora_rank=4, seed=3)
        executable, frozen = prepare_finetuning(model.executable, settings)
        random = np.random.default_rng(5)
        for path in sorted(set(executable.weights) - frozen):
            weight = executable.parameters[path]
            drawn = random.standard_normal(weight.shape, np.float32) / 5
            weight.assign(Tensor(drawn, device="CPU")).realize()
        step = TrainStep(executable, Rule("sgd"), frozen=frozen, clip=None)
        losses.append(step([{"tokens": TOKENS}], 0.0, (0,)).loss)
        gradients.append({path: each.numpy() for path, each in step.gradients.items()})
        assert executable.parameters.in_memory().keys() >= {
            f"weight {p}" for p in gradients[-1]
        }
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert gradients[0].keys() == gradients[1].keys()
    for path, expected in gradients[1].items():
        largest = abs(expected).max()
        assert largest > 0
        np.testing.assert_allclose(gradients[0][path], expected, atol=1e-4 * largest)
    for path, each in stored.items():
        assert (each.values.numpy() == before[path]).all()


@pytest.mark.slow
@pytest.mark.reference("tokenizers")
def test_an_adapter_is_trained_resumed_and_merged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a quantized model; the checkpoints of the run have the adapter alone."""
    base = gpt2(tmp_path / "base")
    (tmp_path / "a.txt").write_text("the cat sat on the mat. " * 40)
    data = [
        "--data",
        str(tmp_path / "a.txt"),
        "--device",
        "CPU",
        "--batch",
        "2",
        "--length",
        "8",
    ]
    how = ["--lora-rank", "2", "--quantize", "int8", "--learning-rate", "0.1"]
    train = ["train", "--init", base, *data, *how, "--eval-every", "0"]
    flat = ["--schedule", "constant", "--warmup", "0"]
    whole, parts, merged = (str(tmp_path / name) for name in ("whole", "parts", "merged"))
    assert main([*train, "--steps", "4", *flat, "-o", whole]) == 0
    assert f"adapter: {whole}/adapter; `archdsl merge`" in capsys.readouterr().out
    assert main([*train, "--steps", "2", *flat, "-o", parts]) == 0
    assert main(["train", "--resume", parts, "--steps", "4"]) == 0
    adapters = [
        {
            name: each.read().tobytes()
            for name, each in read_checkpoint(
                Path(folder) / "adapter" / WEIGHTS
            ).tensors.items()
        }
        for folder in (whole, parts)
    ]
    assert adapters[0] == adapters[1]
    saved = read_checkpoint(Path(whole) / "last" / "model.safetensors").tensors
    assert all(".lora_" in name for name in saved)
    # The run is a model of the commands.
    run = archdsl.from_pretrained(whole, device="CPU")
    assert saved.keys() < run.weights.keys()
    one = next(iter(saved))
    assert (run.parameters[one].numpy() == saved[one].read()).all()
    capsys.readouterr()
    assert main(["merge", base, f"{whole}/adapter", "-o", merged]) == 0
    before, after = (read_checkpoint(path).tensors for path in (base, merged))
    name = "transformer.h.0.mlp.c_fc.weight"
    assert (before[name].read() != after[name].read()).any()
    # The checkpoints have no base, so it must be the same.
    config = Path(base) / "model.safetensors"
    moved = read_checkpoint(merged).tensors
    write_safetensors(config, {n: np.array(each.read()) for n, each in moved.items()})
    assert main(["train", "--resume", parts, "--steps", "6"]) == 1
    assert "the run has another base model" in capsys.readouterr().err
