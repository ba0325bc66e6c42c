"""Decoders of specs/ with states, as transformers has them: Mamba, Mamba-2 and Jamba.

Sizes are drawn from a seed. Theirs read each row alone: what a projection with a bias makes of
padding would reach their convolution.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from tests.reference.families import Array, Family, Reference
from tests.reference.families.decoders import settled

torch = pytest.importorskip("torch", reason="torch is not installed; CONTRIBUTING.md says how")
transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed; CONTRIBUTING.md says how"
)
LONGEST = 24
NO_TOKENS = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None}


def save_mamba(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    config = transformers.MambaConfig(
        vocab_size=random.randint(50, 150),
        hidden_size=random.randint(9, 30),
        expand=random.choice((1, 2, 3)),
        num_hidden_layers=3,
        state_size=random.randint(3, 9),
        conv_kernel=random.randint(2, 5),
        time_step_rank=random.randint(2, 5),
        hidden_act=("silu", "gelu", "relu")[seed % 3],
        layer_norm_epsilon=random.uniform(1e-6, 1e-2),
        use_bias=seed % 2 == 1,
        use_conv_bias=seed % 2 == 0,
        tie_word_embeddings=seed % 3 == 0,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
    )
    return _saved(transformers.MambaForCausalLM(config), folder, seed)


def save_mamba2(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    groups, head_size = random.randint(1, 3), 2 * random.randint(2, 4)
    heads = 2 * groups * random.randint(1, 2)
    config = transformers.Mamba2Config(
        vocab_size=random.randint(50, 150),
        hidden_size=heads * head_size // 2,
        num_heads=heads,
        head_dim=head_size,
        n_groups=groups,
        state_size=random.randint(5, 9),
        conv_kernel=random.randint(3, 5),
        num_hidden_layers=3,
        layer_norm_epsilon=random.uniform(1e-6, 1e-2),
        use_bias=seed % 2 == 1,
        use_conv_bias=seed % 3 != 1,
        tie_word_embeddings=seed % 2 == 0,
        time_step_limit=(0.5, 0.8) if seed % 3 == 2 else (0.0, float("inf")),
        **NO_TOKENS,
    )
    return _saved(transformers.Mamba2ForCausalLM(config), folder, seed)


def save_jamba(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    kv_heads = random.randint(1, 3)
    heads = kv_heads * random.randint(1, 3)
    config = transformers.JambaConfig(
        vocab_size=random.randint(50, 150),
        hidden_size=2 * heads * random.randint(3, 5),
        intermediate_size=random.randint(20, 40),
        num_hidden_layers=4,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        rms_norm_eps=random.uniform(1e-6, 1e-2),
        num_experts=random.randint(3, 5),
        num_experts_per_tok=random.randint(1, 2),
        attn_layer_period=3,
        attn_layer_offset=seed % 3,
        expert_layer_period=2,
        expert_layer_offset=seed % 2,
        mamba_d_state=random.randint(3, 9),
        mamba_d_conv=random.randint(3, 5),
        mamba_dt_rank=random.randint(2, 6),
        mamba_proj_bias=seed % 2 == 1,
        mamba_conv_bias=seed % 3 != 1,
        max_position_embeddings=40,
        tie_word_embeddings=seed % 2 == 0,
        use_mamba_kernels=False,
        **NO_TOKENS,
    )
    model = transformers.JambaForCausalLM(config)
    model.set_experts_implementation("eager")
    return _saved(model, folder, seed)


FAMILIES = (
    Family("mamba", "mamba.arch", "transformers MambaForCausalLM", save_mamba),
    Family("mamba2", "mamba2.arch", "transformers Mamba2ForCausalLM", save_mamba2),
    Family("jamba", "jamba.arch", "transformers JambaForCausalLM", save_jamba),
)


def _saved(model: Any, folder: Path, seed: int, dtype: Any = None) -> Reference:
    """Saves a model and computes with it; its weights are numbers of `dtype`."""
    settled(model, seed)
    if dtype is not None:
        with torch.no_grad():
            for weight in model.parameters():
                weight.copy_(weight.to(dtype))
    model.save_pretrained(folder)
    random = np.random.default_rng(seed)
    lengths = np.array([LONGEST, *random.integers(1, LONGEST, 2)])
    tokens = random.integers(0, model.config.vocab_size, (len(lengths), LONGEST))
    counts = np.arange(LONGEST) < lengths[:, None]
    outputs: dict[str, Array] = {}
    for row, length in enumerate(lengths):
        given = torch.from_numpy(tokens[row : row + 1, :length])
        with torch.no_grad():
            found = {"hidden": model.base_model(given)[0], "logits": model(given).logits}
        for name, values in found.items():
            shape = (*counts.shape, values.shape[-1])
            outputs.setdefault(name, np.zeros(shape, np.float32))[row, :length] = values[0]
    return Reference({"tokens": tokens}, outputs, counts)
