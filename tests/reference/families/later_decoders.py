"""Decoders that join projections, normalise results, or put attention and MLP side by side."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.reference.families import Family, Reference
from tests.reference.families.decoders import _rotation, _saved, _sizes

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed; CONTRIBUTING.md says how"
)


def save_phi3(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    config = transformers.Phi3Config(
        **_sizes(random),
        pad_token_id=None,
        rope_parameters=_rotation(random),
        sliding_window=random.randint(4, 9) if seed % 2 else None,
        tie_word_embeddings=seed % 3 == 1,
    )
    return _saved(transformers.Phi3ForCausalLM(config), folder, seed)


def save_starcoder2(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    config = transformers.Starcoder2Config(
        **_renamed(_sizes(random), "norm_epsilon"),
        rope_parameters=_rotation(random),
        sliding_window=None if seed % 2 else random.randint(4, 9),
        use_bias=seed % 3 != 1,
        tie_word_embeddings=seed % 3 != 2,
        hidden_act=("gelu_pytorch_tanh", "gelu", "silu")[seed % 3],
    )
    return _saved(transformers.Starcoder2ForCausalLM(config), folder, seed)


def save_olmo2(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    config = transformers.Olmo2Config(
        **_sizes(random),
        pad_token_id=None,
        rope_parameters=_rotation(random),
        attention_bias=seed % 2 == 1,
        tie_word_embeddings=seed % 3 == 1,
    )
    return _saved(transformers.Olmo2ForCausalLM(config), folder, seed)


def save_phi(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    sizes = _renamed(_sizes(random), "layer_norm_eps")
    whole = sizes["hidden_size"] // sizes["num_attention_heads"] % 4  # half of it is odd
    config = transformers.PhiConfig(
        **sizes,
        rope_parameters=_rotation(random) | {"partial_rotary_factor": 1.0 if whole else 0.5},
        hidden_act=("gelu_new", "gelu", "relu")[seed % 3],
    )
    return _saved(transformers.PhiForCausalLM(config), folder, seed)


def save_falcon(folder: Path, seed: int) -> Reference:
    """The first form with one key, and the later one with one norm and with two."""
    random = Random(seed)
    sizes = _renamed(_sizes(random), "layer_norm_epsilon")
    config = transformers.FalconConfig(
        **{name: size for name, size in sizes.items() if name not in _OTHERS},
        num_kv_heads=sizes["num_key_value_heads"],
        ffn_hidden_size=sizes["intermediate_size"],
        rope_parameters=_rotation(random),
        new_decoder_architecture=seed % 3 > 0,
        num_ln_in_parallel_attn=(None, 1, 2)[seed % 3],
        bias=seed % 2 == 1,
        tie_word_embeddings=seed != 2,
    )
    return _saved(transformers.FalconForCausalLM(config), folder, seed)


_OTHERS = ("num_key_value_heads", "intermediate_size")


def _renamed(sizes: dict[str, Any], eps: str) -> dict[str, Any]:
    """The sizes with another name of what a norm adds."""
    return {eps if name == "rms_norm_eps" else name: size for name, size in sizes.items()}


FAMILIES = (
    Family("phi3", "phi3.arch", "transformers Phi3ForCausalLM", save_phi3),
    Family(
        "starcoder2", "starcoder2.arch", "transformers Starcoder2ForCausalLM", save_starcoder2
    ),
    Family("olmo2", "olmo2.arch", "transformers Olmo2ForCausalLM", save_olmo2),
    Family("phi2", "phi2.arch", "transformers PhiForCausalLM", save_phi),
    Family("falcon", "falcon.arch", "transformers FalconForCausalLM", save_falcon),
)
