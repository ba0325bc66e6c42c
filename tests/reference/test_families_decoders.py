"""Decoders that transformers, nanoGPT and llama.cpp have saved compute the same here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import archdsl
from tests.reference.agreement import TOLERANCE
from tests.reference.families import Family, Reference, counted, disagreement
from tests.reference.families.decoders import (
    FAMILIES,
    save_gpt2,
    save_llama,
    settled,
    torch,
)
from tests.suite import first

nn = torch.nn
safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")

pytestmark = pytest.mark.reference("torch", "transformers", "safetensors")


def check(model: Any, reference: Reference) -> None:
    ours = model(**reference.inputs)
    for name, difference in disagreement(ours, reference).items():
        assert difference <= TOLERANCE, name
    best, right = (
        counted(x["logits"], reference).argmax(-1) for x in (ours, reference.outputs)
    )
    assert np.array_equal(best, right)


@pytest.mark.few(4)
@pytest.mark.parametrize("seed", first(range(3)))
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_what_transformers_saved_computes_the_same(
    tmp_path: Path, family: Family, seed: int
) -> None:
    reference = family.save(tmp_path, seed)
    check(archdsl.from_pretrained(tmp_path, device="CPU"), reference)


# -- as older releases have saved them --


def rewrite(folder: Path, config: dict[str, Any], without: str) -> None:
    """Changes fields of a saved config, and takes one out."""
    path = folder / "config.json"
    fields = json.loads(path.read_text()) | config
    del fields[without]
    path.write_text(json.dumps(fields))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_config_with_the_rotation_in_its_older_fields(tmp_path: Path, seed: int) -> None:
    reference = save_llama(tmp_path, seed)
    rotation = json.loads((tmp_path / "config.json").read_text())["rope_parameters"]
    theta = rotation.pop("rope_theta")
    scaling = rotation if rotation["rope_type"] != "default" else None
    older = {"rope_theta": theta, "rope_scaling": scaling, "torch_dtype": "float32"}
    rewrite(tmp_path, older, without="rope_parameters")
    check(archdsl.from_pretrained(tmp_path, device="CPU"), reference)


def test_gpt2_without_its_prefix_and_with_its_masks(tmp_path: Path) -> None:
    reference = save_gpt2(tmp_path, seed=1)
    path = tmp_path / "model.safetensors"
    tensors = safetensors.load_file(path)
    bare = {name.removeprefix("transformer."): t for name, t in tensors.items()}
    masks = {f"h.{i}.attn.bias": np.tri(20, dtype=np.float32)[None, None] for i in range(3)}
    safetensors.save_file(bare | masks, path)
    context = json.loads((tmp_path / "config.json").read_text())["n_positions"]
    rewrite(tmp_path, {"n_ctx": context}, without="reorder_and_upcast_attn")
    check(archdsl.from_pretrained(tmp_path, device="CPU"), reference)


# -- nanoGPT --


class NanoBlock(nn.Module):
    """A layer with the names that nanoGPT gives its parts."""

    def __init__(self, D: int, heads: int, bias: bool):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = (nn.LayerNorm(D, bias=bias) for _ in range(2))
        self.attn = nn.ModuleDict(
            {"c_attn": nn.Linear(D, 3 * D, bias), "c_proj": nn.Linear(D, D, bias)}
        )
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(D, 4 * D, bias), "c_proj": nn.Linear(4 * D, D, bias)}
        )

    def forward(self, x: Any) -> Any:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.attn["c_attn"](self.ln_1(x)).chunk(3, dim=-1)
        )
        seen = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attn["c_proj"](seen.transpose(1, 2).flatten(2))
        hidden = nn.functional.gelu(self.mlp["c_fc"](self.ln_2(x)))
        return x + self.mlp["c_proj"](hidden)


class NanoGPT(nn.Module):
    """[B, T] -> the hidden states [B, T, D] and the logits [B, T, vocab]."""

    def __init__(self, vocab: int, context: int, D: int, heads: int, depth: int, bias: bool):
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(vocab, D),
                "wpe": nn.Embedding(context, D),
                "h": nn.ModuleList(NanoBlock(D, heads, bias) for _ in range(depth)),
                "ln_f": nn.LayerNorm(D, bias=bias),
            }
        )
        self.lm_head = nn.Linear(D, vocab, bias=False)
        self.lm_head.weight = self.transformer["wte"].weight

    def forward(self, tokens: Any) -> tuple[Any, Any]:
        parts = self.transformer
        x = parts["wte"](tokens) + parts["wpe"](torch.arange(tokens.shape[1]))
        for block in parts["h"]:
            x = block(x)
        hidden = parts["ln_f"](x)
        return hidden, self.lm_head(hidden)


@pytest.mark.parametrize("bias", [True, False])
def test_what_nanogpt_saved_computes_the_same(tmp_path: Path, bias: bool) -> None:
    sizes = {"vocab": 67, "context": 23, "D": 45, "heads": 5, "depth": 3, "bias": bias}
    theirs = settled(NanoGPT(**sizes), seed=int(bias))
    torch.save(theirs.state_dict(), tmp_path / "nano.pt")
    ours = archdsl.compile("gpt2.arch", device="CPU", act="gelu", **sizes)
    ours.load(tmp_path / "nano.pt", map="nanogpt")
    tokens = np.random.default_rng(0).integers(0, sizes["vocab"], (2, 19))
    with torch.no_grad():
        hidden, logits = (x.numpy() for x in theirs(torch.from_numpy(tokens)))
    check(ours, Reference({"tokens": tokens}, {"hidden": hidden, "logits": logits}))


# -- llama.cpp --

# transformers' name of a part of a layer -> that of llama.cpp's converter.
PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
ENDS = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def in_pairs(weight: Any, heads: int) -> Any:
    """Rows of each head in pairs of those that are rotated together, from halves."""
    rows = weight.reshape(heads, 2, -1, *weight.shape[1:])
    return np.ascontiguousarray(rows.swapaxes(1, 2).reshape(weight.shape))


def write_gguf(folder: Path, path: Path) -> None:
    """A checkpoint of transformers' LLaMA as llama.cpp's converter writes it."""
    gguf = pytest.importorskip("gguf", reason="gguf is not installed; CONTRIBUTING.md says how")
    config = json.loads((folder / "config.json").read_text())
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("a small one")
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    if config["rope_parameters"]["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config["rope_parameters"]["factor"])
    for name, tensor in safetensors.load_file(folder / "model.safetensors").items():
        if "q_proj" in name or "k_proj" in name:
            tensor = in_pairs(tensor, heads if "q_proj" in name else kv_heads)
        writer.add_tensor(ENDS.get(name) or _in_llama_cpp(name), tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _in_llama_cpp(name: str) -> str:
    _, _, i, part = name.split(".", 3)
    part, _, kind = part.rpartition(".")
    return f"blk.{i}.{PARTS[part]}.{kind}"


@pytest.mark.reference("gguf")
@pytest.mark.parametrize("seed", [3, 11])
def test_what_llama_cpp_wrote_computes_the_same(tmp_path: Path, seed: int) -> None:
    reference = save_llama(tmp_path, seed)
    write_gguf(tmp_path, tmp_path / "model.gguf")
    check(archdsl.from_pretrained(tmp_path / "model.gguf", device="CPU"), reference)
