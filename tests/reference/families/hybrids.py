"""Decoders of specs/ that mix attention with other ways to carry what was read.

Sizes are drawn from a seed; the layers with attention are others for each.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

from tests.reference.families import Family, Reference
from tests.reference.families.decoders import _rotation, torch, transformers
from tests.reference.families.states import NO_TOKENS, _saved


def save_qwen3_next(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    kv_heads, key_heads = random.randint(1, 3), random.randint(1, 3)
    linear, full = "linear_attention", "full_attention"
    config = transformers.Qwen3NextConfig(
        vocab_size=random.randint(50, 150),
        hidden_size=random.randint(20, 40),
        intermediate_size=random.randint(20, 40),
        num_hidden_layers=4,
        num_attention_heads=kv_heads * random.randint(1, 3),
        num_key_value_heads=kv_heads,
        head_dim=8 * random.randint(1, 2),
        rms_norm_eps=random.uniform(1e-6, 1e-2),
        max_position_embeddings=40,
        attention_bias=seed % 2 == 1,
        linear_conv_kernel_dim=random.randint(3, 5),
        linear_key_head_dim=random.randint(3, 8),
        linear_value_head_dim=random.randint(3, 8),
        linear_num_key_heads=key_heads,
        linear_num_value_heads=key_heads * random.randint(1, 3),
        decoder_sparse_step=1 + seed % 2,
        moe_intermediate_size=random.randint(20, 40),
        shared_expert_intermediate_size=random.randint(20, 40),
        num_experts=random.randint(4, 6),
        num_experts_per_tok=random.randint(1, 3),
        norm_topk_prob=seed % 3 != 1,
        tie_word_embeddings=seed % 2 == 0,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": random.uniform(100.0, 50_000.0),
            "partial_rotary_factor": random.choice((0.25, 0.5)),
        },
        layer_types=[full if (i + seed) % 3 == 1 else linear for i in range(4)],
        **NO_TOKENS,
    )
    model = transformers.Qwen3NextForCausalLM(config)
    model.set_experts_implementation("eager")
    # To numbers of few bits, 1 is added without rounding.
    return _saved(model, folder, seed, torch.bfloat16)


def save_granite4(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    kv_heads, groups = random.randint(1, 3), random.randint(1, 3)
    heads, state_heads = kv_heads * random.randint(1, 3), 2 * groups * random.randint(1, 2)
    D = heads * state_heads * random.randint(1, 2)
    config = transformers.GraniteMoeHybridConfig(
        vocab_size=random.randint(50, 150),
        hidden_size=2 * D,
        intermediate_size=random.randint(20, 40),
        num_hidden_layers=4,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        rms_norm_eps=random.uniform(1e-6, 1e-2),
        max_position_embeddings=40,
        attention_bias=seed % 2 == 1,
        embedding_multiplier=random.uniform(2.0, 9.0),
        logits_scaling=random.uniform(2.0, 9.0),
        residual_multiplier=random.uniform(0.2, 0.9),
        attention_multiplier=random.uniform(0.02, 0.3),
        num_local_experts=0 if seed % 3 == 2 else random.randint(4, 6),
        num_experts_per_tok=random.randint(1, 3),
        shared_intermediate_size=random.randint(20, 40),
        position_embedding_type="rope" if seed % 3 == 1 else None,
        layer_types=[
            "full_attention" if (i + seed) % 3 == 1 else "linear_attention" for i in range(4)
        ],
        mamba_n_heads=state_heads,
        mamba_n_groups=groups,
        mamba_d_state=random.randint(5, 9),
        mamba_d_conv=random.randint(3, 5),
        mamba_expand=random.choice((1, 2)),
        mamba_conv_bias=seed % 3 != 1,
        mamba_proj_bias=seed % 2 == 1,
        tie_word_embeddings=seed % 2 == 0,
        rope_parameters=_rotation(random),
        **NO_TOKENS,
    )
    model = transformers.GraniteMoeHybridForCausalLM(config)
    model.set_experts_implementation("eager")
    return _saved(model, folder, seed)


FAMILIES = (
    Family(
        "qwen3_next",
        "qwen3_next.arch",
        "transformers Qwen3NextForCausalLM",
        save_qwen3_next,
    ),
    Family(
        "granite4",
        "granite4.arch",
        "transformers GraniteMoeHybridForCausalLM",
        save_granite4,
    ),
)
