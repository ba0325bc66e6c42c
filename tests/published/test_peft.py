"""Adapters in PEFT's format, written and read; also by PEFT itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import archdsl
from archdsl.analysis import Analysis, analyse
from archdsl.diagnostics import ArchError
from archdsl.formats import read_checkpoint, write_safetensors
from archdsl.passes.lora import linear_weights
from archdsl.published.low_rank import LowRank
from archdsl.published.peft import CONFIG, WEIGHTS, read_adapter, write_adapter

TOKENS = np.random.default_rng(0).integers(0, 90, (2, 9))


@pytest.fixture(scope="module")
def llama() -> Analysis:
    return analyse("llama.arch:tiny")


@pytest.fixture(scope="module")
def gpt2() -> Analysis:
    return analyse(
        "gpt2.arch", settings={"vocab": 90, "context": 16, "D": 24, "heads": 2, "depth": 2}
    )


def drawn(analysis: Analysis, words: set[str], rank: int = 3) -> dict[str, LowRank]:
    """Random matrices for the weights whose paths have one of the parts."""
    random = np.random.default_rng(3)

    def normal(*shape: int) -> NDArray[np.float32]:
        return random.standard_normal(shape, np.float32)

    return {
        path: LowRank(normal(rank, into), normal(out, rank), 1.5)
        for path, (out, into) in linear_weights(analysis.graph).items()
        if words & set(path.split("."))
    }


def written(folder: Path, analysis: Analysis, adapter: dict[str, LowRank]) -> dict[str, Any]:
    """Writes an adapter; returns its config."""
    map = analysis.maps["huggingface"]
    write_adapter(folder, map, adapter, linear_weights(analysis.graph))
    found: dict[str, Any] = json.loads((folder / CONFIG).read_text())
    return found


def read(folder: Path, analysis: Analysis) -> dict[str, LowRank]:
    return read_adapter(folder, analysis.maps, linear_weights(analysis.graph))


def assert_equal(found: dict[str, LowRank], expected: dict[str, LowRank]) -> None:
    assert found.keys() == expected.keys()
    for path, low in expected.items():
        assert found[path].scale == low.scale
        np.testing.assert_array_equal(found[path].a, low.a)
        np.testing.assert_array_equal(found[path].b, low.b)


def test_names_and_config_are_those_of_peft(llama: Analysis, tmp_path: Path) -> None:
    config = written(tmp_path, llama, drawn(llama, {"q", "down"}))
    assert config["target_modules"] == ["down_proj", "q_proj"]
    assert (config["r"], config["lora_alpha"], config["fan_in_fan_out"]) == (3, 4.5, False)
    tensors = read_checkpoint(tmp_path / WEIGHTS).tensors
    first = "base_model.model.model.layers.0.self_attn.q_proj"
    assert list(tensors)[:2] == [f"{first}.lora_A.weight", f"{first}.lora_B.weight"]
    assert [tensors[name].shape for name in list(tensors)[:2]] == [(3, 48), (48, 3)]
    assert len(tensors) == 8


def test_layers_of_one_name_are_targets_by_their_full_names(
    llama: Analysis, tmp_path: Path
) -> None:
    adapter = drawn(llama, {"q"})
    del adapter["h.1.attention.q.weight"]
    config = written(tmp_path, llama, adapter)
    assert config["target_modules"] == ["model.layers.0.self_attn.q_proj"]


@pytest.mark.parametrize("words", [{"h"}, {"q", "out"}, {"head", "v"}])
def test_an_adapter_is_read_as_it_was_written(
    llama: Analysis, tmp_path: Path, words: set[str]
) -> None:
    adapter = drawn(llama, words)
    written(tmp_path, llama, adapter)
    assert_equal(read(tmp_path, llama), adapter)


def test_a_layer_for_queries_keys_and_values(gpt2: Analysis, tmp_path: Path) -> None:
    """Its A has the rows of all three, and its B blocks along the diagonal."""
    adapter = drawn(gpt2, {"q", "v"})
    config = written(tmp_path, gpt2, adapter)
    assert (config["r"], config["lora_alpha"], config["fan_in_fan_out"]) == (6, 9, True)
    tensors = read_checkpoint(tmp_path / WEIGHTS).tensors
    name = "base_model.model.transformer.h.0.attn.c_attn"
    a, b = (tensors[f"{name}.lora_{side}.weight"].read() for side in "AB")
    parts = [adapter.get(f"h.0.attention.{part}.weight") for part in "qkv"]
    zero = np.zeros((24, 24), np.float32)
    expected = np.concatenate([zero if low is None else low.b @ low.a for low in parts])
    np.testing.assert_allclose(b @ a, expected, atol=1e-5)
    assert_equal(read(tmp_path, gpt2), adapter)


def test_ranks_that_differ_are_patterns(gpt2: Analysis, tmp_path: Path) -> None:
    adapter = drawn(gpt2, {"h"})
    config = written(tmp_path, gpt2, adapter)
    assert (config["r"], config["lora_alpha"]) == (3, 4.5)
    layers = {rf"transformer\.h\.{i}\.attn\.c_attn": 9 for i in (0, 1)}
    assert config["rank_pattern"] == layers
    assert config["alpha_pattern"] == dict.fromkeys(layers, 13.5)
    assert_equal(read(tmp_path, gpt2), adapter)


def test_names_of_the_model_itself(llama: Analysis, tmp_path: Path) -> None:
    from archdsl.published.peft import own_map

    shapes, adapter = linear_weights(llama.graph), drawn(llama, {"up"})
    write_adapter(tmp_path, own_map(shapes), adapter, shapes)
    assert_equal(read(tmp_path, llama), adapter)


# -- what is refused --


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("peft_type", "LOHA", "this kind of adapter is not known"),
        ("use_dora", True, "the field `use_dora` is not known"),
        ("modules_to_save", ["lm_head"], "the field `modules_to_save` is not known"),
        ("bias", "all", "the field `bias` is not known"),
        ("lora_alpha", "16", "`lora_alpha` is not valid"),
        ("init_lora_weights", "pissa", "the adapter belongs to other weights"),
        ("newer", 3, "the field `newer` is not known"),
    ],
)
def test_fields_that_change_what_an_adapter_computes(
    llama: Analysis, tmp_path: Path, field: str, value: object, message: str
) -> None:
    config = written(tmp_path, llama, drawn(llama, {"up"}))
    (tmp_path / CONFIG).write_text(json.dumps(config | {field: value}))
    with pytest.raises(ArchError, match=message):
        read(tmp_path, llama)


Tensors = dict[str, NDArray[Any]]
LAYER = "base_model.model.model.layers.0.mlp.up_proj"


def renamed(tensors: Tensors) -> Tensors:
    return {name.replace("up_proj", "up_project"): each for name, each in tensors.items()}


def halved(tensors: Tensors) -> Tensors:
    return {name: each[:, :24] if "A" in name else each for name, each in tensors.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed, "the model lacks layers of the adapter"),
        (halved, r"does not fit the model\n.*\[rank, 48\]"),
        (lambda tensors: {}, "these are not the low-rank matrices"),
        (
            lambda tensors: dict(list(tensors.items())[1:]),
            "these are not the low-rank matrices",
        ),
        (lambda t: t | {"base_model.model.x.lora_magnitude_vector": np.ones(3)}, "not the low"),
        (
            lambda t: {
                n.replace("layers.0.mlp.up_proj", "embed_tokens"): v for n, v in t.items()
            },
            "an adapter of a linear layer",
        ),
    ],
)
def test_matrices_that_do_not_fit(
    llama: Analysis, tmp_path: Path, change: Callable[[Tensors], Tensors], message: str
) -> None:
    written(tmp_path, llama, drawn(llama, {"up"}))
    tensors = read_checkpoint(tmp_path / WEIGHTS).tensors
    arrays = {name: np.array(each.read()) for name, each in tensors.items()}
    write_safetensors(tmp_path / WEIGHTS, change(arrays))
    with pytest.raises(ArchError, match=message):
        read(tmp_path, llama)


def test_a_matrix_for_a_tied_table_is_refused(gpt2: Analysis, tmp_path: Path) -> None:
    """It would change the embedding too."""
    config = written(tmp_path, gpt2, drawn(gpt2, {"out"}))
    low = {"A": np.ones((3, 24), np.float32), "B": np.ones((90, 3), np.float32)}
    names = {f"base_model.model.lm_head.lora_{side}.weight": low[side] for side in "AB"}
    write_safetensors(tmp_path / WEIGHTS, names)
    assert config["peft_type"] == "LORA"
    with pytest.raises(ArchError, match="the adapter of `lm_head` does not fit the model"):
        read(tmp_path, gpt2)


def test_a_model_without_an_adapter_writes_none(llama: Analysis, tmp_path: Path) -> None:
    with pytest.raises(ArchError, match="the model has no adapter"):
        written(tmp_path, llama, {})
    assert not list(tmp_path.iterdir())


# -- PEFT --


def published(folder: Path, kind: str) -> Any:
    """A small model of transformers, saved in a folder."""
    import torch
    import transformers

    torch.manual_seed(0)
    config: Any
    if kind == "llama":
        config = transformers.LlamaConfig(
            vocab_size=90, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=16,
        )  # fmt: skip
    else:
        config = transformers.GPT2Config(
            vocab_size=90,
            n_embd=32,
            n_layer=2,
            n_head=2,
            n_positions=16,
            bos_token_id=0,
            eos_token_id=0,
        )
    config.initializer_range = 0.2
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(folder)
    return model


def logits_of(model: Any) -> NDArray[np.float32]:
    import torch

    with torch.no_grad():
        found: NDArray[np.float32] = model(torch.tensor(TOKENS)).logits.numpy()
    return found


@pytest.mark.long
@pytest.mark.reference("torch", "transformers", "peft")
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_logits_equal_those_of_peft(tmp_path: Path, kind: str) -> None:
    import peft
    import torch

    theirs = published(tmp_path / "base", kind)
    plain = logits_of(theirs)
    targets = {"llama": ["q_proj", "down_proj"], "gpt2": ["c_attn", "c_proj"]}[kind]
    config = peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=targets, fan_in_fan_out=kind == "gpt2"
    )
    adapted = peft.get_peft_model(theirs, config).eval()
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    adapted.save_pretrained(tmp_path / "theirs")
    expected = logits_of(adapted)
    assert abs(expected - plain).max() > 0.1

    ours = archdsl.from_pretrained(tmp_path / "base", device="CPU")
    ours.load_adapter(tmp_path / "theirs")
    found = ours(tokens=TOKENS)["logits"].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)

    ours.save_adapter(tmp_path / "ours", base=str(tmp_path / "base"))
    again = peft.PeftModel.from_pretrained(
        published(tmp_path / "again", kind), tmp_path / "ours"
    )
    np.testing.assert_allclose(logits_of(again.eval()), expected, atol=1e-4)
