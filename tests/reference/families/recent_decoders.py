"""Decoders of 2025: LFM2, Apertus and EXAONE 4, beside transformers."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np

from tests.reference.families import Family, Reference
from tests.reference.families.decoders import (
    _rotation,
    _saved,
    _sizes,
    compared,
    settled,
    transformers,
)


def save_lfm2(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    sizes = _sizes(random)
    sizes["norm_eps"] = sizes.pop("rms_norm_eps")
    kinds = ["conv", random.choice(("conv", "full_attention")), "full_attention"]
    random.shuffle(kinds)
    config = transformers.Lfm2Config(
        **sizes,
        rope_parameters=_rotation(random),
        tie_word_embeddings=seed % 2 == 0,
        conv_bias=seed % 2 == 1,
        conv_L_cache=random.randint(2, 5),
        block_multiple_of=random.randint(5, 9),
        block_ffn_dim_multiplier=random.uniform(0.7, 1.5),
        block_auto_adjust_ff_dim=seed % 3 != 1,
        layer_types=kinds,
    )
    model = transformers.Lfm2ForCausalLM(config)
    if not config.conv_bias:
        return _saved(model, folder, seed)
    # A bias makes padding in front of a convolution more than zeros: there is none here.
    settled(model, seed).save_pretrained(folder)
    tokens = np.random.default_rng(seed).integers(0, config.vocab_size, (3, 17))
    return compared(model, tokens, np.full(3, 17))


def save_apertus(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    config = transformers.ApertusConfig(
        **_sizes(random),
        rope_parameters=_scaled(random) if seed % 2 else _rotation(random),
        tie_word_embeddings=seed % 2 == 0,
        attention_bias=seed % 3 == 0,
    )
    return _saved(transformers.ApertusForCausalLM(config), folder, seed)


def save_exaone4(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    windows: dict[str, object] = {
        "sliding_window": random.randint(3, 8),
        "sliding_window_pattern": random.randint(2, 4),
    }
    if seed % 3 == 1:
        windows = {"sliding_window": None, "layer_types": ["full_attention"] * 5}
    config = transformers.Exaone4Config(
        **_sizes(random) | {"num_hidden_layers": 5},
        **windows,
        rope_parameters=_scaled(random) if seed % 2 else _rotation(random),
        tie_word_embeddings=seed % 2 == 0,
    )
    return _saved(transformers.Exaone4ForCausalLM(config), folder, seed)


def _scaled(random: Random) -> dict[str, object]:
    return {
        "rope_type": "llama3",
        "rope_theta": random.uniform(100.0, 50_000.0),
        "factor": random.uniform(2.0, 9.0),
        "low_freq_factor": 1.0,
        "high_freq_factor": random.uniform(2.0, 5.0),
        "original_max_position_embeddings": random.randint(10, 19),
    }


FAMILIES = (
    Family("lfm2", "lfm2.arch", "transformers Lfm2ForCausalLM", save_lfm2),
    Family("apertus", "apertus.arch", "transformers ApertusForCausalLM", save_apertus),
    Family("exaone4", "exaone4.arch", "transformers Exaone4ForCausalLM", save_exaone4),
)
