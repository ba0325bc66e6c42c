"""Scaled rotary positions are those of transformers: the operator, whole models, decoding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import archdsl
from archdsl.cli import main
from archdsl.diagnostics import ArchError
from tests.reference.agreement import TOLERANCE, apart

pytestmark = pytest.mark.reference("torch", "transformers", "safetensors")

PAIRS = 8
SHORT = [1.0, 1.1, 1.25, 1.5, 1.75, 2.0, 2.5, 3]
LONG = [1.0, 1.5, 2.5, 4.0, 6.5, 9.0, 12.0, 16.0]


def written(numbers: list[float]) -> str:
    return '"' + " ".join(map(str, numbers)) + '"'


LISTS = f"factors = {written(SHORT)}, long = {written(LONG)}"
THEIR_LISTS = {"short_factor": SHORT, "long_factor": LONG}

# The parameters of `rotary`, and transformers' `rope_parameters`, for a context of 64.
SCALINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "linear": ("linear, factor = 4", {"rope_type": "linear", "factor": 4.0}),
    "llama3": (
        "llama3, factor = 8, low = 1, high = 4, original = 32",
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    ),
    "llama3, a hard limit": (
        "llama3, factor = 16, low = 1, high = 1, original = 32",
        {
            "rope_type": "llama3",
            "factor": 16.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 1.0,
            "original_max_position_embeddings": 32,
        },
    ),
    "yarn": (
        "yarn, factor = 4, original = 4096",
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096},
    ),
    "yarn, its numbers": (
        "yarn, factor = 2.5, slow = 0.75, fast = 12, original = 32, scale = 1.3",
        {
            "rope_type": "yarn",
            "factor": 2.5,
            "beta_slow": 0.75,
            "beta_fast": 12.0,
            "attention_factor": 1.3,
            "original_max_position_embeddings": 32,
        },
    ),
    "yarn, a small factor": (
        "yarn, factor = 0.5, original = 64",
        {"rope_type": "yarn", "factor": 0.5, "original_max_position_embeddings": 64},
    ),
    "yarn, mscale": (
        "yarn, factor = 8, original = 64, mscale = 1.25, mscale_all = 0.5",
        {
            "rope_type": "yarn",
            "factor": 8.0,
            "mscale": 1.25,
            "mscale_all_dim": 0.5,
            "original_max_position_embeddings": 64,
        },
    ),
    "yarn, only one mscale": (  # which has no effect
        "yarn, factor = 8, original = 64, mscale = 1.25, mscale_all = 0",
        {
            "rope_type": "yarn",
            "factor": 8.0,
            "mscale": 1.25,
            "mscale_all_dim": 0.0,
            "original_max_position_embeddings": 64,
        },
    ),
    "yarn, not truncated": (
        "yarn, factor = 4, original = 4096, truncate = false",
        {
            "rope_type": "yarn",
            "factor": 4.0,
            "truncate": False,
            "original_max_position_embeddings": 4096,
        },
    ),
    "yarn of one ramp": (  # both ends of the ramp are the same pair
        "yarn, factor = 2, slow = 60, fast = 61, original = 64",
        {
            "rope_type": "yarn",
            "factor": 2.0,
            "beta_slow": 60.0,
            "beta_fast": 61.0,
            "original_max_position_embeddings": 64,
        },
    ),
    "dynamic": ("dynamic, factor = 3, original = 64", {"rope_type": "dynamic", "factor": 3.0}),
    "longrope": (
        f"longrope, factor = 4, original = 16, {LISTS}",
        {
            "rope_type": "longrope",
            "factor": 4.0,
            "original_max_position_embeddings": 16,
            **THEIR_LISTS,
        },
    ),
    "longrope, its scale": (
        f"longrope, original = 64, scale = 1.25, {LISTS}",
        {
            "rope_type": "longrope",
            "attention_factor": 1.25,
            "original_max_position_embeddings": 64,
            **THEIR_LISTS,
        },
    ),
}


@pytest.mark.few(6)
@pytest.mark.parametrize("length", [13, 64, 99])
@pytest.mark.parametrize("name", SCALINGS)
def test_the_operator(name: str, length: int) -> None:
    import torch
    from transformers.models.llama import modeling_llama as llama

    ours, theirs = SCALINGS[name]
    config = llama.LlamaConfig(
        hidden_size=32,
        num_attention_heads=2,
        max_position_embeddings=64,
        rope_parameters={"rope_theta": 1000.0, **theirs},
    )
    x = np.random.default_rng(length).standard_normal((2, length, 2, 16)).astype(np.float32)
    positions = torch.arange(length)[None].expand(2, -1)
    cos, sin = llama.LlamaRotaryEmbedding(config)(torch.tensor(x), positions)
    q = torch.tensor(x).transpose(1, 2)
    right = llama.apply_rotary_pos_emb(q, q, cos, sin)[0].transpose(1, 2)
    model = archdsl.compile(
        archdsl.parse(
            "model M() {\n input x: float[T <= 128, 2, 16]\n"
            f" output y: float[T, 2, 16] = x -> rotary(1000, {ours})\n}}"
        ),
        device="CPU",
    )
    assert apart(model(x=x)["y"], right) < TOLERANCE


# -- whole models, from their configs --

CLASSES = ("Llama", "Qwen2", "Qwen3", "Mistral", "Mixtral")
SIZES: dict[str, Any] = {
    "vocab_size": 53,
    "max_position_embeddings": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 48,
    "bos_token_id": None,
    "eos_token_id": None,
    "head_dim": 16,
}
MORE: dict[str, dict[str, Any]] = {
    "Mistral": {"sliding_window": None},
    "Mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
}


def saved(folder: Path, name: str, scaling: str, **more: Any) -> Any:
    """A model of transformers with random weights, saved in a folder."""
    import torch
    import transformers

    from tests.reference.families.decoders import settled

    rope = {"rope_theta": 1000.0, **SCALINGS[scaling][1]}
    sizes = {**SIZES, **MORE.get(name, {}), "rope_parameters": rope, **more}
    if name == "Qwen2":
        del sizes["head_dim"]
    model = getattr(transformers, f"{name}ForCausalLM")(
        getattr(transformers, f"{name}Config")(**sizes)
    )
    if name == "Mixtral":
        model.set_experts_implementation("eager")
    settled(model, seed=0)
    with torch.no_grad():
        model.save_pretrained(folder)
    return model


def tokens(length: int) -> Any:
    return np.random.default_rng(length).integers(0, 53, (2, length))


def right(theirs: Any, ids: Any) -> Any:
    import torch

    with torch.no_grad():
        return theirs(torch.from_numpy(ids)).logits


def decoded(model: archdsl.Model, ids: Any) -> Any:
    """The logits after each token: some of a prompt at once, the others one by one."""
    decoder = model.decoder(len(ids))
    steps = [
        decoder.feed(ids[:, :9]),
        *(decoder.feed(ids[:, i : i + 1]) for i in range(9, ids.shape[1])),
    ]
    return np.concatenate(steps, axis=1)


@pytest.mark.few(3)
@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("scaling", SCALINGS)
def test_a_model(tmp_path: Path, name: str, scaling: str) -> None:
    theirs = saved(tmp_path, name, scaling)
    ours = archdsl.from_pretrained(tmp_path, device="CPU")
    for length in (13, 60):  # of both sides of longrope's 16; padded to a bucket
        ids = tokens(length)
        assert apart(ours(tokens=ids)["logits"], right(theirs, ids)) < TOLERANCE
    ids = tokens(15)
    assert apart(decoded(ours, ids), right(theirs, ids)) < TOLERANCE


@pytest.mark.parametrize("scaling", ["yarn", "longrope"])
def test_a_config_in_older_fields(tmp_path: Path, scaling: str) -> None:
    """`rope_scaling` with `type`, and what transformers does without the lengths."""
    saved(tmp_path, "Llama", scaling)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    rope["type"] = rope.pop("rope_type")
    del rope["factor"]
    rope["factor"] = None
    config |= {
        "rope_theta": rope.pop("rope_theta"),
        "original_max_position_embeddings": rope.pop("original_max_position_embeddings"),
        "rope_scaling": rope,
        "max_position_embeddings": 80,
    }
    path.write_text(json.dumps(config))
    import transformers

    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path)
    ours = archdsl.from_pretrained(tmp_path, device="CPU")
    for length in (13, 60):
        ids = tokens(length)
        assert apart(ours(tokens=ids)["logits"], right(theirs, ids)) < TOLERANCE


@pytest.mark.parametrize("scaling", ["yarn, its numbers", "dynamic", "longrope"])
def test_what_is_exported_is_read_by_transformers(tmp_path: Path, scaling: str) -> None:
    import transformers

    theirs = saved(tmp_path / "there", "Llama", scaling)
    spec, weights = tmp_path / "my.arch", tmp_path / "my.safetensors"
    given = ["import", str(tmp_path / "there"), "-o", str(spec), "--weights", str(weights)]
    assert main(given) == 0
    back = ["--weights", str(weights), "--to", str(tmp_path / "back")]
    assert main(["export", str(spec), *back]) == 0
    again = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "back")
    ids = tokens(60)
    assert apart(right(again, ids), right(theirs, ids)) < 1e-6


# -- angles that depend on the length --


def grown(folder: Path) -> archdsl.Model:
    """A model with dynamic scaling in a context longer than its own."""
    model = archdsl.compile(
        "llama.arch",
        device="CPU",
        vocab=53,
        context=128,
        D=32,
        heads=2,
        kv_heads=1,
        inner=48,
        depth=2,
        theta=1000.0,
        eps=1e-6,
        scaling="dynamic",
        factor=3.0,
        original=64,
    )
    model.load(folder / "model.safetensors")
    return model


def test_dynamic_scaling_beyond_the_context(tmp_path: Path) -> None:
    """No length is padded to another, which would have other angles."""
    theirs = saved(tmp_path, "Llama", "dynamic")
    ours = grown(tmp_path)
    for length in (66, 97, 98, 128, 30):
        ids = tokens(length)
        assert apart(ours(tokens=ids)["logits"], right(theirs, ids)) < TOLERANCE


@pytest.mark.parametrize("scaling", ["dynamic", "longrope"])
def test_decoding_ends_where_the_past_would_change(tmp_path: Path, scaling: str) -> None:
    theirs = saved(tmp_path, "Llama", scaling)
    long = scaling == "longrope"
    ours, last = (
        (archdsl.from_pretrained(tmp_path, device="CPU"), 16) if long else (grown(tmp_path), 64)
    )
    ids = tokens(last)
    assert apart(decoded(ours, ids), right(theirs, ids)) < TOLERANCE
    decoder = ours.decoder(2)
    assert decoder.limit == last
    for more in (lambda: decoder.feed(ids[:, :1]), lambda: ours.decoder(1, limit=last + 1)):
        with pytest.raises(ArchError) as caught:
            more()
        (diagnostic,) = caught.value.diagnostics
        assert diagnostic.code == "generation"
        assert "`rotary` changes the values of all positions" in str(diagnostic.help)
