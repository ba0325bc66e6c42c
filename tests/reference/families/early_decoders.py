"""Decoders of 2021 and 2022: OPT, BLOOM, MPT, GPT-J and GPT-NeoX, beside transformers."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from tests.reference.families import Family, Reference
from tests.reference.families.decoders import compared, settled, transformers

_NO_TOKENS: dict[str, None] = dict.fromkeys(("bos_token_id", "eos_token_id"))
CONTEXT = 31


def save_opt(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    heads = random.choice((3, 5, 7))
    width = heads * random.randint(5, 9)
    config = transformers.OPTConfig(
        vocab_size=random.randint(50, 150),
        max_position_embeddings=CONTEXT,
        hidden_size=width,
        num_attention_heads=heads,
        ffn_dim=random.randint(40, 90),
        num_hidden_layers=3,
        word_embed_proj_dim=None if seed % 2 else random.randint(20, 30),
        do_layer_norm_before=seed % 3 != 0,
        enable_bias=seed % 3 != 1,
        layer_norm_elementwise_affine=seed % 3 != 2,
        activation_function=("relu", "gelu")[seed % 2],
        pad_token_id=1,
        **_NO_TOKENS,
    )
    return _saved(transformers.OPTForCausalLM(config), folder, seed)


def save_bloom(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    heads = random.choice((3, 5, 8))
    config = transformers.BloomConfig(
        vocab_size=random.randint(50, 150),
        hidden_size=heads * random.randint(5, 9),
        n_head=heads,
        n_layer=3,
        layer_norm_epsilon=random.uniform(1e-6, 1e-2),
        apply_residual_connection_post_layernorm=seed % 2 == 0,
        **_NO_TOKENS,
    )
    return _saved(transformers.BloomForCausalLM(config), folder, seed)


def save_mpt(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    heads = random.choice((3, 5, 8))
    config = transformers.MptConfig(
        vocab_size=random.randint(50, 150),
        max_seq_len=CONTEXT,
        d_model=heads * random.randint(5, 9),
        n_heads=heads,
        n_layers=3,
        layer_norm_epsilon=random.uniform(1e-6, 1e-2),
        **_NO_TOKENS,
    )
    return _saved(transformers.MptForCausalLM(config), folder, seed)


def save_neox(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    heads = random.choice((3, 5, 7))
    config = transformers.GPTNeoXConfig(
        vocab_size=random.randint(50, 150),
        max_position_embeddings=CONTEXT,
        hidden_size=heads * 8 * random.randint(1, 2),
        num_attention_heads=heads,
        intermediate_size=random.randint(40, 90),
        num_hidden_layers=3,
        hidden_act=("gelu", "gelu_fast", "relu")[seed % 3],
        layer_norm_eps=random.uniform(1e-6, 1e-2),
        rope_parameters={
            "rope_type": "default",
            "rope_theta": random.uniform(100.0, 50_000.0),
            "partial_rotary_factor": (0.25, 0.5, 1.0)[seed % 3],
        },
        use_parallel_residual=seed % 2 == 0,
        attention_bias=seed % 3 != 1,
        tie_word_embeddings=seed % 3 == 2,
        **_NO_TOKENS,
    )
    return _saved(transformers.GPTNeoXForCausalLM(config), folder, seed)


def save_gptj(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    heads = random.choice((3, 5, 7))
    size = 2 * random.randint(3, 5)
    config = transformers.GPTJConfig(
        vocab_size=random.randint(50, 150),
        n_positions=CONTEXT,
        n_embd=heads * size,
        n_head=heads,
        n_inner=None if seed % 2 else random.randint(40, 90),
        n_layer=3,
        rotary_dim=size - 2 * (seed % 3),
        activation_function=("gelu_new", "gelu", "relu")[seed % 3],
        layer_norm_epsilon=random.uniform(1e-6, 1e-2),
        **_NO_TOKENS,
    )
    return _saved(transformers.GPTJForCausalLM(config), folder, seed)


def _saved(model: Any, folder: Path, seed: int) -> Reference:
    settled(model, seed).save_pretrained(folder)
    random = np.random.default_rng(seed)
    longest = int(random.integers(15, CONTEXT + 1))
    lengths = np.array([longest, *random.integers(1, longest, 2)])
    tokens = random.integers(0, model.config.vocab_size, (len(lengths), longest))
    return compared(model, tokens, lengths)


FAMILIES = (
    Family("opt", "opt.arch", "transformers OPTForCausalLM", save_opt),
    Family("bloom", "bloom.arch", "transformers BloomForCausalLM", save_bloom),
    Family("mpt", "bloom.arch", "transformers MptForCausalLM", save_mpt),
    Family("gpt-neox", "neox.arch", "transformers GPTNeoXForCausalLM", save_neox),
    Family("gpt-j", "neox.arch", "transformers GPTJForCausalLM", save_gptj),
)
