"""Specs beside PyTorch modules written from the papers, whose state dicts they read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import archdsl
from tests.reference.agreement import apart

torch = pytest.importorskip("torch", reason="torch is not installed; CONTRIBUTING.md says how")
from torch import nn  # noqa: E402  # torch may be missing
from torch.nn import functional as F  # noqa: E402

TOLERANCE = 1e-4
SEEDS = [
    pytest.param(0, marks=pytest.mark.long),
    *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2)),
]


def drawn(model: Any, seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            spread = weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.3
            weight.copy_(spread * torch.randn(weight.shape, generator=generator))
    return model.eval()


def attended(q: Any, k: Any, v: Any, heads: int) -> Any:
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


# -- DiT: Peebles and Xie 2022, section 3.2 --


class Attn(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Any) -> Any:
        return self.proj(attended(*self.qkv(x).chunk(3, -1), self.heads))


class DitBlock(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attn = Attn(width, heads)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)}
        )
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Any, c: Any) -> Any:
        b1, s1, g1, b2, s2, g2 = self.adaLN_modulation(c)[:, None].chunk(6, -1)
        plain = nn.LayerNorm(x.shape[-1], 1e-6, elementwise_affine=False)
        x = x + g1 * self.attn(plain(x) * (1 + s1) + b1)
        hidden = F.gelu(self.mlp["fc1"](plain(x) * (1 + s2) + b2), approximate="tanh")
        return x + g2 * self.mlp["fc2"](hidden)


class Dit(nn.Module):
    def __init__(self, image: int, patch: int, classes: int, width: int, heads: int):
        super().__init__()
        self.image, self.patch, self.width = image, patch, width
        self.x_embedder = nn.ModuleDict({"proj": nn.Conv2d(4, width, patch, patch)})
        mlp = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.t_embedder = nn.ModuleDict({"mlp": mlp})
        table = nn.Embedding(classes + 1, width)
        self.y_embedder = nn.ModuleDict({"embedding_table": table})
        self.blocks = nn.ModuleList(DitBlock(width, heads) for _ in range(2))
        self.final_layer = nn.ModuleDict(
            {
                "linear": nn.Linear(width, patch * patch * 8),
                "adaLN_modulation": nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width)),
            }
        )

    def waves(self, at: Any, width: int) -> tuple[Any, Any]:
        rates = torch.exp(-math.log(10000) * torch.arange(width // 2) / (width // 2))
        angles = at.float()[:, None] * rates
        return torch.sin(angles), torch.cos(angles)

    def forward(self, x: Any, step: Any, label: Any) -> Any:
        side, patch = self.image // self.patch, self.patch
        sines, cosines = self.waves(step, 256)
        c = self.t_embedder["mlp"](torch.cat([cosines, sines], -1))
        c = c + self.y_embedder["embedding_table"](label)
        at = torch.arange(side * side)
        halves = (*self.waves(at % side, self.width // 2),)
        halves += (*self.waves(at // side, self.width // 2),)
        x = self.x_embedder["proj"](x).flatten(2).transpose(1, 2) + torch.cat(halves, -1)
        for block in self.blocks:
            x = block(x, c)
        shift, scale = self.final_layer["adaLN_modulation"](c)[:, None].chunk(2, -1)
        plain = nn.LayerNorm(self.width, 1e-6, elementwise_affine=False)
        x = self.final_layer["linear"](plain(x) * (1 + scale) + shift)
        x = x.unflatten(1, (side, side)).unflatten(-1, (patch, patch, 8))
        return torch.einsum("nhwpqc->nchpwq", x).reshape(len(x), 8, self.image, self.image)


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2))]
)
def test_dit(tmp_path: Path, seed: int) -> None:
    image, patch = (12, 15, 8)[seed], (2, 3, 4)[seed]
    heads = (3, 5, 2)[seed]
    theirs = drawn(Dit(image, patch, 7, 4 * heads * 3, heads), seed)
    torch.save(theirs.state_dict(), tmp_path / "dit.pt")
    random = np.random.default_rng(seed)
    given = {
        "pixels": random.standard_normal((2, 4, image, image)).astype(np.float32),
        "step": np.array([3.0, 871.0], np.float32),
        "label": np.array([7, 2]),
    }
    sizes = {"image": image, "patch": patch, "classes": 7, "D": 12 * heads, "heads": heads}
    ours = archdsl.compile("dit.arch", device="CPU", depth=2, **sizes)
    ours.load(tmp_path / "dit.pt", map="published")
    with torch.no_grad():
        right = theirs(*map(torch.from_numpy, given.values()))
    assert apart(ours(**given)["noise"], right) <= TOLERANCE


# -- U-ViT: Bao et al. 2022, section 3 --


class UvitBlock(nn.Module):
    def __init__(self, width: int, heads: int, skip: bool):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.ModuleDict(
            {"qkv": nn.Linear(width, 3 * width, bias=False), "proj": nn.Linear(width, width)}
        )
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)}
        )
        if skip:
            self.skip_linear = nn.Linear(2 * width, width)

    def forward(self, x: Any, skip: Any = None) -> Any:
        if skip is not None:
            x = self.skip_linear(torch.cat([x, skip], -1))
        parts = self.attn["qkv"](self.norm1(x)).chunk(3, -1)
        x = x + self.attn["proj"](attended(*parts, self.heads))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class Uvit(nn.Module):
    def __init__(self, image: int, patch: int, classes: int, width: int, heads: int, half: int):
        super().__init__()
        self.patch, self.side, self.width = patch, image // patch, width
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch, patch)})
        self.label_emb = nn.Embedding(classes + 1, width)
        self.pos_embed = nn.Parameter(torch.empty(1, self.side**2 + 2, width))
        self.in_blocks, self.out_blocks = (
            nn.ModuleList(UvitBlock(width, heads, skip) for _ in range(half))
            for skip in (False, True)
        )
        self.mid_block = UvitBlock(width, heads, False)
        self.norm = nn.LayerNorm(width)
        self.decoder_pred = nn.Linear(width, patch**2 * 3)
        self.final_layer = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Any, step: Any, label: Any) -> Any:
        rates = torch.exp(-math.log(10000) * torch.arange(self.width // 2) / (self.width // 2))
        angles = step.float()[:, None] * rates
        tokens = torch.cat([angles.cos(), angles.sin()], -1), self.label_emb(label)
        x = self.patch_embed["proj"](x).flatten(2).transpose(1, 2)
        x = torch.cat([torch.stack(tokens, 1), x], 1) + self.pos_embed
        skips = []
        for block in self.in_blocks:
            x = block(x)
            skips.append(x)
        x = self.mid_block(x)
        for block in self.out_blocks:
            x = block(x, skips.pop())
        x = self.decoder_pred(self.norm(x))[:, 2:]
        x = x.unflatten(1, (self.side, self.side)).unflatten(-1, (self.patch, self.patch, 3))
        x = torch.einsum("nhwpqc->nchpwq", x).flatten(4).flatten(2, 3)
        return self.final_layer(x)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_uvit(tmp_path: Path, seed: int) -> None:
    image, patch, classes = (12, 15, 8)[seed], (2, 3, 4)[seed], (7, 1, 5)[seed]
    heads, half = (3, 5, 2)[seed], (2, 3, 1)[seed]
    theirs = drawn(Uvit(image, patch, classes, 6 * heads, heads, half), seed)
    torch.save(theirs.state_dict(), tmp_path / "uvit.pt")
    random = np.random.default_rng(seed)
    given = {
        "pixels": random.standard_normal((2, 3, image, image)).astype(np.float32),
        "step": np.array([3.0, 871.0], np.float32),
        "label": np.array([classes, 1]),
    }
    sizes = {"image": image, "patch": patch, "channels": 3, "classes": classes}
    sizes |= {"D": 6 * heads, "heads": heads, "depth": 2 * half}
    ours = archdsl.compile("uvit.arch", device="CPU", **sizes)
    ours.load(tmp_path / "uvit.pt", map="published")
    with torch.no_grad():
        right = theirs(*map(torch.from_numpy, given.values()))
    assert apart(ours(**given)["noise"], right) <= TOLERANCE


# -- FT-Transformer: Gorishniy et al. 2021, section 3.3 --


class FtBlock(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int, number: int):
        super().__init__()
        self.heads = heads
        names = ("W_q", "W_k", "W_v", "W_out")
        self.attention = nn.ModuleDict({name: nn.Linear(width, width) for name in names})
        self.attention_normalization = nn.LayerNorm(width) if number else None
        self.ffn_normalization = nn.LayerNorm(width)
        self.ffn = nn.ModuleDict(
            {
                "linear_first": nn.Linear(width, 2 * hidden),
                "linear_second": nn.Linear(hidden, width),
            }
        )

    def forward(self, x: Any) -> Any:
        normed = self.attention_normalization(x) if self.attention_normalization else x
        parts = (self.attention[name](normed) for name in ("W_q", "W_k", "W_v"))
        x = x + self.attention["W_out"](attended(*parts, self.heads))
        value, gate = self.ffn["linear_first"](self.ffn_normalization(x)).chunk(2, -1)
        return x + self.ffn["linear_second"](value * F.relu(gate))


class FtTransformer(nn.Module):
    def __init__(self, features: int, kinds: int, table: int, width: int, heads: int):
        super().__init__()
        self.feature_tokenizer, self.cls_token = nn.Module(), nn.Module()
        numbers, categories = nn.Module(), nn.Module()
        numbers.weight = nn.Parameter(torch.empty(features, width))
        numbers.bias = nn.Parameter(torch.empty(features, width))
        categories.embeddings = nn.Embedding(table, width)
        categories.bias = nn.Parameter(torch.empty(kinds, width))
        self.feature_tokenizer.num_tokenizer = numbers
        self.feature_tokenizer.cat_tokenizer = categories
        self.cls_token.weight = nn.Parameter(torch.empty(width))
        self.transformer = nn.Module()
        self.transformer.blocks = nn.ModuleList(
            FtBlock(width, heads, 2 * width, number) for number in range(3)
        )
        self.transformer.head = nn.ModuleDict(
            {"normalization": nn.LayerNorm(width), "linear": nn.Linear(width, 3)}
        )

    def forward(self, numbers: Any, categories: Any) -> Any:
        tokens = self.feature_tokenizer
        x = numbers[..., None] * tokens.num_tokenizer.weight + tokens.num_tokenizer.bias
        c = tokens.cat_tokenizer.embeddings(categories) + tokens.cat_tokenizer.bias
        cls = self.cls_token.weight.expand(len(x), 1, -1)
        x = torch.cat([x, c, cls], 1)
        for block in self.transformer.blocks:
            x = block(x)
        head = self.transformer.head
        return head["linear"](F.relu(head["normalization"](x[:, -1])))


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2))]
)
def test_ft_transformer(tmp_path: Path, seed: int) -> None:
    features, kinds, heads = (5, 3, 7)[seed], (2, 4, 1)[seed], (3, 2, 5)[seed]
    theirs = drawn(FtTransformer(features, kinds, 11, 4 * heads, heads), seed)
    torch.save(theirs.state_dict(), tmp_path / "ft.pt")
    random = np.random.default_rng(seed)
    given = {
        "numbers": random.standard_normal((3, features)).astype(np.float32),
        "categories": random.integers(0, 11, (3, kinds)),
    }
    sizes = {"features": features, "kinds": kinds, "table": 11, "outputs": 3, "heads": heads}
    ours = archdsl.compile(
        "ft_transformer.arch", device="CPU", D=4 * heads, hidden=8 * heads, **sizes
    )
    ours.load(tmp_path / "ft.pt", map="published")
    with torch.no_grad():
        right = theirs(*map(torch.from_numpy, given.values()))
    assert apart(ours(**given)["y"], right) <= TOLERANCE
