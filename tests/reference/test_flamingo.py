"""Flamingo beside a module written from Alayrac et al. 2022, figures 4 and 5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import archdsl
from tests.reference.agreement import TOLERANCE, apart
from tests.reference.families import Reference, stepped

torch = pytest.importorskip("torch", reason="torch is not installed; CONTRIBUTING.md says how")
from torch import nn  # noqa: E402  # torch may be missing
from torch.nn import functional as F  # noqa: E402

from tests.reference.torch_models import settled  # noqa: E402


class Attention(nn.Module):
    def __init__(self, width: int, over: int, heads: int, size: int, bias: bool = False):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, heads * size, bias)
        self.k, self.v = (nn.Linear(over, heads * size, bias) for _ in range(2))
        self.out = nn.Linear(heads * size, width, bias)

    def forward(self, x: Any, over: Any, causal: bool = False) -> Any:
        parts = self.q(x), self.k(over), self.v(over)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return self.out(mixed.transpose(1, 2).flatten(2))


class SquaredMlp(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Any) -> Any:
        return self.down(F.relu(self.up(x)) ** 2)


class ResamplerLayer(nn.Module):
    def __init__(self, width: int, heads: int, size: int):
        super().__init__()
        self.norm, self.features_norm, self.mlp_norm = (nn.LayerNorm(width) for _ in range(3))
        self.attention = Attention(width, width, heads, size)
        self.mlp = SquaredMlp(width)

    def forward(self, x: Any, features: Any) -> Any:
        y = self.norm(x)
        x = x + self.attention(y, torch.cat([self.features_norm(features), y], 1))
        return x + self.mlp(self.mlp_norm(x))


class Resampler(nn.Module):
    def __init__(self, sizes: dict[str, int]):
        super().__init__()
        width = sizes["vision_D"]
        self.latents = nn.Parameter(torch.empty(sizes["count"], width))
        self.times = nn.Parameter(torch.empty(sizes["frames"], width))
        self.layer = nn.ModuleList(
            ResamplerLayer(width, sizes["vision_heads"], sizes["head_size"])
            for _ in range(sizes["vision_depth"])
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, features: Any) -> Any:
        seen = (features + self.times[:, None]).flatten(1, 2)
        x = self.latents.expand(len(features), -1, -1)
        for layer in self.layer:
            x = layer(x, seen)
        return self.norm(x)


class Gated(nn.Module):
    def __init__(self, width: int, over: int, heads: int, size: int):
        super().__init__()
        self.read_gate, self.mlp_gate = (nn.Parameter(torch.zeros(())) for _ in range(2))
        self.norm, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, over, heads, size)
        self.mlp = SquaredMlp(width)

    def forward(self, y: Any, x: Any) -> Any:
        y = y + torch.tanh(self.read_gate) * self.attention(self.norm(y), x)
        return y + torch.tanh(self.mlp_gate) * self.mlp(self.norm_2(y))


class Text(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, width, heads, width // heads, bias=True)
        self.mlp = nn.ModuleList([nn.Linear(width, 4 * width), nn.Linear(4 * width, width)])

    def forward(self, x: Any) -> Any:
        y = self.norm(x)
        x = x + self.attention(y, y, causal=True)
        return x + self.mlp[1](F.gelu(self.mlp[0](self.norm_2(x))))


class Flamingo(nn.Module):
    def __init__(self, sizes: dict[str, int]):
        super().__init__()
        width, over, heads = sizes["D"], sizes["vision_D"], sizes["heads"]
        self.embed = nn.Embedding(sizes["vocab"], width)
        self.posenc = nn.Embedding(sizes["context"], width)
        self.resampler = Resampler(sizes)
        self.h = nn.ModuleList(nn.Module() for _ in range(sizes["depth"]))
        for i, layer in enumerate(self.h):
            if i % sizes["every"] == 0:
                layer.read = Gated(width, over, heads, sizes["head_size"])
            layer.text = Text(width, heads)
        self.norm = nn.LayerNorm(width)

    def forward(self, features: Any, tokens: Any) -> Any:
        memory = self.resampler(features)
        y = self.embed(tokens) + self.posenc.weight[: tokens.shape[1]]
        for layer in self.h:
            y = layer.text(layer.read(y, memory) if hasattr(layer, "read") else y)
        return self.norm(y) @ self.embed.weight.T


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_whole_and_in_steps(tmp_path: Path, seed: int) -> None:
    heads, random = (3, 2, 5)[seed], np.random.default_rng(seed)
    sizes = {"frames": 1 + seed, "length": 5, "vision_D": 12, "vision_heads": 3}
    sizes |= {"vision_depth": 2, "count": 4, "vocab": 31, "context": 20, "D": 4 * heads}
    sizes |= {"heads": heads, "head_size": 3, "depth": 3, "every": 1 + seed % 2}
    theirs = settled(Flamingo(sizes), seed)
    torch.save(theirs.state_dict(), tmp_path / "flamingo.pt")
    features = random.standard_normal((2, 1 + seed, 5, 12), np.float32)
    tokens = random.integers(0, 31, (2, 17))
    with torch.no_grad():
        logits = theirs(torch.from_numpy(features), torch.from_numpy(tokens)).numpy()
    ours = archdsl.compile("flamingo.arch", device="CPU", **sizes)
    ours.load(tmp_path / "flamingo.pt")
    found = ours(features=features, tokens=tokens)["logits"].numpy()
    assert apart(found, logits) <= TOLERANCE
    given = Reference({"features": features, "tokens": tokens}, {"logits": logits})
    assert apart(stepped(ours, given), logits) <= TOLERANCE


@pytest.mark.slow
def test_gates_start_closed() -> None:
    """A new model has the logits of its language model, whatever it sees."""
    sizes = {"length": 3, "vision_D": 4, "vision_heads": 1, "vision_depth": 1, "frames": 1}
    sizes |= {"count": 2, "vocab": 9, "context": 5, "D": 4, "heads": 1, "depth": 1}
    model = archdsl.compile("flamingo.arch", device="CPU", **sizes)
    random, tokens = np.random.default_rng(0), np.array([[3, 1, 4]])
    one, two = (
        model(features=random.standard_normal((1, 1, 3, 4)), tokens=tokens)["logits"].numpy()
        for _ in range(2)
    )
    assert (one == two).all()
