"""Encoders whose attention depends on distances: DeBERTa, beside transformers."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from tests.reference.families import Family, Reference
from tests.reference.families.encoders import (
    ACTIVATIONS,
    drawn,
    mask,
    padded,
    tensors,
    torch,
    transformers,
    widths,
)


def save_deberta(kind: str, folder: Path, seed: int) -> Reference:
    random = np.random.default_rng(seed)
    vocab, pad = int(random.integers(40, 90)), int(seed % 3)
    config = transformers.DebertaConfig(
        **widths(random),
        vocab_size=vocab,
        max_position_embeddings=24,
        pad_token_id=pad,
        hidden_act=str(random.choice(ACTIVATIONS)),
        layer_norm_eps=float(random.choice([1e-7, 1e-5])),
        relative_attention=True,
        position_biased_input=False,
        pos_att_type="c2p|p2c",
    )
    theirs = drawn(getattr(transformers, kind)(config), seed)
    theirs.save_pretrained(folder)
    lengths = [int(n) for n in random.integers(3, 20, 2)] + [21]
    tokens = padded(random, lengths, vocab, pad)
    given = {"input_ids": tokens, "attention_mask": mask(lengths).astype(int)}
    with torch.no_grad():
        found = theirs(**tensors(**given), output_hidden_states=True)
    outputs = {"hidden": found.hidden_states[-1].numpy()}
    if "logits" in found:
        outputs["logits"] = found.logits.numpy()
    return Reference({"tokens": tokens}, outputs, mask(lengths))


FAMILIES = (
    Family(
        "deberta",
        "deberta.arch",
        "transformers DebertaModel",
        partial(save_deberta, "DebertaModel"),
    ),
    Family(
        "deberta, masked",
        "deberta.arch",
        "transformers DebertaForMaskedLM",
        partial(save_deberta, "DebertaForMaskedLM"),
    ),
)
