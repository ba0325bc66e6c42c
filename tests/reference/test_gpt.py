"""specs/gpt.arch computes what the same model of PyTorch's modules computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import archdsl
from tests.reference import our_names
from tests.reference.agreement import TOLERANCE, apart
from tests.reference.torch_models import GPT, settled, torch

safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")

pytestmark = pytest.mark.reference("torch", "safetensors")


@pytest.mark.parametrize(
    ("sizes", "batch", "length"),
    [
        ({"vocab": 101, "context": 37, "D": 60, "heads": 5, "depth": 3}, 3, 29),
        ({"vocab": 67, "context": 19, "D": 96, "heads": 3, "depth": 2}, 1, 19),
        ({"vocab": 251, "context": 11, "D": 28, "heads": 7, "depth": 1}, 5, 1),
    ],
)
def test_the_logits_agree(
    tmp_path: Path, sizes: dict[str, int], batch: int, length: int
) -> None:
    theirs = settled(GPT(**sizes), seed=length)
    ours = archdsl.compile("gpt.arch", device="CPU", **sizes)
    safetensors.save_file(our_names.gpt_weights(theirs), tmp_path / "gpt.safetensors")
    ours.load(tmp_path / "gpt.safetensors")
    tokens = np.random.default_rng(length).integers(0, sizes["vocab"], (batch, length))
    with torch.no_grad():
        expected = theirs(torch.from_numpy(tokens))
    assert apart(ours(tokens=tokens)["logits"], expected) <= TOLERANCE
