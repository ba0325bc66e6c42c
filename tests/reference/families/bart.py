"""BART and its relatives: mBART, Pegasus and M2M-100, beside transformers."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from tests.reference.families import Family, Reference
from tests.reference.families.encoders import drawn, mask, torch, transformers
from tests.reference.families.seq2seq import computed, sizes, sources


def save(kind: str, folder: Path, seed: int) -> Reference:
    random = np.random.default_rng(seed)
    vocab, pad = int(random.integers(40, 90)), int(seed % 3)
    config = getattr(transformers, f"{kind}Config")(
        **sizes(random),
        vocab_size=vocab,
        max_position_embeddings=24,
        activation_function=("gelu", "relu", "silu")[seed % 3],
        scale_embedding=seed % 2 == 0,
        pad_token_id=pad,
        bos_token_id=None,
        eos_token_id=None,
        forced_eos_token_id=None,
        decoder_start_token_id=pad,
    )
    theirs = drawn(getattr(transformers, f"{kind}ForConditionalGeneration")(config), seed)
    if hasattr(theirs, "final_logits_bias"):
        theirs.final_logits_bias.normal_(generator=torch.Generator().manual_seed(seed))
    theirs.save_pretrained(folder)
    source, lengths = sources(random, 19, vocab, pad)
    target = random.integers(pad + 1, vocab, (3, 11))
    seen = mask(lengths)
    outputs = computed(
        theirs, input_ids=source, attention_mask=seen.astype(int), decoder_input_ids=target
    )
    return Reference({"source": source, "target": target}, outputs, seen)


FAMILIES = tuple(
    Family(
        kind, "bart.arch", f"transformers {kind}ForConditionalGeneration", partial(save, kind)
    )
    for kind in ("Bart", "MBart", "Pegasus", "M2M100")
)
