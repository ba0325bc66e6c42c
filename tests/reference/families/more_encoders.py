"""DeBERTa, Longformer and ESM, beside transformers."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

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
    """DeBERTa, of version 1, or of 2 with logarithmic buckets and a convolution in some."""
    random = np.random.default_rng(seed)
    vocab, pad = int(random.integers(40, 90)), int(seed % 3)
    given: dict[str, Any] = {"pos_att_type": "c2p|p2c"}
    if "V2" in kind:
        given = {
            "pos_att_type": ("p2c|c2p", "c2p|p2c")[seed % 2],
            "position_buckets": (8, -1, 14)[seed % 3],
            "share_att_key": seed % 3 != 2,
            "norm_rel_ebd": ("layer_norm", "none")[seed % 2],
            "conv_kernel_size": (0, 3, 3)[seed % 3],
            "conv_act": ("gelu", "tanh")[seed % 2],
        }
    version = kind.removesuffix("Model").removesuffix("ForMaskedLM")
    config = getattr(transformers, f"{version}Config")(
        **given,
        **widths(random),
        vocab_size=vocab,
        max_position_embeddings=24,
        pad_token_id=pad,
        hidden_act=str(random.choice(ACTIVATIONS)),
        layer_norm_eps=float(random.choice([1e-7, 1e-5])),
        relative_attention=True,
        position_biased_input=False,
    )
    theirs = drawn(getattr(transformers, kind)(config), seed)
    theirs.save_pretrained(folder)
    lengths = [int(n) for n in random.integers(3, 20, 2)] + [24]
    tokens = padded(random, lengths, vocab, pad)
    given = {"input_ids": tokens, "attention_mask": mask(lengths).astype(int)}
    with torch.no_grad():
        found = theirs(**tensors(**given), output_hidden_states=True)
    outputs = {"hidden": found.hidden_states[-1].numpy()}
    if "logits" in found:
        outputs["logits"] = found.logits.numpy()
    return Reference({"tokens": tokens}, outputs, mask(lengths))


def save_longformer(kind: str, folder: Path, seed: int) -> Reference:
    random = np.random.default_rng(seed)
    sizes = widths(random)
    vocab, pad, types = int(random.integers(40, 90)), int(seed % 3), int(random.integers(1, 3))
    window = 2 * int(random.integers(2, 5))
    config = transformers.LongformerConfig(
        **sizes,
        vocab_size=vocab,
        type_vocab_size=types,
        max_position_embeddings=24 + pad + 1,
        pad_token_id=pad,
        hidden_act=str(random.choice(ACTIVATIONS)),
        layer_norm_eps=float(random.choice([1e-12, 1e-5])),
        attention_window=[window] * sizes["num_hidden_layers"] if seed % 2 else window,
    )
    theirs = drawn(getattr(transformers, kind)(config), seed)
    theirs.save_pretrained(folder)
    lengths = [int(n) for n in random.integers(3, 20, 2)] + [21]
    tokens, seen = padded(random, lengths, vocab, pad), mask(lengths)
    segments = random.integers(0, types, tokens.shape) * seen
    everywhere = (random.random(tokens.shape) < 0.2) & seen
    given = {
        "input_ids": tokens,
        "token_type_ids": segments,
        "attention_mask": seen.astype(int),
        "global_attention_mask": everywhere.astype(int),
    }
    with torch.no_grad():
        found = theirs(**tensors(**given), output_hidden_states=True)
    outputs = {"hidden": found.hidden_states[-1].numpy()}
    for theirs_name, ours in (("logits", "logits"), ("pooler_output", "pooled")):
        if theirs_name in found:
            outputs[ours] = found[theirs_name].numpy()
    inputs = {"tokens": tokens, "segments": segments, "global": everywhere}
    return Reference(inputs, outputs, seen)


def save_esm(kind: str, folder: Path, seed: int) -> Reference:
    random = np.random.default_rng(seed)
    vocab, pad = int(random.integers(30, 40)), int(seed % 3)
    config = transformers.EsmConfig(
        **widths(random),
        vocab_size=vocab,
        max_position_embeddings=24 + pad + 1,
        pad_token_id=pad,
        mask_token_id=vocab - 1,
        eos_token_id=None,
        layer_norm_eps=float(random.choice([1e-7, 1e-5])),
        position_embedding_type="absolute" if seed == 1 else "rotary",
        emb_layer_norm_before=seed != 0,
        token_dropout=seed != 2,
        rope_theta=float(random.choice([100.0, 10000.0])),
    )
    theirs = drawn(getattr(transformers, kind)(config), seed)
    theirs.save_pretrained(folder)
    lengths = [int(n) for n in random.integers(3, 20, 2)] + [21]
    tokens, there = padded(random, lengths, vocab, pad), mask(lengths)
    tokens[(random.random(tokens.shape) < 0.3) & there] = vocab - 1
    given = {"input_ids": tokens, "attention_mask": there.astype(int)}
    with torch.no_grad():
        found = theirs(**tensors(**given))
    names = {"last_hidden_state": "hidden", "pooler_output": "pooled", "logits": "logits"}
    outputs = {ours: found[name].numpy() for name, ours in names.items() if name in found}
    return Reference({"tokens": tokens}, outputs, there)


FAMILIES = (
    *(
        Family(kind, "esm.arch", f"transformers {kind}", partial(save_esm, kind))
        for kind in ("EsmForMaskedLM", "EsmModel")
    ),
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
    *(
        Family(kind, "deberta.arch", f"transformers {kind}", partial(save_deberta, kind))
        for kind in ("DebertaV2Model", "DebertaV2ForMaskedLM")
    ),
    Family(
        "longformer",
        "longformer.arch",
        "transformers LongformerModel",
        partial(save_longformer, "LongformerModel"),
    ),
    Family(
        "longformer, masked",
        "longformer.arch",
        "transformers LongformerForMaskedLM",
        partial(save_longformer, "LongformerForMaskedLM"),
    ),
)
