"""Import and export keep all that transformers reads from a folder.

The files have unusual values everywhere. The config, the generation config, the tokenizer and
the processor of the folder that went through both are those of the original.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archdsl.cli import main
from archdsl.published.config_values import BOOKKEEPING

pytestmark = [pytest.mark.long, pytest.mark.reference("torch", "transformers", "tokenizers")]

LAYERS = {"num_hidden_layers": 1, "num_attention_heads": 2}
SIZES = {"hidden_size": 16, "intermediate_size": 24, **LAYERS}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
WHISPER = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "num_mel_bins": 8,
    "max_source_positions": 20,
    "max_target_positions": 16,
}
TOKENS = {"vocab_size": 40, "bos_token_id": 38, "eos_token_id": 39}
IMAGE = {"image_size": 16, "patch_size": 8}

# The class of each family, and its config.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2LMHeadModel", {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 24}),
    "bert": ("BertForSequenceClassification", {**SIZES, "max_position_embeddings": 24}),
    "t5": ("T5ForConditionalGeneration", T5),
    "vit": ("ViTForImageClassification", {**SIZES, **IMAGE}),
    "clip": (
        "CLIPModel",
        {
            "text_config": {**SIZES, "max_position_embeddings": 24, **TOKENS},
            "vision_config": {**SIZES, **IMAGE},
            "projection_dim": 12,
        },
    ),
    "whisper": ("WhisperForConditionalGeneration", WHISPER),
    "llama": ("LlamaForCausalLM", {**SIZES, "num_key_value_heads": 1}),
}

# Values of fields that are not about the architecture.
UNUSUAL: dict[str, Any] = {
    "bos_token_id": 11,
    "eos_token_id": 12,
    "sep_token_id": 9,
    "id2label": {"0": "cat", "1": "dog", "2": "tree"},
    "label2id": {"cat": 0, "dog": 1, "tree": 2},
    "problem_type": "multi_label_classification",
    "tokenizer_class": "PreTrainedTokenizerFast",
    "finetuning_task": "species",
    "task_specific_params": {"naming": {"max_length": 7, "prefix": "name: "}},
    "output_hidden_states": True,
    "return_dict": False,
    "use_cache": False,
    "initializer_range": 0.125,
    "initializer_factor": 0.25,
    "attention_dropout": 0.375,
    "dropout": 0.5,
    "hidden_dropout_prob": 0.625,
    "attention_probs_dropout_prob": 0.75,
    "classifier_dropout": 0.875,
    "dropout_rate": 0.0625,
    "resid_pdrop": 0.03125,
    "chunk_size_feed_forward": 3,
    "transformers_version": "4.7.11",
    "_name_or_path": "somebody/something",
    "license": "of its own",
}
GENERATION = {
    "bos_token_id": 11,
    "eos_token_id": [12, 13],
    "pad_token_id": 14,
    "top_k": 0,
    "do_sample": True,
    "temperature": 0.625,
    "top_p": 0.75,
    "max_new_tokens": 17,
    "repetition_penalty": 1.125,
    "suppress_tokens": [3, 4],
    "forced_eos_token_id": 12,
    "transformers_version": "4.7.11",
}
SETTINGS = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": "a",
    "eos_token": "b",
    "pad_token": "c",
    "model_max_length": 19,
    "padding_side": "left",
    "truncation_side": "left",
    "extra": "of its own",
    "clean_up_tokenization_spaces": True,
}
IMAGES = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": 16, "width": 16},
    "resample": 0,
    "rescale_factor": 0.0625,
    "image_mean": [0.125, 0.25, 0.375],
    "image_std": [0.5, 0.625, 0.75],
}
SOUND = {
    "feature_extractor_type": "WhisperFeatureExtractor",
    "feature_size": 8,
    "sampling_rate": 8000,
    "hop_length": 80,
    "n_fft": 200,
    "chunk_length": 0.4,
    "dither": 0.125,
    "padding_value": 0.25,
}


def save(folder: Path, name: str) -> None:
    """A small model with random weights, and with files of unusual values."""
    import tokenizers
    import torch
    import transformers

    torch.manual_seed(0)
    title, sizes = FAMILIES[name]
    model_class = getattr(transformers, title)
    own: dict[str, Any] = {"id2label": UNUSUAL["id2label"]}
    vocabulary = {} if name in ("vit", "clip") else {"vocab_size": 40}
    pad = {} if name in ("vit", "clip", "gpt2") else {"pad_token_id": 14}
    config = model_class.config_class(**sizes, **own, **vocabulary, **pad)
    model_class(config).save_pretrained(folder)
    path = folder / "config.json"
    fields = json.loads(path.read_text())
    # A class and a dtype of its own too: the tensors are float32.
    fields |= UNUSUAL | {"dtype": "float64"}
    fields.pop("torch_dtype", None)
    path.write_text(json.dumps(fields), encoding="utf-8")

    letters = {chr(ord("a") + i): i for i in range(26)}
    library = tokenizers.Tokenizer(tokenizers.models.WordLevel(letters, unk_token="z"))
    library.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    library.save(str(folder / "tokenizer.json"))
    write = {
        "generation_config.json": GENERATION,
        "tokenizer_config.json": SETTINGS,
        "special_tokens_map.json": {"unk_token": "z"},
        "added_tokens.json": {"<more>": 27},
        "preprocessor_config.json": SOUND if name == "whisper" else IMAGES,
    }
    for file, content in write.items():
        (folder / file).write_text(json.dumps(content), encoding="utf-8")
    (folder / "chat_template.jinja").write_text("{{ messages }}\n", encoding="utf-8")
    for file in ("spiece.model", "vocab.txt", "merges.txt", "1_Pooling/config.json"):
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_bytes(b"\x00\xff of " + file.encode())


def read(folder: Path, name: str) -> dict[str, Any]:
    """What transformers reads from a folder."""
    import transformers

    model_class = getattr(transformers, FAMILIES[name][0])
    model = model_class.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    load: Callable[..., Any] = (
        transformers.WhisperFeatureExtractor.from_pretrained
        if name == "whisper"
        else transformers.AutoImageProcessor.from_pretrained
    )
    generation = transformers.GenerationConfig.from_pretrained(folder)
    tensors = {key: value.numpy() for key, value in model.state_dict().items()}
    found = {
        "config": model.config.to_dict() | {"_name_or_path": None},
        "generation": generation.to_dict(),
        "template": tokenizer.chat_template,
        "settings": {**tokenizer.init_kwargs, "name_or_path": None},
        "ids": tokenizer(["hello", "jam"], padding=True)["input_ids"],
        "processor": load(folder).to_dict(),
    }
    return json.loads(json.dumps(found, default=str)) | {"tensors": tensors}


@pytest.mark.parametrize("name", FAMILIES)
def test_nothing_is_lost(name: str, tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    save(there, name)
    spec, weights = str(tmp_path / "my.arch"), str(tmp_path / "my.safetensors")
    assert main(["import", str(there), "-o", spec, "--weights", weights]) == 0
    assert main(["export", spec, "--weights", weights, "--to", str(back)]) == 0

    right, found = read(there, name), read(back, name)
    for key, value in right.pop("tensors").items():
        np.testing.assert_array_equal(found["tensors"][key], value, strict=True)
    del found["tensors"]
    assert found == right
    assert found["config"]["id2label"]["2"] == "tree"
    files = sorted(path.relative_to(there) for path in there.rglob("*") if path.is_file())
    assert files == sorted(p.relative_to(back) for p in back.rglob("*") if p.is_file())
    for file in files:
        if file.suffix != ".safetensors" and file.name != "config.json":
            assert (there / file).read_bytes() == (back / file).read_bytes(), file
    one, two = (json.loads((each / "config.json").read_text()) for each in (there, back))
    assert one == two


def test_the_unusual_fields_are_those_that_no_spec_reads() -> None:
    assert UNUSUAL.keys() <= BOOKKEEPING
