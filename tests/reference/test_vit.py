"""specs/vit.arch computes what transformers' ViT computes, where the two agree.

They agree in the patches, the first vector, the positions and the blocks. Behind the blocks
transformers normalises and Figure 5.9 does not, so the hidden states before that norm are
compared, and the logits with those of an MLP of PyTorch's on the first of them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import archdsl
from tests.reference import our_names
from tests.reference.agreement import TOLERANCE, apart
from tests.reference.torch_models import ViT, settled, torch

pytestmark = pytest.mark.reference("torch", "transformers")

SIZES = [
    {"image": 21, "patch": 7, "classes": 11, "D": 60, "heads": 5, "depth": 3},
    {"image": 20, "patch": 4, "classes": 3, "D": 96, "heads": 3, "depth": 2},
    {"image": 15, "patch": 15, "classes": 2, "D": 28, "heads": 7, "depth": 1},
]


@pytest.mark.parametrize("sizes", SIZES)
def test_hidden_states_and_logits_agree(tmp_path: Path, sizes: dict[str, int]) -> None:
    theirs = settled(ViT(**sizes), seed=sizes["image"])
    np.savez(tmp_path / "vit.npz", **our_names.vit_weights(theirs))
    text = (Path(__file__).parents[2] / "specs" / "vit.arch").read_text()
    hidden = "  output hidden: float[(image // patch) * (image // patch) + 1, D] = z\n\n"
    both = text.replace("  # Z_0 through", hidden + "  # Z_0 through")
    ours = archdsl.compile(archdsl.parse(both), device="CPU", **sizes)
    ours.load(tmp_path / "vit.npz")
    shape = 2, 3, sizes["image"], sizes["image"]
    pixels = np.random.default_rng(sizes["patch"]).standard_normal(shape, np.float32)
    found = ours(pixels=pixels)
    with torch.no_grad():
        given = torch.from_numpy(pixels)
        assert apart(found["hidden"], theirs.hidden(given)) <= TOLERANCE
        assert apart(found["logits"], theirs(given)) <= TOLERANCE
