"""Models whose layers see windows, or attend with sinks: gpt-oss and ModernBERT.

Sizes are drawn from a seed; windows are shorter than the sequences.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from tests.reference.families import Family, Reference
from tests.reference.families.decoders import _rotation, _saved, _sizes
from tests.reference.families.encoders import drawn, mask, padded, tensors, widths

torch = pytest.importorskip("torch", reason="torch is not installed; CONTRIBUTING.md says how")
transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed; CONTRIBUTING.md says how"
)


def save_gpt_oss(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    count = random.randint(3, 7)
    rotation: dict[str, Any] = _rotation(random)
    if seed % 2 == 0:
        rotation |= {
            "rope_type": "yarn",
            "factor": random.uniform(2.0, 40.0),
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": seed % 4 == 2,
            "original_max_position_embeddings": random.randint(10, 19),
        }
    config = transformers.GptOssConfig(
        **_sizes(random),
        head_dim=2 * random.randint(3, 9),
        sliding_window=random.randint(3, 8),
        rope_parameters=rotation,
        num_local_experts=count,
        num_experts_per_tok=random.randint(1, count - 1),
        swiglu_limit=random.uniform(0.3, 2.0),
        attention_bias=seed % 3 != 1,
        tie_word_embeddings=seed % 3 == 2,
    )
    model = transformers.GptOssForCausalLM(config)
    model.set_experts_implementation("eager")
    return _saved(model, folder, seed)


def save_modernbert(folder: Path, seed: int) -> Reference:
    random, sizes = np.random.default_rng(seed), widths(np.random.default_rng(seed))
    vocab, pad = int(random.integers(40, 90)), int(seed % 3)
    theta = random.uniform(100.0, 5_000.0, 2)
    config = transformers.ModernBertConfig(
        **sizes | {"num_hidden_layers": 4},
        vocab_size=vocab,
        max_position_embeddings=24,
        pad_token_id=pad,
        bos_token_id=None,
        eos_token_id=None,
        cls_token_id=None,
        sep_token_id=None,
        local_attention=int(random.integers(4, 10)),
        rope_parameters={
            kind: {"rope_type": "default", "rope_theta": float(each)}
            for kind, each in zip(("full_attention", "sliding_attention"), theta, strict=True)
        },
        hidden_activation=("gelu", "silu", "gelu_new")[seed % 3],
        norm_eps=float(random.choice([1e-12, 1e-5])),
        norm_bias=seed % 2 == 0,
        attention_bias=seed % 2 == 1,
        mlp_bias=seed % 3 == 1,
        classifier_bias=seed % 3 == 2,
        decoder_bias=seed % 3 != 1,
    )
    theirs = drawn(transformers.ModernBertForMaskedLM(config), seed)
    theirs.save_pretrained(folder)
    lengths = [int(n) for n in random.integers(3, 20, 2)] + [21]
    tokens = padded(random, lengths, vocab, pad)
    given = {"input_ids": tokens, "attention_mask": mask(lengths).astype(int)}
    with torch.no_grad():
        hidden = theirs.model(**tensors(**given))[0].numpy()
        logits = theirs(**tensors(**given)).logits.numpy()
    return Reference({"tokens": tokens}, {"hidden": hidden, "logits": logits}, mask(lengths))


FAMILIES = (
    Family("gpt_oss", "gpt_oss.arch", "transformers GptOssForCausalLM", save_gpt_oss),
    Family(
        "modernbert", "modernbert.arch", "transformers ModernBertForMaskedLM", save_modernbert
    ),
)
