"""A small checkpoint in which an audit finds nothing, and ways to change it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from archdsl.analysis import analyse
from archdsl.execution.checkpoints import to_published
from archdsl.formats import LazyTensor, read_checkpoint, write_checkpoint, write_safetensors
from archdsl.graph.sites import parameters

ROWS = 40
LETTERS = ["<s>", "</s>", "<pad>", "<unk>", " ", ".", ":", ",", *"abcdefghijklmnopqrstuvwxyz"]
LETTERS += ["H", "I", "B", "<|im_start|>", "<|im_end|>", "\n"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}:{{ m.content }}<|im_end|>{% endfor %}"
    "<|im_start|>assistant:"
)
CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": ROWS,
    "max_position_embeddings": 32,
    "hidden_size": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "rope_theta": 10000.0,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "dtype": "float32",
}
SETTINGS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "pad_token": "<pad>",
    "chat_template": TEMPLATE,
}
GENERATION = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}


IMAGES: dict[str, Any] = {
    "model_type": "vit",
    "architectures": ["ViTForImageClassification"],
    "image_size": 8,
    "patch_size": 4,
    "num_channels": 3,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "id2label": {"0": "cat", "1": "dog", "2": "bird"},
}


def write_model(place: Path, spec: str, config: dict[str, Any], **sizes: Any) -> None:
    """Writes random weights, without compiling the model."""
    analysis = analyse(spec, None, sizes)
    numbers = np.random.default_rng(0)
    shapes = {each.path: each.weight.shape for each in parameters(analysis.graph)}
    ours = {
        path: LazyTensor("float32", shape, partial(numbers.standard_normal, shape, np.float32))
        for path, shape in shapes.items()
    }
    write_checkpoint(place, to_published(analysis.maps["huggingface"], ours), config)


def write_images(place: Path) -> None:
    """Writes a classifier of images."""
    sizes = {"image": 8, "patch": 4, "classes": 3, "D": 8, "heads": 2, "inner": 16, "depth": 1}
    write_model(place, "dosovitskiy2020.arch", IMAGES, **sizes)
    normal = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    change(
        place, "preprocessor_config.json", size={"height": 8, "width": 8}, resample=2, **normal
    )


def write_clean(place: Path) -> None:
    sizes: Any = {"vocab": ROWS, "context": 32, "D": 32, "heads": 2, "inner": 24, "depth": 3}
    write_model(place, "llama.arch", CONFIG, **sizes)
    import tokenizers

    ids = {letter: i for i, letter in enumerate(LETTERS)}
    library = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="<unk>"))
    library.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    library.decoder = tokenizers.decoders.Fuse()
    library.add_special_tokens([token for token in LETTERS if len(token) > 1])
    library.save(str(place / "tokenizer.json"))
    change(place, "tokenizer_config.json", **SETTINGS)
    change(place, "generation_config.json", **GENERATION)


def change(folder: Path, file: str, **fields: Any) -> None:
    """Sets fields of a JSON file; None removes one."""
    path = folder / file
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    found = {name: value for name, value in (found | fields).items() if value is not None}
    path.write_text(json.dumps(found), encoding="utf-8")


def change_weights(folder: Path, **arrays: Any) -> None:
    """Sets tensors by their names without `model.`; None removes one."""
    kept: dict[str, Any] = {n: t.read() for n, t in read_checkpoint(folder).tensors.items()}
    for name, array in arrays.items():
        if array is None:
            del kept[name]
        else:
            kept[name] = array
    write_safetensors(folder / "model.safetensors", kept)


def weight(folder: Path, name: str) -> np.ndarray[Any, Any]:
    return np.array(read_checkpoint(folder).tensors[name].read())
