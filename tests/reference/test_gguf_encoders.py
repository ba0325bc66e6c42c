"""BERT and T5 compute the same from files as llama.cpp's converter writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import archdsl
from archdsl.diagnostics import ArchError
from tests.reference.agreement import TOLERANCE, apart

pytestmark = pytest.mark.reference("torch", "transformers", "safetensors", "gguf")

IDS = np.random.default_rng(0).integers(1, 43, (2, 9))
BERT: dict[str, Any] = {
    "vocab_size": 43,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 16,
}
T5: dict[str, Any] = {
    "vocab_size": 43,
    "d_model": 24,
    "d_kv": 6,
    "num_heads": 3,
    "d_ff": 40,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "relative_attention_num_buckets": 8,
    "decoder_start_token_id": 0,
}


def converted(folder: Path, architecture: str, **more: Any) -> Path:
    """A checkpoint of transformers as llama.cpp's converter writes it."""
    import gguf
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text())
    path = folder / "model.gguf"
    writer = gguf.GGUFWriter(path, architecture)
    arch = {name: each for each, name in gguf.MODEL_ARCH_NAMES.items()}[architecture]
    if architecture == "bert":
        layers = config["num_hidden_layers"]
        writer.add_context_length(config["max_position_embeddings"])
        writer.add_embedding_length(config["hidden_size"])
        writer.add_head_count(config["num_attention_heads"])
        writer.add_feed_forward_length(config["intermediate_size"])
        writer.add_block_count(layers)
        writer.add_layer_norm_eps(config["layer_norm_eps"])
        writer.add_causal_attention(False)
        writer.add_pooling_type(gguf.PoolingType.MEAN)
    else:
        layers = max(config["num_layers"], config["num_decoder_layers"])
        writer.add_context_length(config.get("n_positions", 512))
        writer.add_embedding_length(config["d_model"])
        writer.add_feed_forward_length(config["d_ff"])
        writer.add_block_count(config["num_layers"])
        writer.add_decoder_block_count(config["num_decoder_layers"])
        writer.add_head_count(config["num_heads"])
        writer.add_key_length(config["d_kv"])
        writer.add_value_length(config["d_kv"])
        writer.add_layer_norm_eps(config["layer_norm_epsilon"])
        writer.add_layer_norm_rms_eps(config["layer_norm_epsilon"])
        writer.add_relative_attn_buckets_count(config["relative_attention_num_buckets"])
        writer.add_decoder_start_token_id(config["decoder_start_token_id"])
    names = gguf.get_tensor_name_map(arch, layers)
    for name, tensor in load_file(folder / "model.safetensors").items():
        if "pooler" in name:
            continue
        theirs = names.get_name(name.removeprefix("bert."), (".weight", ".bias"))
        assert theirs, name
        writer.add_tensor(theirs, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def saved(folder: Path, kind: str, config: str, sizes: dict[str, Any]) -> Any:
    import torch
    import transformers

    torch.manual_seed(1)
    model = getattr(transformers, kind)(getattr(transformers, config)(**sizes)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn(weight.shape)
    model.save_pretrained(folder)
    return model


def test_bert(tmp_path: Path) -> None:
    import torch

    theirs = saved(tmp_path, "BertModel", "BertConfig", BERT)
    kinds = IDS % 2
    with torch.no_grad():
        given = (torch.from_numpy(each) for each in (IDS, kinds))
        found = theirs(**dict(zip(("input_ids", "token_type_ids"), given, strict=True)))
    ours = archdsl.from_pretrained(converted(tmp_path, "bert"), device="CPU")
    outputs = ours(tokens=IDS, segments=kinds)
    assert list(outputs) == ["hidden"]
    assert apart(outputs["hidden"], found.last_hidden_state) < TOLERANCE


@pytest.mark.few(1)
@pytest.mark.parametrize("gated", [True, False])
def test_t5(tmp_path: Path, gated: bool) -> None:
    import torch

    form = "gated-gelu" if gated else "relu"
    sizes = T5 | {"feed_forward_proj": form}
    theirs = saved(tmp_path, "T5ForConditionalGeneration", "T5Config", sizes)
    with torch.no_grad():
        given = torch.from_numpy(IDS)
        right = theirs(input_ids=given, decoder_input_ids=given.flip(1)).logits
    ours = archdsl.from_pretrained(converted(tmp_path, "t5"), device="CPU")
    found = ours(source=IDS, target=IDS[:, ::-1].copy())
    assert apart(found["logits"], right) < TOLERANCE


@pytest.mark.long
def test_the_encoder_of_t5(tmp_path: Path) -> None:
    import torch

    theirs = saved(tmp_path, "T5EncoderModel", "T5Config", T5)
    with torch.no_grad():
        right = theirs(torch.from_numpy(IDS)).last_hidden_state
    ours = archdsl.from_pretrained(converted(tmp_path, "t5encoder"), device="CPU")
    assert apart(ours(source=IDS)["memory"], right) < TOLERANCE


@pytest.mark.few(1)
@pytest.mark.parametrize("architecture", ["nomic-bert", "jina-bert-v2"])
def test_others_are_refused(tmp_path: Path, architecture: str) -> None:
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "a.gguf", architecture)
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ArchError, match=f"supports the model type `{architecture}`") as caught:
        archdsl.from_pretrained(tmp_path / "a.gguf", device="CPU")
    assert "did you mean" not in str(caught.value)
