"""The Universal Transformer beside a module written from Dehghani et al. 2018, section 2.1.

Both have a fixed number of steps: nothing halts.
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


def coordinates(length: int, width: int, step: int) -> Any:
    """P^t of equations 6 and 7, for positions and steps from 1."""
    encoding = torch.zeros(length, width, dtype=torch.float64)
    for i in range(1, length + 1):
        for j in range(width // 2):
            rate = 10000.0 ** (-2 * j / width)
            angles = torch.tensor([i * rate, step * rate], dtype=torch.float64)
            encoding[i - 1, 2 * j] = angles.sin().sum()
            encoding[i - 1, 2 * j + 1] = angles.cos().sum()
    return encoding.float()


class Attention(nn.ModuleDict):
    def __init__(self, width: int, heads: int):
        super().__init__({name: nn.Linear(width, width) for name in ("q", "k", "v", "out")})
        self.heads = heads

    def forward(self, x: Any, seen: Any, over: Any = None) -> Any:
        over = x if over is None else over
        parts = self["q"](x), self["k"](over), self["v"](over)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return self["out"](mixed.transpose(1, 2).flatten(2))


class Sublayer(nn.Module):
    """LayerNorm(x + f(x))."""

    def __init__(self, name: str, function: nn.Module, width: int):
        super().__init__()
        self.name, self.norm = name, nn.LayerNorm(width)
        self.add_module(name, function)

    def forward(self, x: Any, *rest: Any) -> Any:
        return self.norm(x + getattr(self, self.name)(x, *rest))


class Step(nn.Module):
    def __init__(self, width: int, heads: int, inner: int, cross: bool):
        super().__init__()
        self.post_norm = Sublayer("attention", Attention(width, heads), width)
        mlp = nn.Sequential(nn.Linear(width, inner), nn.Linear(inner, width))
        mlp.insert(1, nn.ReLU())
        if cross:
            self.post_norm_2 = Sublayer("attention", Attention(width, heads), width)
        self.transition = Sublayer("mlp", mlp, width)

    def forward(
        self, x: Any, step: int, seen: Any, memory: Any = None, shown: Any = None
    ) -> Any:
        x = x + coordinates(x.shape[1], x.shape[2], step)
        x = self.post_norm(x, seen)
        if memory is not None:
            x = self.post_norm_2(x, shown, memory)
        return self.transition(x)


class Universal(nn.Module):
    def __init__(self, vocab: int, width: int, heads: int, inner: int, steps: int):
        super().__init__()
        self.steps, self.scale = steps, width**0.5
        self.tokens = nn.Embedding(vocab, width)
        self.encoder = Step(width, heads, inner, cross=False)
        self.decoder = Step(width, heads, inner, cross=True)

    def forward(self, source: Any, target: Any) -> dict[str, Any]:
        shown = (source != 0)[:, None, None]
        memory = self.tokens(source) * self.scale
        for t in range(1, self.steps + 1):
            memory = self.encoder(memory, t, shown)
        h = self.tokens(target) * self.scale
        seen = torch.ones(target.shape[1], target.shape[1], dtype=torch.bool).tril()
        for t in range(1, self.steps + 1):
            h = self.decoder(h, t, seen, memory, shown)
        return {"memory": memory, "hidden": h, "logits": h @ self.tokens.weight.T}


def by_our_name(name: str) -> str:
    side, _, rest = name.partition(".")
    number = {"encoder": "2", "decoder": "3"}.get(side, "")
    rest = rest.replace("transition", f"post_norm_{number}").replace("mlp.2", "mlp.1")
    return f"{side}.{side}_layer.{rest}" if number else name


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(0, marks=pytest.mark.long),
        *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2)),
    ],
)
def test_each_step_applies_the_same_layer_again(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    heads, steps, inner = (int(n) for n in random.integers(2, 6, 3))
    width, vocab = heads * 2 * int(random.integers(2, 5)), int(random.integers(30, 60))
    theirs = settled(Universal(vocab, width, heads, 3 * inner, steps), seed)
    weights = {by_our_name(name): each for name, each in theirs.state_dict().items()}
    torch.save(weights, tmp_path / "universal.pt")
    sizes = {"vocab": vocab, "context": 20, "D": width, "heads": heads, "inner": 3 * inner}
    ours = archdsl.compile("universal.arch", device="CPU", depth=steps, **sizes)
    ours.load(tmp_path / "universal.pt")

    source, target = random.integers(1, vocab, (3, 17)), random.integers(1, vocab, (3, 12))
    source[1, 5:] = 0
    with torch.no_grad():
        right = theirs(torch.from_numpy(source), torch.from_numpy(target))
    found = ours(source=source, target=target)
    seen = source != 0
    assert (
        apart(found["memory"].numpy()[seen], right["memory"][torch.from_numpy(seen)])
        <= TOLERANCE
    )
    assert apart(found["hidden"], right["hidden"]) <= TOLERANCE
    assert apart(found["logits"], right["logits"]) <= TOLERANCE
    in_steps = stepped(ours, Reference({"source": source, "target": target}, {}))
    assert apart(in_steps, right["logits"]) <= TOLERANCE
