"""RetNet as in its paper, with layer norms, a norm of each group and gelu, beside a loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import archdsl
from tests.reference.agreement import TOLERANCE, apart
from tests.reference.families import Reference, stepped

torch = pytest.importorskip("torch", reason="torch is not installed; CONTRIBUTING.md says how")
from torch import nn  # noqa: E402  # torch may be missing

from tests.reference.recurrent_models import Body, Decoder, Layer, Retention  # noqa: E402
from tests.reference.torch_models import settled  # noqa: E402

PARTS = {
    **{f"attention.{name}.weight": f"attn.{name}_proj.weight" for name in "qkvg"},
    "attention.out.weight": "attn.o_proj.weight",
    **{f"mlp.{n}.weight": f"mlp.{2 * n}.weight" for n in range(2)},
    **{f"norm.{part}": f"attn_norm.{part}" for part in ("weight", "bias")},
    **{f"norm_2.{part}": f"mlp_norm.{part}" for part in ("weight", "bias")},
}


@pytest.mark.slow
@pytest.mark.reference("torch")
@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_a_loop_over_the_positions_is(seed: int, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    heads, vocab, inner = (int(n) for n in random.integers((1, 30, 9), (5, 60, 30)))
    width, eps = heads * 2 * int(random.integers(2, 5)), float(random.uniform(1e-6, 1e-2))

    def mlp() -> nn.Module:
        first, second = nn.Linear(width, inner, bias=False), nn.Linear(inner, width, bias=False)
        return nn.Sequential(first, nn.GELU(), second)

    def layer() -> nn.Module:
        norm = nn.LayerNorm(2 * width // heads, eps, elementwise_affine=False)
        retention = Retention(width, heads, width, 2 * width, norm)
        return Layer(retention, mlp(), lambda: nn.LayerNorm(width, eps))

    norm = nn.LayerNorm(width, eps)
    theirs = settled(Decoder(Body(vocab, width, [layer() for _ in range(3)], norm)), seed)
    weights = {"embed.weight": "model.embeddings.weight", "head.weight": "lm_head.weight"}
    weights |= {f"norm.{part}": f"model.norm.{part}" for part in ("weight", "bias")}
    for i in range(3):
        weights |= {f"h.{i}.{ours}": f"model.layers.{i}.{name}" for ours, name in PARTS.items()}
    given = theirs.state_dict()
    torch.save({ours: given[name] for ours, name in weights.items()}, tmp_path / "retnet.pt")

    sizes = {"vocab": vocab, "D": width, "heads": heads, "inner": inner, "depth": 3}
    ours = archdsl.compile("retnet.arch:RetNet", device="CPU", eps=eps, **sizes)
    ours.load(tmp_path / "retnet.pt")
    tokens = random.integers(0, vocab, (2, 30))
    with torch.no_grad():
        right = theirs(torch.from_numpy(tokens))["logits"].numpy()
    assert apart(ours(tokens=tokens)["logits"], right) <= TOLERANCE
    assert apart(stepped(ours, Reference({"tokens": tokens}, {})), right) <= TOLERANCE
