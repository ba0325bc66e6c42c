"""Decoders with states that are read and corrected, and two that mix states with attention.

transformers has Falcon-H1 and OLMo Hybrid. The others are written from their papers in
`recurrent_models.py`, and saved as flash-linear-attention saves them. Sizes are drawn from a
seed.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.reference.families import Array, Family, Reference
from tests.reference.families.decoders import _rotation, _sizes, settled, torch, transformers
from tests.reference.families.states import LONGEST, _saved
from tests.reference.recurrent_models import (
    Body,
    ChannelMix,
    Decoder,
    GatedDelta,
    GatedMLP,
    Layer,
    Retention,
    RMSNorm,
    RwkvBody,
    RwkvLayer,
    TimeMix,
    nn,
)

DEPTH = 3


def save_falcon_h1(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    sizes = _sizes(random) | {"max_position_embeddings": 40}
    groups, state_size = random.randint(1, 3), 2 * random.randint(2, 5)
    state_heads = groups * random.randint(1, 3)

    def factor() -> float:
        return random.uniform(0.3, 2.0)

    config = transformers.FalconH1Config(
        **sizes,
        pad_token_id=None,
        rope_parameters=_rotation(random),
        attention_bias=seed % 2 == 1,
        mlp_bias=seed % 3 == 1,
        projectors_bias=seed % 3 == 2,
        mamba_proj_bias=seed % 2 == 0,
        mamba_conv_bias=seed % 3 != 1,
        mamba_d_ssm=state_heads * state_size,
        mamba_n_heads=state_heads,
        mamba_d_head=state_size,
        mamba_n_groups=groups,
        mamba_d_state=random.randint(3, 9),
        mamba_d_conv=random.randint(2, 4),
        mamba_rms_norm=seed % 3 > 0,
        mamba_norm_before_gate=seed % 3 == 1,
        time_step_limit=(0.5, 0.8) if seed % 3 == 2 else (0.0, float("inf")),
        embedding_multiplier=factor(),
        lm_head_multiplier=factor(),
        attention_in_multiplier=factor(),
        attention_out_multiplier=factor(),
        key_multiplier=factor(),
        ssm_in_multiplier=factor(),
        ssm_out_multiplier=factor(),
        ssm_multipliers=[factor() for _ in range(5)],
        mlp_multipliers=[factor(), factor()],
        tie_word_embeddings=seed % 2 == 0,
    )
    return _saved(transformers.FalconH1ForCausalLM(config), folder, seed)


def save_olmo_hybrid(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    sizes = _sizes(random) | {"max_position_embeddings": 40, "num_hidden_layers": 4}
    key_heads, key = random.randint(1, 3), random.randint(3, 8)
    value_heads, value = key_heads * random.randint(1, 3), random.randint(3, 8)
    linear, full = "linear_attention", "full_attention"
    config = transformers.OlmoHybridConfig(
        **sizes,
        pad_token_id=None,
        attention_bias=seed % 2 == 1,
        rope_parameters=_rotation(random) if seed % 3 == 1 else None,
        linear_num_key_heads=key_heads,
        linear_num_value_heads=value_heads,
        linear_key_head_dim=key,
        linear_value_head_dim=value,
        linear_conv_kernel_dim=random.randint(2, 5),
        linear_allow_neg_eigval=seed % 3 != 1,
        tie_word_embeddings=seed % 2 == 0,
        layer_types=[full if (i + seed) % 3 == 1 else linear for i in range(4)],
    )
    model = transformers.OlmoHybridForCausalLM(config)
    reference = _saved(model, folder, seed)
    # Published checkpoints have a convolution for each; it would save three equal parts of one.
    tensors = load_file(folder / "model.safetensors")
    for i, layer in enumerate(model.model.layers):
        if config.layer_types[i] == linear:
            keys = key_heads * key
            parts = layer.linear_attn.conv1d.weight.detach().split(
                [keys, keys, value_heads * value]
            )
            for name, part in zip("qkv", parts, strict=True):
                tensors[f"model.layers.{i}.linear_attn.{name}_conv1d.weight"] = part.numpy()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return reference


def save_retnet(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    heads = random.randint(1, 4)
    keys, values = heads * 2 * random.randint(2, 4), heads * random.randint(3, 9)
    config = _sizes_of(random) | {"hidden_size": heads * random.randint(4, 8)}
    width, eps = config["hidden_size"], config["norm_eps"]
    config |= {
        "num_heads": heads,
        "expand_k": keys / width,
        "expand_v": values / width,
        "hidden_ratio": 2,
        "tie_word_embeddings": seed % 2 == 0,
    }
    layers = [
        Layer(
            Retention(width, heads, keys, values, RMSNorm(values // heads, eps)),
            GatedMLP(width, config["intermediate_size"]),
            lambda: RMSNorm(width, eps),
        )
        for _ in range(DEPTH)
    ]
    body = Body(config["vocab_size"], width, layers, RMSNorm(width, eps))
    return _written(body, config | _named("retnet", "RetNet"), folder, seed)


def save_gated_deltanet(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    heads, key = random.randint(1, 3), 2 * random.randint(2, 4)
    value_heads, twice = heads * random.randint(1, 3), random.choice((0.5, 1.5, 2.0))
    config = _sizes_of(random) | {
        "num_heads": heads,
        "num_v_heads": None if value_heads == heads else value_heads,
        "head_dim": key,
        "expand_v": twice,
        "use_gate": seed % 3 != 1,
        "use_short_conv": True,
        "allow_neg_eigval": seed % 3 == 2,
        "conv_size": random.randint(2, 5),
        "tie_word_embeddings": seed % 2 == 1,
    }
    width, eps = config["hidden_size"], config["norm_eps"]
    kernel, gated, negative = (config[n] for n in ("conv_size", "use_gate", "allow_neg_eigval"))
    layers = [
        Layer(
            GatedDelta(
                *(width, heads, value_heads, key, int(key * twice)),
                *(kernel, gated, negative, eps),
            ),
            GatedMLP(width, config["intermediate_size"]),
            lambda: RMSNorm(width, eps),
        )
        for _ in range(DEPTH)
    ]
    body = Body(config["vocab_size"], width, layers, RMSNorm(width, eps))
    return _written(body, config | _named("gated_deltanet", "GatedDeltaNet"), folder, seed)


def save_rwkv7(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    size, heads = random.randint(3, 8), random.randint(2, 4)
    ranks = {name: random.randint(3, 8) for name in "wavg"}
    config = _sizes_of(random) | {
        "hidden_size": size * heads,
        "head_dim": size,
        "num_heads": None if seed == 0 else heads,
        "value_dim": [size * heads] * DEPTH,
        "decay_low_rank_dim": ranks["w"],
        "a_low_rank_dim": ranks["a"],
        "v_low_rank_dim": ranks["v"],
        "gate_low_rank_dim": ranks["g"],
        "hidden_act": "sqrelu",
        "hidden_ratio": 4.0,
        "norm_first": True,
        "norm_bias": True,
        "tie_word_embeddings": seed % 2 == 1,
    }
    width, eps = config["hidden_size"], config["norm_eps"]
    layers = [
        RwkvLayer(
            width,
            TimeMix(width, size, ranks, layer == 0, eps),
            ChannelMix(width, config["intermediate_size"]),
            eps,
        )
        for layer in range(DEPTH)
    ]
    body = RwkvBody(config["vocab_size"], width, layers, nn.LayerNorm(width, eps))
    return _written(body, config | _named("rwkv7", "RWKV7"), folder, seed)


FAMILIES = (
    Family("falcon_h1", "falcon_h1.arch", "transformers FalconH1ForCausalLM", save_falcon_h1),
    Family(
        "olmo_hybrid",
        "olmo_hybrid.arch",
        "transformers OlmoHybridForCausalLM",
        save_olmo_hybrid,
    ),
    Family("retnet", "retnet.arch", "a loop from Sun et al. 2023", save_retnet),
    Family(
        "gated_deltanet", "delta_net.arch", "a loop from Yang et al. 2024", save_gated_deltanet
    ),
    Family("rwkv7", "rwkv7.arch", "a loop from Peng et al. 2025", save_rwkv7),
)


def _sizes_of(random: Random) -> dict[str, Any]:
    return {
        "vocab_size": random.randint(50, 150),
        "hidden_size": random.randint(9, 30),
        "intermediate_size": random.randint(20, 40),
        "num_hidden_layers": DEPTH,
        "norm_eps": random.uniform(1e-6, 1e-2),
    }


def _named(type: str, name: str) -> dict[str, Any]:
    return {"model_type": type, "architectures": [f"{name}ForCausalLM"]}


def _written(body: Any, config: dict[str, Any], folder: Path, seed: int) -> Reference:
    """Saves a model and computes with it."""
    model = settled(Decoder(body, config["tie_word_embeddings"]), seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    random = np.random.default_rng(seed)
    tokens = random.integers(0, config["vocab_size"], (3, LONGEST))
    with torch.no_grad():
        found: dict[str, Array] = {
            n: y.numpy() for n, y in model(torch.from_numpy(tokens)).items()
        }
    return Reference({"tokens": tokens}, found)
