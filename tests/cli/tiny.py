"""Tiny checkpoints with random weights, for tests of commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

import archdsl
from archdsl.execution.checkpoints import to_published
from archdsl.formats import LazyTensor, write_checkpoint

CONFIG = {
    "model_type": "gpt2",
    "architectures": ["GPT2LMHeadModel"],
    "vocab_size": 64,
    "n_positions": 32,
    "n_embd": 16,
    "n_head": 2,
    "n_layer": 1,
    "activation_function": "gelu_new",
}
TEMPLATE = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}.{% endfor %}a:"


def gpt2(place: Path, context: int = 32, dtype: str = "float32") -> str:
    """Saves a checkpoint with a tokenizer of letters and a chat template."""
    sizes: Any = {"vocab": 64, "context": context, "D": 16, "heads": 2, "depth": 1}
    model = archdsl.compile("gpt2.arch", device="CPU", **sizes)
    ours = {
        name: LazyTensor(dtype, tuple(w.shape), lambda w=w: np.asarray(9 * w.numpy(), dtype))
        for name, w in model.parameters.items()
    }
    config = CONFIG | {"n_positions": context}
    write_checkpoint(place, to_published(model.maps["huggingface"], ours), config)
    import tokenizers

    letters = ["<eos>", " ", ".", ",", ":", "?", *"abcdefghijklmnopqrstuvwxyz"]
    letters += [chr(ord("A") + i) for i in range(26)] + list("012345")
    ids = {letter: i for i, letter in enumerate(letters)}
    library = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="?"))
    library.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    library.decoder = tokenizers.decoders.Fuse()
    library.add_special_tokens(["<eos>"])
    library.save(str(place / "tokenizer.json"))
    settings = {"eos_token": "<eos>", "chat_template": TEMPLATE}
    settings["tokenizer_class"] = "TokenizersBackend"  # else that of GPT-2
    (place / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return str(place)
