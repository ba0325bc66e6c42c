"""Models in float16 whose sums are beyond 65504: finite, as those of transformers are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import archdsl
from tests.reference.agreement import apart

pytestmark = pytest.mark.reference("torch", "transformers")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "kernels"), [("gated-gelu", "best"), ("relu", "best"), ("relu", "tinygrad")]
)
def test_t5_with_large_sums(tmp_path: Path, form: str, kernels: str) -> None:
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=43,
        d_model=32,
        num_heads=4,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=20,
        decoder_start_token_id=0,
        feed_forward_proj=form,
    )
    whole = transformers.T5ForConditionalGeneration(config)
    with torch.no_grad():
        for name, weight in whole.named_parameters():
            if name.endswith("wo.weight"):
                weight *= 1e5
    whole.save_pretrained(tmp_path)
    load = transformers.T5ForConditionalGeneration.from_pretrained
    theirs = load(tmp_path, dtype=torch.float16).eval()
    source, target = np.random.default_rng(0).integers(1, 43, (2, 2, 9))
    with torch.no_grad():
        found = theirs(
            input_ids=torch.from_numpy(source),
            decoder_input_ids=torch.from_numpy(target),
            output_hidden_states=True,
        )
    assert max(each.abs().max() for each in found.encoder_hidden_states) > 65504
    ours = archdsl.from_pretrained(tmp_path, device="CPU", dtype="float16", kernels=kernels)
    logits = ours(source=source, target=target)["logits"].numpy()
    assert apart(logits, found.logits.float()) < 1e-2
    decoder = ours.decoder(2, limit=9)
    decoder.begin(source=source)
    steps = [decoder.feed(target[:, i : i + 1]) for i in range(9)]
    assert apart(np.concatenate(steps, axis=1), found.logits.float()) < 1e-2
