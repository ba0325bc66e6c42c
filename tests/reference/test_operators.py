"""Operators against the functions of PyTorch and transformers that compute the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import archdsl
from archdsl.backend.positions import buckets, slopes
from tests.reference.agreement import apart
from tests.specs import used_only

Array = NDArray[Any]
RANDOM = np.random.default_rng(0)
TOLERANCE = 1e-5

transformers = pytest.mark.reference("torch", "transformers")


def normal(*shape: int) -> Array:
    return RANDOM.standard_normal(shape).astype(np.float32)


def run(folder: Path, lines: str, weights: dict[str, Any], **inputs: Array) -> Array:
    """The output `y` of a model of these lines."""
    text = used_only(f'use "blocks.arch"\n\nmodel M() {{\n{lines}\n}}')
    model = archdsl.compile(archdsl.parse(text))
    if weights:
        np.savez(folder / "weights.npz", **{n: w.detach().numpy() for n, w in weights.items()})
        model.load(folder / "weights.npz")
    return model(**inputs)["y"].numpy()


# -- positions --

ROPES = {
    "": {"rope_type": "default", "rope_theta": 10000.0},
    "500_000": {"rope_type": "default", "rope_theta": 500000.0},
    "linear, factor = 4": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    "100, llama3, factor = 8, low = 1, high = 4, original = 32": {
        "rope_type": "llama3",
        "rope_theta": 100.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
}


@transformers
@pytest.mark.parametrize("settings", ROPES)
def test_rotary_in_halves(settings: str, tmp_path: Path) -> None:
    import torch
    from transformers.models.llama import modeling_llama as llama

    config = llama.LlamaConfig(
        hidden_size=32,
        num_attention_heads=2,
        max_position_embeddings=128,
        rope_parameters=ROPES[settings],
    )
    x = normal(2, 100, 2, 16)
    positions = torch.arange(100)[None].expand(2, -1)
    cos, sin = llama.LlamaRotaryEmbedding(config)(torch.tensor(x), positions)
    q = torch.tensor(x).transpose(1, 2)
    right = llama.apply_rotary_pos_emb(q, q, cos, sin)[0].transpose(1, 2)
    ours = run(
        tmp_path,
        f"input x: float[T <= 128, 2, 16] output y: float[T, 2, 16] = x -> rotary({settings})",
        {},
        x=x,
    )
    assert apart(ours, right) < TOLERANCE


@transformers
@pytest.mark.parametrize("size", [16, 6])
def test_rotary_in_pairs(size: int, tmp_path: Path) -> None:
    import torch
    from transformers.models.gptj import modeling_gptj as gptj

    x = normal(2, 100, 2, 16)
    table = gptj.create_sinusoidal_positions(100, size)[None].expand(2, -1, -1)
    sin, cos = table.chunk(2, -1)
    right = gptj.apply_rotary_pos_emb(torch.tensor(x[..., :size]), sin, cos)
    right = np.concatenate([right.numpy(), x[..., size:]], -1)
    lines = """
        input x: float[T <= 128, 2, 16]
        output y: float[T, 2, 16] = x -> rotary(pairs, size = {})
    """
    assert apart(run(tmp_path, lines.format(size), {}, x=x), right) < TOLERANCE


@transformers
def test_sines_and_cosines_in_halves(tmp_path: Path) -> None:
    from transformers.models.marian import modeling_marian as marian

    table = marian.MarianSinusoidalPositionalEmbedding(40, 12)
    lines = """
        input x: float[T <= 40, 12]
        output y: float[T, 12] = x -> posenc(sinusoidal, halves)
    """
    zeros = np.zeros((1, 40, 12), np.float32)
    assert apart(run(tmp_path, lines, {}, x=zeros)[0], table.create_weight()) < TOLERANCE


@transformers
@pytest.mark.parametrize("heads", [1, 2, 3, 8, 12, 20, 40])
def test_slopes_of_alibi(heads: int) -> None:
    import torch
    from transformers.models.bloom import modeling_bloom as bloom

    right = bloom.build_alibi_tensor(torch.ones(1, 2), heads, torch.float32)[:, 0, 1]
    assert apart(slopes(heads), right) < TOLERANCE


@transformers
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("count", "distance"), [(32, 128), (8, 20), (64, 1000), (16, 256)])
def test_buckets_of_distances(count: int, distance: int, causal: bool) -> None:
    import torch
    from transformers.models.t5.modeling_t5 import T5Attention

    right = T5Attention._relative_position_bucket(
        torch.arange(-1023, 1024), not causal, count, distance
    )
    assert buckets(1024, count, distance, causal).tolist() == right.tolist()


@transformers
@pytest.mark.parametrize("causal", [False, True])
def test_relative_bias(causal: bool, tmp_path: Path) -> None:
    from transformers.models.t5 import modeling_t5 as t5

    config = t5.T5Config(
        d_model=12,
        d_kv=4,
        num_heads=3,
        is_decoder=causal,
        relative_attention_num_buckets=16,
        relative_attention_max_distance=30,
    )
    theirs = t5.T5Attention(config, has_relative_attention_bias=True, layer_idx=0)
    right = theirs.compute_bias(50, 50).expand(2, -1, -1, -1)
    lines = f"""
        input x: float[T <= 64, 12]
        output y: float[3, T, T] =
          x -> relative_bias(3, 16, 30, causal = {str(causal).lower()})
    """
    weights = {"relative_bias.weight": theirs.relative_attention_bias.weight}
    assert apart(run(tmp_path, lines, weights, x=normal(2, 50, 12)), right.detach()) == 0


# -- products --


@transformers
@pytest.mark.parametrize(("count", "top"), [(5, 2), (8, 1), (3, 3)])
def test_experts(count: int, top: int, tmp_path: Path) -> None:
    import torch
    from transformers.models.mixtral import modeling_mixtral as mixtral

    config = mixtral.MixtralConfig(
        hidden_size=12,
        intermediate_size=20,
        num_local_experts=count,
        num_experts_per_tok=top,
        experts_implementation="eager",
    )
    theirs = mixtral.MixtralSparseMoeBlock(config)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, generator=torch.manual_seed(count))
    weights = {"mixture_mlp.router.weight": theirs.gate.weight}
    for i in range(count):
        gate, up = theirs.experts.gate_up_proj[i].chunk(2)
        parts = {"gate": gate, "up": up, "down": theirs.experts.down_proj[i]}
        weights |= {
            f"mixture_mlp.experts.{i}.{name}.weight": part for name, part in parts.items()
        }
    x = normal(2, 7, 12)
    right = theirs(torch.tensor(x)).detach()
    lines = f"""
        input x: float[T <= 9, 12]
        output y: float[T, 12] = x -> mixture_mlp({count}, {top}, 20)
    """
    assert apart(run(tmp_path, lines, weights, x=x), right) < TOLERANCE


@pytest.mark.reference("torch")
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (4, 3, 0), (1, 1, 0), (5, 2, 4)]
)
def test_conv1d(kernel: int, stride: int, padding: int, tmp_path: Path) -> None:
    import torch

    theirs = torch.nn.Conv1d(6, 10, kernel, stride, padding)
    x = normal(2, 13, 6)
    right = theirs(torch.tensor(x).transpose(1, 2)).transpose(1, 2).detach()
    lines = f"""
        input x: float[{kernel} <= T <= 13, 6]
        output y: float[(T + {2 * padding} - {kernel}) // {stride} + 1, 10] =
          x -> conv1d(10, {kernel}, {stride}, {padding})
    """
    weights = {f"conv1d.{name}": weight for name, weight in theirs.named_parameters()}
    assert apart(run(tmp_path, lines, weights, x=x), right) < TOLERANCE
