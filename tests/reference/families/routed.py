"""Decoders with experts as transformers has them: Qwen, DeepSeek, Granite and Llama 4.

Their other sizes are drawn as those of `decoders.py`.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from tests.reference.families import Family, Reference
from tests.reference.families.decoders import (
    _rotation,
    _saved,
    _sizes,
    compared,
    settled,
    torch,
    transformers,
)


def save_qwen2_moe(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    config = transformers.Qwen2MoeConfig(
        **_sizes(random),
        **_experts(random, seed),
        num_experts=random.randint(3, 6),
        num_experts_per_tok=random.randint(1, 3),
        shared_expert_intermediate_size=random.randint(20, 50),
        qkv_bias=seed % 2 == 0,
        rope_parameters=_rotation(random),
    )
    return _eager(transformers.Qwen2MoeForCausalLM(config), folder, seed)


def save_qwen3_moe(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    config = transformers.Qwen3MoeConfig(
        **_sizes(random),
        **_experts(random, seed),
        num_experts=random.randint(3, 6),
        num_experts_per_tok=random.randint(1, 3),
        head_dim=2 * random.randint(3, 9),
        attention_bias=seed % 2 == 1,
        rope_parameters=_rotation(random),
    )
    return _eager(transformers.Qwen3MoeForCausalLM(config), folder, seed)


def _multipliers(random: Random) -> dict[str, float]:
    """What Granite multiplies by."""
    return {
        "embedding_multiplier": random.uniform(2.0, 9.0),
        "logits_scaling": random.uniform(2.0, 9.0),
        "residual_multiplier": random.uniform(0.2, 0.9),
        "attention_multiplier": random.uniform(0.02, 0.3),
    }


def save_granite_moe(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    config = transformers.GraniteMoeConfig(
        **_sizes(random),
        num_local_experts=random.randint(3, 6),
        num_experts_per_tok=random.randint(1, 3),
        **_multipliers(random),
        attention_bias=seed % 2 == 1,
        tie_word_embeddings=seed % 3 == 0,
        rope_parameters=_rotation(random),
    )
    return _eager(transformers.GraniteMoeForCausalLM(config), folder, seed)


def save_granite(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    config = transformers.GraniteConfig(
        **_sizes(random),
        **_multipliers(random),
        attention_bias=seed % 2 == 1,
        mlp_bias=seed % 3 == 1,
        tie_word_embeddings=seed % 3 == 0,
        rope_parameters=_rotation(random),
    )
    return _saved(transformers.GraniteForCausalLM(config), folder, seed)


def save_llama4(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    step = 1 + seed % 2
    scaling: dict[str, Any] = {
        "rope_type": "llama3",
        "factor": random.uniform(2.0, 9.0),
        "low_freq_factor": 1.0,
        "high_freq_factor": 3.0 if seed % 3 else 1.0,
        "original_max_position_embeddings": random.randint(10, 19),
    }
    config = transformers.Llama4TextConfig(
        **_sizes(random) | {"num_hidden_layers": 5},
        intermediate_size_mlp=random.randint(20, 50),
        head_dim=2 * random.randint(3, 9),
        num_local_experts=random.randint(3, 6),
        interleave_moe_layer_step=step,
        use_qk_norm=seed % 3 != 1,
        attn_temperature_tuning=seed % 3 != 2,
        floor_scale=random.randint(2, 5),
        attn_scale=random.uniform(0.1, 0.5),
        no_rope_layer_interval=random.randint(2, 4),
        attention_chunk_size=random.randint(4, 8),
        attention_bias=seed % 2 == 1,
        tie_word_embeddings=seed % 3 == 1,
        rope_parameters=_rotation(random) | (scaling if seed % 3 != 1 else {}),
    )
    model = settled(transformers.Llama4ForCausalLM(config), seed)
    model.save_pretrained(folder)
    # Its temperatures count padding in front: there is none here.
    tokens = np.random.default_rng(seed).integers(0, config.vocab_size, (3, 20))
    return compared(model, tokens, np.full(3, 20))


def save_deepseek_v3(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    scaling: dict[str, Any] = {
        "rope_type": "yarn",
        "factor": random.uniform(2.0, 9.0),
        "original_max_position_embeddings": random.randint(10, 19),
        "mscale": 1.0,
        "mscale_all_dim": random.uniform(0.5, 1.5),
    }
    sizes = _sizes(random)
    sizes["num_key_value_heads"] = sizes["num_attention_heads"]
    groups = random.randint(2, 4)
    config = transformers.DeepseekV3Config(
        **sizes,
        n_routed_experts=groups * random.randint(2, 4),
        n_group=groups,
        topk_group=random.randint(1, groups - 1),
        num_experts_per_tok=2,
        n_shared_experts=random.randint(1, 2),
        routed_scaling_factor=random.uniform(0.5, 3.0),
        moe_intermediate_size=random.randint(20, 50),
        norm_topk_prob=seed % 2 == 0,
        q_lora_rank=None if seed % 3 == 1 else random.randint(8, 16),
        kv_lora_rank=random.randint(8, 16),
        qk_rope_head_dim=2 * random.randint(2, 5),
        qk_nope_head_dim=random.randint(3, 9),
        v_head_dim=random.randint(3, 9),
        first_k_dense_replace=seed % 3,
        attention_bias=seed % 2 == 1,
        tie_word_embeddings=seed % 3 == 2,
        rope_parameters=_rotation(random) | (scaling if seed % 2 else {}),
    )
    model = transformers.DeepseekV3ForCausalLM(config)
    with torch.no_grad():
        for name, bias in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                generator = torch.Generator().manual_seed(seed)
                bias.copy_(0.2 * torch.randn(bias.shape, generator=generator))
    return _eager(model, folder, seed)


FAMILIES = (
    Family("qwen2_moe", "qwen_moe.arch", "transformers Qwen2MoeForCausalLM", save_qwen2_moe),
    Family("qwen3_moe", "qwen_moe.arch", "transformers Qwen3MoeForCausalLM", save_qwen3_moe),
    Family(
        "granite_moe",
        "granite_moe.arch",
        "transformers GraniteMoeForCausalLM",
        save_granite_moe,
    ),
    Family("granite", "granite.arch", "transformers GraniteForCausalLM", save_granite),
    Family("llama4", "llama4.arch", "transformers Llama4ForCausalLM", save_llama4),
    Family(
        "deepseek_v3",
        "deepseek.arch",
        "transformers DeepseekV3ForCausalLM",
        save_deepseek_v3,
    ),
)


def _experts(random: Random, seed: int) -> dict[str, Any]:
    return {
        "moe_intermediate_size": random.randint(20, 50),
        "norm_topk_prob": seed % 2 == 0,
        "decoder_sparse_step": 1 + seed % 2,
        "tie_word_embeddings": seed % 3 == 1,
    }


def _eager(model: Any, folder: Path, seed: int) -> Reference:
    model.set_experts_implementation("eager")  # the other one needs multiples of four
    return _saved(model, folder, seed)
