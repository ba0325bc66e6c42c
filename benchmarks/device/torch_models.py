"""The same models in plain PyTorch, for machines without transformers: eager with attention
written out, with its fused attention (SDPA), and compiled."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from archdsl.analysis import analyse
from benchmarks.device.fast import _STEPS, timed
from benchmarks.device.limits import synchronize
from benchmarks.device.runner import Line
from benchmarks.device.sizes import Sizes


def parameters_of(size: Sizes) -> dict[str, Any]:
    """The parameters of a spec's model, by name, with its variant's and these settings."""
    names = analyse(size.spec, settings=size.settings).env.names
    return {name: getattr(value, "value", None) for name, value in names.items()}


class RMSNorm(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        return (wide * (wide.pow(2).mean(-1, keepdim=True) + 1e-5).rsqrt()).to(x) * self.weight


class Layer(nn.Module):
    """A pre-norm layer: LayerNorm and GELU, or RMS norm, rotary positions and a gated MLP."""

    def __init__(self, p: dict[str, Any], llama: bool, fused: bool, causal: bool):
        super().__init__()
        width, self.heads, self.fused, self.causal = p["D"], p["heads"], fused, causal
        self.kv_heads = p.get("kv_heads", self.heads)
        self.size = width // self.heads
        norm = RMSNorm if llama else nn.LayerNorm
        self.norm_1, self.norm_2 = norm(width), norm(width)
        inner = p.get("inner") or 4 * width
        out = (self.heads + 2 * self.kv_heads) * self.size
        self.qkv, self.out = (
            nn.Linear(width, out, not llama),
            nn.Linear(width, width, not llama),
        )
        self.up, self.down = (
            nn.Linear(width, inner, not llama),
            nn.Linear(inner, width, not llama),
        )
        self.gate = nn.Linear(width, inner, False) if llama else None

    def forward(
        self, x: torch.Tensor, past: int, cache: torch.Tensor | None, turn: torch.Tensor | None
    ) -> torch.Tensor:
        x = x + self.out(self.attend(self.norm_1(x), past, cache, turn))
        y = self.norm_2(x)
        hidden = F.silu(self.gate(y)) * self.up(y) if self.gate else F.gelu(self.up(y))
        return x + self.down(hidden)

    def attend(
        self, x: torch.Tensor, past: int, cache: torch.Tensor | None, turn: torch.Tensor | None
    ) -> torch.Tensor:
        rows, n, _ = x.shape
        parts = [self.heads, self.kv_heads, self.kv_heads]
        qkv = self.qkv(x).view(rows, n, -1, self.size).transpose(1, 2)
        q, k, v = qkv.split(parts, dim=1)
        if turn is not None:
            q, k = rotate(q, turn[:, past : past + n]), rotate(k, turn[:, past : past + n])
        if cache is not None:  # [2, rows, heads, positions, size]
            cache[0, :, :, past : past + n] = k
            cache[1, :, :, past : past + n] = v
            k, v = cache[:, :, :, : past + n]
        if self.kv_heads < self.heads:
            k, v = (
                each.repeat_interleave(self.heads // self.kv_heads, dim=1) for each in (k, v)
            )
        causal = self.causal and n > 1
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        else:
            scores = q @ k.transpose(-1, -2) / math.sqrt(self.size)
            if causal:
                hidden = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
                scores = scores.masked_fill(hidden, -math.inf)
            y = scores.float().softmax(-1).to(v) @ v
        return y.transpose(1, 2).reshape(rows, n, -1)


def rotate(x: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, -1)
    cos, sin = turn
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Network(nn.Module):
    """A decoder of tokens, or an encoder of images."""

    def __init__(self, size: Sizes, way: str):
        super().__init__()
        p = parameters_of(size)
        fused = way != "eager"
        self.llama, self.vocab = "kv_heads" in p, p.get("vocab")
        width, self.head_size = p["D"], p["D"] // p["heads"]
        self.patch = p.get("patch", 0)
        if self.patch:
            self.embed: nn.Module = nn.Conv2d(3, width, self.patch, self.patch)
            places = (p["image"] // self.patch) ** 2
        else:
            self.embed, places = nn.Embedding(self.vocab, width), p["context"]
        self.places = nn.Embedding(places, width)
        self.layers = nn.ModuleList(
            Layer(p, self.llama, fused, not self.patch) for _ in range(p["depth"])
        )
        self.norm = RMSNorm(width) if self.llama else nn.LayerNorm(width)
        self.head = nn.Linear(width, p["classes"] if self.patch else self.vocab, False)
        self.shape = (p["depth"], p.get("kv_heads", p["heads"]), self.head_size)

    def forward(
        self,
        x: torch.Tensor,
        past: int = 0,
        caches: torch.Tensor | None = None,
        turn: torch.Tensor | None = None,
        last: bool = True,
    ) -> torch.Tensor:
        y = self.embed(x)
        if self.patch:
            y = y.flatten(2).transpose(1, 2) + self.places.weight
        elif not self.llama:
            y = y + self.places.weight[past : past + x.shape[1]]
        for i, layer in enumerate(self.layers):
            y = layer(y, past, None if caches is None else caches[i], turn)
        return self.head(self.norm(y[:, -1:] if last else y))


_built: dict[tuple[str, ...], tuple[Network, Any]] = {}


def built(size: Sizes, way: str, name: str, dtype: str) -> tuple[Network, Any]:
    """The model of this process, and the function to call."""
    key = (size.title, way, name, dtype)
    if key not in _built:
        _built[key] = _build(size, way, name, dtype)
    return _built[key]


def _build(size: Sizes, way: str, name: str, dtype: str) -> tuple[Network, Any]:
    with torch.device(name):
        model = Network(size, way).to(getattr(torch, dtype))
    return model, torch.compile(model) if way == "compiled" else model


def angles(model: Network, length: int, like: torch.Tensor) -> torch.Tensor | None:
    if not model.llama:
        return None
    rates = 10000.0 ** (-torch.arange(0, model.head_size, 2) / model.head_size)
    angles = torch.arange(length)[:, None] * rates
    return torch.stack((angles.cos(), angles.sin())).to(like)


@torch.no_grad()
def prefill(size: Sizes, dtype: str, length: int, rows: int, name: str, way: str) -> Line:
    _, call = built(size, way, name, dtype)
    given = prompt(size, way, name, dtype, length, rows)

    def once() -> None:
        call(given[0], 0, *given[1:])
        synchronize(name)

    first, seconds = timed(once)
    found = {"model": size.title, "prefill_seconds": seconds}
    found["tokens_per_second"] = rows * length / seconds
    return {**found, "first_seconds": first, **memory(name)}


@torch.no_grad()
def step(size: Sizes, dtype: str, length: int, rows: int, name: str, way: str) -> Line:
    model, _ = built(size, way, name, dtype)
    tokens, *given = prompt(size, way, name, dtype, length, rows)

    def steps() -> None:
        for i in range(_STEPS):
            model(tokens[:, :1], length + i, *given).argmax(-1).cpu()

    first, many = timed(steps)
    found = {"model": size.title, "step_seconds": many / _STEPS}
    found["tokens_per_second"] = rows * _STEPS / many
    return {**found, "first_seconds": first, **memory(name)}


def prompt(
    size: Sizes, way: str, name: str, dtype: str, length: int, rows: int
) -> tuple[Any, ...]:
    """Tokens, caches and angles."""
    model, _ = built(size, way, name, dtype)
    depth, heads, width = model.shape
    like = next(model.parameters())
    caches = torch.zeros(depth, 2, rows, heads, length + _STEPS, width).to(like)
    tokens = torch.randint(8, 900, (rows, length), device=name)
    return tokens, caches, angles(model, length + _STEPS, like)


@torch.no_grad()
def images(size: Sizes, dtype: str, rows: int, name: str, way: str) -> Line:
    model, call = built(size, way, name, dtype)
    image = parameters_of(size)["image"]
    pixels = torch.rand(rows, 3, image, image).to(next(model.parameters()))

    def once() -> None:
        call(pixels)
        synchronize(name)

    first, seconds = timed(once)
    found = {"model": size.title, "seconds": seconds, "per_second": rows / seconds}
    return {**found, "first_seconds": first, **memory(name)}


def training(size: Sizes, dtype: str, name: str, way: str) -> Line:
    model, call = built(size, way, name, dtype)
    rows, length = size.rows[0], size.lengths[0]
    tokens = torch.randint(8, model.vocab, (rows, length), device=name)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.01)

    def once() -> None:
        optimizer.zero_grad()
        logits = call(tokens, last=False)[:, :-1].float()
        F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        optimizer.step()
        synchronize(name)

    first, seconds = timed(once)
    found = {"model": size.title, "step_seconds": seconds}
    found["tokens_per_second"] = rows * length / seconds
    return {**found, "first_seconds": first, **memory(name)}


def memory(name: str) -> Line:
    return {"peak_bytes": torch.cuda.max_memory_allocated()} if name == "cuda" else {}
