"""Transformer-XL beside a module written from Dai et al. 2019, section 3.

The module reads a text in segments and gives each layer the states of the layer below from the
segment before; ours sees as far back without segments.
"""

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


def encoding(distance: int, width: int) -> Any:
    """R of a distance: sines, then cosines, as in the authors' code."""
    angles = distance * 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    return torch.cat([angles.sin(), angles.cos()]).float()


class Layer(nn.Module):
    def __init__(self, width: int, heads: int, size: int, inner: int):
        super().__init__()
        self.heads, self.size = heads, size
        self.query, self.key, self.value, self.place = (
            nn.Linear(width, heads * size, bias=False) for _ in range(4)
        )
        self.out = nn.Linear(heads * size, width, bias=False)
        self.norm, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def split(self, x: Any) -> Any:
        return x.unflatten(-1, (self.heads, self.size))

    def forward(self, h: Any, memory: Any, u: Any, v: Any, longest: int) -> Any:
        seen = torch.cat([memory, h], 1)  # [B, M + L, D]
        q, k, value = (
            self.split(self.query(h)),
            self.split(self.key(seen)),
            self.split(self.value(seen)),
        )
        scores = torch.full((len(h), self.heads, h.shape[1], seen.shape[1]), -torch.inf)
        for i in range(h.shape[1]):
            for j in range(seen.shape[1]):
                distance = memory.shape[1] + i - j
                if 0 <= distance < longest:
                    r = self.split(self.place(encoding(distance, h.shape[-1])))
                    found = ((q[:, i] + u) * k[:, j]).sum(-1) + ((q[:, i] + v) * r).sum(-1)
                    scores[:, :, i, j] = found / self.size**0.5
        mixed = torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), value).flatten(2)
        h = self.norm(h + self.out(mixed))
        return self.norm_2(h + self.down(F.relu(self.up(h))))


class TransformerXL(nn.Module):
    def __init__(self, vocab: int, width: int, heads: int, size: int, inner: int, memory: int):
        super().__init__()
        self.memory = memory
        self.embed = nn.Embedding(vocab, width)
        self.layers = nn.ModuleList(Layer(width, heads, size, inner) for _ in range(3))
        self.u, self.v = (nn.Parameter(torch.zeros(heads, size)) for _ in range(2))
        self.bias = nn.Parameter(torch.zeros(vocab))

    def forward(self, segments: Any) -> Any:
        """The logits of the segments of a text, one after the other."""
        width = self.embed.weight.shape[1]
        memories = [torch.zeros(len(segments[0]), 0, width) for _ in self.layers]
        found = []
        for tokens in segments:
            h = self.embed(tokens) * width**0.5
            for n, layer in enumerate(self.layers):
                below = h
                h = layer(h, memories[n], self.u, self.v, self.memory)
                memories[n] = torch.cat([memories[n], below], 1)[:, -self.memory :]
            found.append(h @ self.embed.weight.T + self.bias)
        return torch.cat(found, 1)


def renamed(model: Any) -> dict[str, Any]:
    weights = {"u": model.u, "v": model.v, "bias.weight": model.bias}
    weights["embed.weight"] = model.embed.weight
    for i, layer in enumerate(model.layers):
        parts = (layer.query.weight, layer.key.weight, layer.value.weight)
        place = layer.place.weight.unflatten(0, (layer.heads, layer.size))
        found = {"attention.qkv.weight": torch.cat(parts), "attention.r": place}
        found["attention.out.weight"] = layer.out.weight
        ours = {"norm": "norm", "norm_2": "norm_2", "mlp.0": "up", "mlp.1": "down"}
        for name, theirs in ours.items():
            for part in ("weight", "bias"):
                found[f"{name}.{part}"] = getattr(getattr(layer, theirs), part)
        weights |= {f"h.{i}.{name}": weight for name, weight in found.items()}
    return {name: weight.detach() for name, weight in weights.items()}


@pytest.mark.slow
@pytest.mark.reference("torch")
@pytest.mark.parametrize("seed", range(3))
def test_segments_with_memories_are_one_text(seed: int, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    heads, size, memory = (int(random.integers(2, n)) for n in (5, 9, 9))
    sizes = {"vocab": 50 + seed, "D": 2 * int(random.integers(4, 12)), "heads": heads}
    sizes |= {"size": size, "inner": 21, "memory": memory}
    theirs = settled(TransformerXL(sizes["vocab"], sizes["D"], heads, size, 21, memory), seed)
    tokens = random.integers(0, sizes["vocab"], (2, 30))
    length = (memory, memory + 3, 2)[seed]
    with torch.no_grad():
        right = theirs(torch.from_numpy(tokens).split(length, 1)).numpy()
    ours = archdsl.compile("transformer_xl.arch", device="CPU", depth=3, **sizes)
    torch.save(renamed(theirs), tmp_path / "xl.pt")
    ours.load(tmp_path / "xl.pt")
    found = ours(tokens=tokens)["logits"].numpy()
    assert apart(found, right) <= TOLERANCE
    steps = stepped(ours, Reference({"tokens": tokens}, {"logits": right}))
    assert apart(steps, right) <= TOLERANCE
