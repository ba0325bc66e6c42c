"""The decoders of specs/ as transformers has them: GPT, GPT-2, LLaMA, Qwen and Mistral.

Sizes are drawn from a seed. The seeds 0, 1 and 2 together have each switch both on and off.
A batch has rows of unequal lengths: theirs are filled up in front and masked, as they are
when text is generated, and ours behind, where a causal model sees nothing of it.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from tests.reference.families import Array, Family, Reference

torch = pytest.importorskip("torch", reason="torch is not installed; CONTRIBUTING.md says how")
transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed; CONTRIBUTING.md says how"
)


def save_gpt1(folder: Path, seed: int) -> Reference:
    sizes = _gpt_sizes(Random(seed))
    activation = ("gelu", "relu", "silu")[seed % 3]
    config = transformers.OpenAIGPTConfig(**sizes, afn=activation, **_no_tokens())
    return _saved(transformers.OpenAIGPTLMHeadModel(config), folder, seed)


def save_gpt2(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    sizes = _gpt_sizes(random)
    inner = None if seed % 2 else random.randint(50, 90)
    activation = ("gelu_new", "gelu", "relu")[seed % 3]
    config = transformers.GPT2Config(
        **sizes, n_inner=inner, activation_function=activation, **_no_tokens()
    )
    return _saved(transformers.GPT2LMHeadModel(config), folder, seed)


def save_llama(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    sizes = _sizes(random)
    scaling: dict[str, Any] = (
        {"rope_type": "default"},
        {
            "rope_type": "llama3",
            "factor": random.uniform(2.0, 9.0),
            "low_freq_factor": 1.0,
            "high_freq_factor": random.uniform(2.0, 5.0),
            "original_max_position_embeddings": random.randint(10, 19),
        },
        {"rope_type": "linear", "factor": random.uniform(1.5, 4.0)},
    )[seed % 3]
    config = transformers.LlamaConfig(
        **sizes,
        attention_bias=seed % 4 == 1,
        mlp_bias=seed % 4 == 2,
        rope_parameters=_rotation(random) | scaling,
        tie_word_embeddings=seed % 2 == 0,
    )
    return _saved(transformers.LlamaForCausalLM(config), folder, seed)


def save_qwen2(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    config = transformers.Qwen2Config(
        **_sizes(random),
        rope_parameters=_rotation(random),
        tie_word_embeddings=seed % 2 == 1,
    )
    return _saved(transformers.Qwen2ForCausalLM(config), folder, seed)


def save_qwen3(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    config = transformers.Qwen3Config(
        **_sizes(random),
        head_dim=2 * random.randint(3, 9),
        attention_bias=seed % 2 == 0,
        rope_parameters=_rotation(random),
        tie_word_embeddings=seed % 2 == 1,
    )
    return _saved(transformers.Qwen3ForCausalLM(config), folder, seed)


def save_mistral(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    config = transformers.MistralConfig(
        **_sizes(random), **_window(random, seed), rope_parameters=_rotation(random)
    )
    return _saved(transformers.MistralForCausalLM(config), folder, seed)


def save_mixtral(folder: Path, seed: int) -> Reference:
    random = Random(seed)
    count = random.randint(3, 7)
    config = transformers.MixtralConfig(
        **_sizes(random),
        **_window(random, seed + 1),
        rope_parameters=_rotation(random),
        num_local_experts=count,
        num_experts_per_tok=random.randint(1, count - 1),
    )
    model = transformers.MixtralForCausalLM(config)
    model.set_experts_implementation(
        "eager"
    )  # the grouped one wants sizes that are multiples of 4
    return _saved(model, folder, seed)


FAMILIES = (
    Family("gpt1", "gpt1.arch", "transformers OpenAIGPTLMHeadModel", save_gpt1),
    Family("gpt2", "gpt2.arch", "transformers GPT2LMHeadModel", save_gpt2),
    Family("llama", "llama.arch", "transformers LlamaForCausalLM", save_llama),
    Family("qwen2", "qwen.arch", "transformers Qwen2ForCausalLM", save_qwen2),
    Family("qwen3", "qwen.arch", "transformers Qwen3ForCausalLM", save_qwen3),
    Family("mistral", "mistral.arch", "transformers MistralForCausalLM", save_mistral),
    Family("mixtral", "mistral.arch", "transformers MixtralForCausalLM", save_mixtral),
)


# -- sizes --


def _no_tokens() -> dict[str, None]:
    """Without the published numbers of special tokens, which a small vocabulary has not."""
    return {"bos_token_id": None, "eos_token_id": None}


def _gpt_sizes(random: Random) -> dict[str, Any]:
    heads = random.choice((3, 5, 7))
    return {
        "vocab_size": random.randint(50, 150),
        "n_positions": random.randint(20, 40),
        "n_embd": heads * random.randint(5, 9),
        "n_layer": 3,
        "n_head": heads,
        "layer_norm_epsilon": random.uniform(1e-6, 1e-2),
    }


def _sizes(random: Random) -> dict[str, Any]:
    """Those that all descendants of LLaMA have; a head has an even number of features."""
    kv_heads = random.randint(1, 3)
    heads = kv_heads * random.choice((3, 5))
    return {
        "vocab_size": random.randint(50, 150),
        "max_position_embeddings": random.randint(20, 40),
        "hidden_size": 2 * heads * random.randint(2, 4),
        "num_hidden_layers": 3,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": random.randint(40, 90),
        "rms_norm_eps": random.uniform(1e-6, 1e-2),
        **_no_tokens(),
    }


def _rotation(random: Random) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": random.uniform(100.0, 50_000.0)}


def _window(random: Random, seed: int) -> dict[str, Any]:
    """A window, for even seeds and always shorter than the sequence, and heads of any size."""
    return {
        "sliding_window": None if seed % 2 else random.randint(3, 8),
        "head_dim": 2 * random.randint(3, 9),
        "tie_word_embeddings": seed % 3 == 0,
    }


# -- weights and results --


def settled(model: Any, seed: int) -> Any:
    """The model with all weights drawn anew from a seed, and in evaluation mode.

    None is near what it is at first, so that a bias left out or a scale forgotten shows.
    """
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=random)
            if weight.ndim > 1:
                weight.copy_(noise * weight.shape[-1] ** -0.5)
            else:
                weight.copy_(0.3 * noise + (1.0 if name.endswith("weight") else 0.0))
    return model.eval()


def _saved(model: Any, folder: Path, seed: int, dtype: Any = None) -> Reference:
    """Saves a model and computes with it; its weights are numbers of `dtype`."""
    settled(model, seed)
    if dtype is not None:
        for weight in model.parameters():  # not the frequencies of rotary positions
            weight.data = weight.data.to(dtype).to(torch.float32)
    model.save_pretrained(folder)
    random = np.random.default_rng(seed)
    longest = int(random.integers(15, model.config.max_position_embeddings + 1))
    lengths = np.array([longest, *random.integers(1, longest, 2)])
    tokens = random.integers(0, model.config.vocab_size, (len(lengths), longest))
    return compared(model, tokens, lengths)


def compared(model: Any, tokens: Array, lengths: Array) -> Reference:
    """What a model of theirs makes of the first `lengths` [B] of tokens [B, T] in each row."""
    counts = np.arange(tokens.shape[1]) < lengths[:, None]
    given = {
        "input_ids": _in_front(tokens, counts),
        "attention_mask": _in_front(counts.astype(np.int64), counts),
        "position_ids": _in_front(np.cumsum(counts, axis=1) - 1, counts),
    }
    batch = {name: torch.from_numpy(array) for name, array in given.items()}
    with torch.no_grad():
        base = model.base_model
        hidden = (model.model if base is model else base)(**batch)[0].numpy()
        logits = model(**batch).logits.numpy()
    outputs = {"hidden": _behind(hidden, counts), "logits": _behind(logits, counts)}
    return Reference({"tokens": tokens}, outputs, counts)


def _in_front(rows: Array, counts: Array) -> Array:
    """Rows [B, T, …] with what counts moved to their ends, and 0 before it."""
    moved = np.zeros_like(rows)
    moved[counts[:, ::-1]] = rows[counts]
    return moved


def _behind(rows: Array, counts: Array) -> Array:
    """The same back."""
    moved = np.zeros_like(rows)
    moved[counts] = rows[counts[:, ::-1]]
    return moved
