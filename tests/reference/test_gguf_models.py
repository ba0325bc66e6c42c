"""Models of transformers compute the same from files as llama.cpp's converter writes them."""

from __future__ import annotations

import json
from math import pi
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import archdsl
from archdsl.diagnostics import ArchError
from tests.reference.agreement import TOLERANCE, apart
from tests.reference.test_rotary_scaling import decoded, right, saved, tokens

pytestmark = pytest.mark.reference("torch", "transformers", "safetensors", "gguf")

# A part of a layer, with the converter's name.
PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "block_sparse_moe.gate": "ffn_gate_inp",
}
ENDS = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def write_gguf(folder: Path, path: Path, architecture: str, experts_as: Any = None) -> None:
    """A checkpoint of transformers as llama.cpp's converter writes it, experts quantized."""
    import gguf
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text())
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    rope = config["rope_parameters"]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope["rope_theta"])
    if architecture == "llama":
        writer.add_vocab_size(config["vocab_size"])
        writer.add_rope_dimension_count(config["head_dim"])
    if architecture == "qwen3":
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if "beta_fast" in rope:
        writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
        writer.add_rope_scaling_yarn_beta_slow(rope["beta_slow"])
    if rope["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", frequencies(rope, config["head_dim"]))
    if "num_local_experts" in config:
        writer.add_expert_count(config["num_local_experts"])
        writer.add_expert_used_count(config["num_experts_per_tok"])
    experts: dict[str, list[Any]] = {}  # in the order of their numbers, of which there are few
    for name, tensor in load_file(folder / "model.safetensors").items():
        if architecture == "llama" and ("q_proj" in name or "k_proj" in name):
            tensor = in_pairs(tensor, heads if "q_proj" in name else kv_heads)
        if ".experts." in name:
            experts.setdefault(stack(name), []).append(tensor)
        else:
            writer.add_tensor(ENDS.get(name) or in_llama_cpp(name), tensor)
    for name, tensors in experts.items():
        stacked = np.stack(tensors)
        if experts_as is not None:
            stacked = gguf.quants.quantize(stacked, experts_as)
        writer.add_tensor(name, stacked, raw_dtype=experts_as)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def in_llama_cpp(name: str) -> str:
    _, _, i, part = name.split(".", 3)
    part, _, kind = part.rpartition(".")
    return f"blk.{i}.{PARTS[part]}.{kind}"


def stack(name: str) -> str:
    """The tensor that has this matrix of all experts."""
    i, part = name.split(".")[2], name.split(".")[-2]
    return f"blk.{i}.ffn_{ {'w1': 'gate', 'w2': 'down', 'w3': 'up'}[part] }_exps.weight"


def in_pairs(weight: Any, heads: int) -> Any:
    """Rows of each head in pairs of those that are rotated together, from halves."""
    rows = weight.reshape(heads, 2, -1, *weight.shape[1:])
    return np.ascontiguousarray(rows.swapaxes(1, 2).reshape(weight.shape))


def frequencies(rope: dict[str, Any], size: int) -> Any:
    """What the converter makes of llama3 scaling: a divisor for the angle of each pair."""
    factors = []
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    for i in range(0, size, 2):
        turns = rope["original_max_position_embeddings"] / (
            2 * pi * rope["rope_theta"] ** (i / size)
        )
        smooth = (turns - low) / (high - low)
        if turns < low:
            factors.append(rope["factor"])
        elif turns > high:
            factors.append(1.0)
        else:
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, np.float32)


@pytest.mark.few(4)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    ("name", "architecture", "scaling"),
    [
        ("Llama", "llama", "llama3"),
        ("Llama", "llama", "linear"),
        ("Llama", "llama", "yarn"),
        ("Qwen2", "qwen2", "yarn, a small factor"),
        ("Qwen2", "qwen2", "linear"),
        ("Qwen3", "qwen3", "yarn"),
        ("Mixtral", "llama", "linear"),
    ],
)
def test_a_model(
    tmp_path: Path, name: str, architecture: str, scaling: str, tied: bool
) -> None:
    theirs = saved(tmp_path, name, scaling, tie_word_embeddings=tied)
    path = tmp_path / "model.gguf"
    write_gguf(tmp_path, path, architecture)
    ours = archdsl.from_pretrained(path, device="CPU")
    ids = tokens(40)
    logits = right(theirs, ids)
    assert apart(ours(tokens=ids)["logits"], logits) < TOLERANCE
    assert apart(decoded(ours, ids[:, :12]), logits[:, :12]) < TOLERANCE


def test_factors_of_a_file_are_not_dropped(tmp_path: Path) -> None:
    """A model without them, or with others, does not take the weights of this file."""
    saved(tmp_path, "Llama", "llama3")
    path = tmp_path / "model.gguf"
    write_gguf(tmp_path, path, "llama")
    sizes = {"vocab": 53, "context": 64, "D": 32, "heads": 2, "kv_heads": 1, "inner": 48}
    model = archdsl.compile("llama.arch", device="CPU", depth=2, **sizes)
    with pytest.raises(ArchError, match=r"rope_freqs\.weight"):
        model.load(path, map="gguf")


# What a file says of its architecture, and what of the message.
@pytest.mark.parametrize(
    ("architecture", "message", "help"),
    [
        (
            "nemotron",
            "no spec of the library supports the model type `nemotron` in a GGUF file",
            "write a spec",
        ),
        ("xverse", "supports the model type `xverse` in a GGUF file", "write a spec"),
        ("phi3", "`phi3` in a GGUF file", "phi3.arch supports it in a folder with config.json"),
        ("qwen4", "supports the model type `qwen4` in a GGUF file", "did you mean `qwen"),
        ("gpt2", "`gpt2` in a GGUF file", "gpt2.arch supports it in a folder with config.json"),
    ],
)
def test_an_architecture_without_a_map(
    tmp_path: Path, architecture: str, message: str, help: str
) -> None:
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "a.gguf", architecture)
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ArchError) as caught:
        archdsl.from_pretrained(tmp_path / "a.gguf", device="CPU")
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "config"
    assert message in diagnostic.message
    assert help in str(diagnostic.help)
    assert f"`{architecture}`" not in str(diagnostic.expected)
    assert "`marian`" not in str(diagnostic.expected)


def test_experts_stay_quantized(tmp_path: Path) -> None:
    """The experts of a file, all in one tensor, are read as whole numbers as in the file."""
    import gguf

    saved(tmp_path, "Mixtral", "linear", intermediate_size=64)
    path = tmp_path / "model.gguf"
    write_gguf(tmp_path, path, "llama", gguf.GGMLQuantizationType.Q8_0)
    ids = tokens(20)
    stored, full = (
        archdsl.from_pretrained(path, device="CPU", **options)(tokens=ids)["logits"]
        for options in ({}, {"dtype": "float32"})
    )
    assert 0 < apart(stored, full) < 0.01
