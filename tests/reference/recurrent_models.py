"""Models with states, written from their papers with plain loops over the positions.

Their weights have the names of published checkpoints, those of flash-linear-attention.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; CONTRIBUTING.md says how")
from torch import nn  # noqa: E402  # torch may be missing
from torch.nn import functional as F  # noqa: E402


def linear(into: int, out: int) -> Any:
    return nn.Linear(into, out, bias=False)


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Any) -> Any:
        return self.weight * x / (x.square().mean(-1, keepdim=True) + self.eps).sqrt()


class GatedMLP(nn.Module):
    def __init__(self, width: int, inner: int):
        super().__init__()
        self.gate_proj, self.up_proj = linear(width, inner), linear(width, inner)
        self.down_proj = linear(inner, width)

    def forward(self, x: Any) -> Any:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, mixer: nn.Module, mlp: nn.Module, norm: Callable[[], nn.Module]):
        super().__init__()
        self.attn_norm, self.attn, self.mlp_norm, self.mlp = norm(), mixer, norm(), mlp

    def forward(self, x: Any) -> Any:
        x = x + self.attn(self.attn_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class Body(nn.Module):
    def __init__(self, vocab: int, width: int, layers: Any, norm: nn.Module):
        super().__init__()
        self.embeddings, self.layers = nn.Embedding(vocab, width), nn.ModuleList(layers)
        self.norm = norm

    def forward(self, tokens: Any) -> Any:
        x = self.embeddings(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)


class Decoder(nn.Module):
    def __init__(self, body: Any, tied: bool = False):
        super().__init__()
        vocab, width = body.embeddings.weight.shape
        self.model = body
        if not tied:
            self.lm_head = linear(width, vocab)

    def forward(self, tokens: Any) -> dict[str, Any]:
        hidden = self.model(tokens)
        head = self.lm_head if hasattr(self, "lm_head") else self.model.embeddings
        return {"hidden": hidden, "logits": hidden @ head.weight.T}


# -- RetNet: Sun et al. 2023, section 2 --


class Retention(nn.Module):
    """`norm`: of each head, [V]."""

    def __init__(self, width: int, heads: int, keys: int, values: int, norm: nn.Module):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj = linear(width, keys), linear(width, keys)
        self.v_proj, self.g_proj = linear(width, values), linear(width, values)
        self.o_proj, self.g_norm_swish_gate = linear(values, width), norm

    def forward(self, x: Any) -> Any:
        q, k, v = (
            p(x).unflatten(-1, (self.heads, -1))
            for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        size = q.shape[-1]
        angles = 10000.0 ** (-torch.arange(size // 2) / (size // 2))
        decays = 1 - 2.0 ** (-5 - torch.arange(self.heads))
        state, found = torch.zeros(*k[:, 0].shape, v.shape[-1]), []
        for n in range(x.shape[1]):
            turn = torch.polar(torch.ones(size // 2), n * angles)
            q_n, k_n = turned(q[:, n], turn), turned(k[:, n], turn)
            state = decays[:, None, None] * state + k_n[..., None] * v[:, n, :, None]
            found.append((q_n[..., None] * state).sum(-2) / size**0.5)
        y = self.g_norm_swish_gate(torch.stack(found, 1)).flatten(2)
        return self.o_proj(F.silu(self.g_proj(x)) * y)


def turned(x: Any, turn: Any) -> Any:
    """Features x [..., K], one of each half being a number."""
    first, second = x.chunk(2, -1)
    numbers = torch.complex(first, second) * turn
    return torch.cat([numbers.real, numbers.imag], -1)


# -- Gated DeltaNet: Yang, Kautz and Hatamizadeh 2024, equation 10 --


class GatedDelta(nn.Module):
    def __init__(
        self,
        width: int,
        heads: int,
        value_heads: int,
        key: int,
        value: int,
        kernel: int,
        gated: bool,
        negative: bool,
        eps: float,
    ):
        super().__init__()
        self.heads, self.value_heads, self.negative = heads, value_heads, negative
        sizes = {"q": heads * key, "k": heads * key, "v": value_heads * value}
        for name, size in sizes.items():
            self.add_module(f"{name}_proj", linear(width, size))
            convolution = nn.Conv1d(size, size, kernel, groups=size, bias=False)
            self.add_module(f"{name}_conv1d", convolution)
        self.a_proj, self.b_proj = linear(width, value_heads), linear(width, value_heads)
        self.A_log = nn.Parameter(torch.zeros(value_heads))
        self.dt_bias = nn.Parameter(torch.zeros(value_heads))
        self.g_proj = linear(width, value_heads * value) if gated else None
        self.o_norm = RMSNorm(value, eps)
        self.o_proj = linear(value_heads * value, width)

    def part(self, name: str, x: Any, heads: int) -> Any:
        convolution = getattr(self, f"{name}_conv1d")
        y = getattr(self, f"{name}_proj")(x).transpose(1, 2)
        y = convolution(F.pad(y, (convolution.kernel_size[0] - 1, 0))).transpose(1, 2)
        return F.silu(y).unflatten(-1, (heads, -1))

    def forward(self, x: Any) -> Any:
        q, k = (self.part(name, x, self.heads) for name in "qk")
        v = self.part("v", x, self.value_heads)
        q, k = (z / (z.square().sum(-1, keepdim=True) + 1e-6).sqrt() for z in (q, k))
        q, k = (z.repeat_interleave(self.value_heads // self.heads, 2) for z in (q, k))
        alpha = torch.exp(-self.A_log.exp() * F.softplus(self.a_proj(x) + self.dt_bias))
        beta = torch.sigmoid(self.b_proj(x)) * (2 if self.negative else 1)
        size = k.shape[-1]
        state, found = torch.zeros(*v[:, 0].shape, size), []  # S of the paper, [V, K]
        for t in range(x.shape[1]):
            k_t, b_t, a_t = k[:, t], beta[:, t, :, None, None], alpha[:, t, :, None, None]
            erased = torch.eye(size) - b_t * k_t[..., :, None] * k_t[..., None, :]
            state = a_t * state @ erased + b_t * v[:, t, ..., :, None] * k_t[..., None, :]
            found.append((state @ q[:, t, ..., None])[..., 0] * size**-0.5)
        y = self.o_norm(torch.stack(found, 1)).flatten(2)
        return self.o_proj(y if self.g_proj is None else y * F.silu(self.g_proj(x)))


# -- RWKV-7: Peng et al. 2025, section 4 --


class LowRank(nn.Module):
    def __init__(self, width: int, rank: int, act: Any = None, bias: bool = True):
        super().__init__()
        up = nn.Linear(rank, width, bias)
        self.lora = nn.Sequential(linear(width, rank), act or nn.Identity(), up)

    def forward(self, x: Any) -> Any:
        return self.lora(x)


def before(x: Any) -> Any:
    """x [B, T, D], one position earlier."""
    return F.pad(x, (0, 0, 1, 0))[:, :-1]


class TimeMix(nn.Module):
    def __init__(self, width: int, size: int, ranks: dict[str, int], first: bool, eps: float):
        super().__init__()
        self.heads, self.first = width // size, first
        for name in "rwkvag":
            self.register_parameter(f"x_{name}", nn.Parameter(torch.zeros(1, 1, width)))
        self.k_k, self.k_a = (nn.Parameter(torch.ones(width)) for _ in range(2))
        self.r_k = nn.Parameter(torch.ones(self.heads, size))
        for name in "rkvo":
            self.add_module(f"{name}_proj", linear(width, width))
        self.w_lora = LowRank(width, ranks["w"], nn.Tanh())
        self.a_lora = LowRank(width, ranks["a"])
        self.g_lora = LowRank(width, ranks["g"], nn.Sigmoid(), bias=False)
        if not first:
            self.v_lora = LowRank(width, ranks["v"])
        self.g_norm = nn.GroupNorm(self.heads, width, size * eps)

    def mixed(self, name: str, x: Any) -> Any:
        return torch.lerp(x, before(x), getattr(self, f"x_{name}"))

    def forward(self, x: Any, v_first: Any) -> tuple[Any, Any]:
        r, w, k, v, a, g = (self.mixed(name, x) for name in "rwkvag")
        own = self.v_proj(v)
        v_first = own if self.first else v_first
        value = own if self.first else own.lerp(v_first, torch.sigmoid(self.v_lora(v)))
        decay = torch.exp(-torch.exp(torch.tensor(-0.5)) * torch.sigmoid(self.w_lora(w)))
        rate, gate, key = torch.sigmoid(self.a_lora(a)), self.g_lora(g), self.k_proj(k)
        removed = key * self.k_k
        key = key * torch.lerp(torch.ones_like(rate), rate, self.k_a)
        r, decay, key, value, rate, removed = (
            z.unflatten(-1, (self.heads, -1))
            for z in (self.r_proj(r), decay, key, value, rate, removed)
        )
        removed = F.normalize(removed, dim=-1)
        size, found = key.shape[-1], []
        state = torch.zeros(*key[:, 0].shape, size)  # wkv of the paper, [V, K]
        for t in range(x.shape[1]):
            at = removed[:, t]
            change = (
                torch.diag_embed(decay[:, t])
                - at[..., :, None] * (rate[:, t] * at)[..., None, :]
            )
            state = state @ change + value[:, t, ..., :, None] * key[:, t, ..., None, :]
            found.append((state @ r[:, t, ..., None])[..., 0])
        y = self.g_norm(torch.stack(found, 1).flatten(0, 1).flatten(1)).unflatten(
            0, x.shape[:2]
        )
        bonus = (r * key * self.r_k).sum(-1, keepdim=True) * value
        return self.o_proj((y + bonus.flatten(2)) * gate), v_first


class ChannelMix(nn.Module):
    def __init__(self, width: int, inner: int):
        super().__init__()
        self.x_k = nn.Parameter(torch.zeros(width))
        self.key, self.value = linear(width, inner), linear(inner, width)

    def forward(self, x: Any) -> Any:
        return self.value(F.relu(self.key(torch.lerp(x, before(x), self.x_k))).square())


class RwkvLayer(nn.Module):
    def __init__(self, width: int, mix: TimeMix, feed: ChannelMix, eps: float):
        super().__init__()
        if mix.first:
            self.pre_norm = nn.LayerNorm(width, eps)
        self.attn_norm, self.attn = nn.LayerNorm(width, eps), mix
        self.ffn_norm, self.ffn = nn.LayerNorm(width, eps), feed

    def forward(self, x: Any, v_first: Any) -> tuple[Any, Any]:
        x = self.pre_norm(x) if self.attn.first else x
        mixed, v_first = self.attn(self.attn_norm(x), v_first)
        x = x + mixed
        return x + self.ffn(self.ffn_norm(x)), v_first


class RwkvBody(Body):
    def forward(self, tokens: Any) -> Any:
        x, v_first = self.embeddings(tokens), None
        for layer in self.layers:
            x, v_first = layer(x, v_first)
        return self.norm(x)
