"""Decoders whose layers differ by their number, as transformers has them."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

from tests.reference.families import Family, Reference
from tests.reference.families.decoders import _rotation, _saved, _sizes, torch, transformers

EXACT = torch.bfloat16  # of which w + 1 is a float32


def save_gemma(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    config = transformers.GemmaConfig(
        **_sizes(random),
        head_dim=2 * random.randint(3, 9),
        attention_bias=seed % 2 == 1,
        rope_parameters=_rotation(random),
    )
    return _saved(transformers.GemmaForCausalLM(config), folder, seed, EXACT)


def save_gemma2(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    config = transformers.Gemma2Config(
        **_sizes(random) | {"num_hidden_layers": 5},
        **_gemma(random, seed),
        rope_parameters=_rotation(random),
        attn_logit_softcapping=None if seed == 1 else random.uniform(0.5, 3.0),
        final_logit_softcapping=None if seed == 2 else random.uniform(0.5, 3.0),
    )
    return _saved(transformers.Gemma2ForCausalLM(config), folder, seed, EXACT)


def save_gemma3(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    everywhere = _rotation(random)
    if seed == 1:
        everywhere |= {"rope_type": "linear", "factor": random.uniform(2.0, 9.0)}
    config = transformers.Gemma3TextConfig(
        **_sizes(random) | {"num_hidden_layers": 5},
        **_gemma(random, seed),
        sliding_window_pattern=(2, 6, 3)[seed % 3],
        rope_parameters={"full_attention": everywhere, "sliding_attention": _rotation(random)},
    )
    return _saved(transformers.Gemma3ForCausalLM(config), folder, seed, EXACT)


def save_smollm3(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    scaling: dict[str, Any] = (
        {"rope_type": "default"},
        {"rope_type": "linear", "factor": random.uniform(1.5, 4.0)},
        {
            "rope_type": "yarn",
            "factor": random.uniform(1.5, 4.0),
            "original_max_position_embeddings": random.randint(10, 19),
        },
    )[seed % 3]
    config = transformers.SmolLM3Config(
        **_sizes(random) | {"num_hidden_layers": 5},
        no_rope_layer_interval=random.choice((2, 3, 4)),
        pad_token_id=None,
        attention_bias=seed % 2 == 1,
        mlp_bias=seed % 2 == 0,
        rope_parameters=_rotation(random) | scaling,
        tie_word_embeddings=seed % 2 == 1,
    )
    return _saved(transformers.SmolLM3ForCausalLM(config), folder, seed)


def save_cohere(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    config = transformers.CohereConfig(**_cohere(random, seed))
    return _saved(transformers.CohereForCausalLM(config), folder, seed)


def save_cohere2(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    sizes = _cohere(random, seed) | {"num_hidden_layers": 5}
    config = transformers.Cohere2Config(**sizes, sliding_window=random.randint(3, 8))
    return _saved(transformers.Cohere2ForCausalLM(config), folder, seed)


def _cohere(random: Random, seed: int) -> dict[str, Any]:
    sizes = _sizes(random)
    eps = sizes.pop("rms_norm_eps")
    return {
        **sizes,
        "layer_norm_eps": eps,
        "logit_scale": random.uniform(0.1, 2.0),
        "attention_bias": seed % 2 == 1,
        "rope_parameters": _rotation(random),
    }


def _gemma(random: Random, seed: int) -> dict[str, Any]:
    return {
        "head_dim": 2 * random.randint(3, 9),
        "query_pre_attn_scalar": random.randint(5, 30),
        "sliding_window": random.randint(3, 8),
        "attention_bias": seed % 2 == 1,
    }


FAMILIES = (
    Family("gemma", "gemma.arch", "transformers GemmaForCausalLM", save_gemma),
    Family("gemma2", "gemma.arch", "transformers Gemma2ForCausalLM", save_gemma2),
    Family("gemma3", "gemma.arch", "transformers Gemma3ForCausalLM", save_gemma3),
    Family("smollm3", "smollm3.arch", "transformers SmolLM3ForCausalLM", save_smollm3),
    Family("cohere", "cohere.arch", "transformers CohereForCausalLM", save_cohere),
    Family("cohere2", "cohere.arch", "transformers Cohere2ForCausalLM", save_cohere2),
)
