"""Decoders with experts as transformers has them: Qwen, DeepSeek and Granite.

Their other sizes are drawn as those of `decoders.py`.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

from tests.reference.families import Family, Reference
from tests.reference.families.decoders import _rotation, _saved, _sizes, torch, transformers


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


def save_granite_moe(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    config = transformers.GraniteMoeConfig(
        **_sizes(random),
        num_local_experts=random.randint(3, 6),
        num_experts_per_tok=random.randint(1, 3),
        embedding_multiplier=random.uniform(2.0, 9.0),
        logits_scaling=random.uniform(2.0, 9.0),
        residual_multiplier=random.uniform(0.2, 0.9),
        attention_multiplier=random.uniform(0.02, 0.3),
        attention_bias=seed % 2 == 1,
        tie_word_embeddings=seed % 3 == 0,
        rope_parameters=_rotation(random),
    )
    return _eager(transformers.GraniteMoeForCausalLM(config), folder, seed)


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
