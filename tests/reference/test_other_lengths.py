"""Longer texts and other images than a config names, as transformers computes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import archdsl
from tests.reference.agreement import TOLERANCE, apart

pytestmark = pytest.mark.reference("torch", "transformers")


def test_t5_beyond_its_positions(tmp_path: Path) -> None:
    """Relative positions have no limit: `n_positions` is only the length in training."""
    import torch
    import transformers

    config = transformers.T5Config(
        vocab_size=43,
        n_positions=16,
        d_model=16,
        num_heads=2,
        d_kv=8,
        d_ff=24,
        num_layers=2,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=20,
        decoder_start_token_id=0,
    )
    theirs = transformers.T5ForConditionalGeneration(config).eval()
    theirs.save_pretrained(tmp_path)
    source, target = np.random.default_rng(0).integers(1, 43, (2, 2, 75))
    with torch.no_grad():
        right = theirs(
            input_ids=torch.from_numpy(source), decoder_input_ids=torch.from_numpy(target)
        ).logits
    ours = archdsl.from_pretrained(tmp_path, device="CPU")
    assert apart(ours(source=source, target=target)["logits"], right) < TOLERANCE
    decoder = ours.decoder(2, limit=75)
    decoder.begin(source=source)
    steps = [
        decoder.feed(target[:, :70]),
        *(decoder.feed(target[:, i : i + 1]) for i in range(70, 75)),
    ]
    assert apart(np.concatenate(steps, axis=1), right) < TOLERANCE
