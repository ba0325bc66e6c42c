"""RoBERTa, MPNet, DistilBERT and ELECTRA, beside transformers."""

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

CONTEXT = 24


def save(kind: str, head: str, folder: Path, seed: int) -> Reference:
    random = np.random.default_rng(seed)
    vocab, types, pad = int(random.integers(40, 90)), int(random.integers(2, 4)), int(seed % 3)
    pad = 1 if kind == "MPNet" else pad
    stack = widths(random)
    act = str(random.choice(ACTIVATIONS))
    if kind == "DistilBert":
        names = ("dim", "n_heads", "hidden_dim", "n_layers")
        given = dict(zip(names, stack.values(), strict=True)) | {"activation": act}
    else:
        eps = float(random.choice([1e-12, 1e-5]))
        given = stack | {"hidden_act": act, "layer_norm_eps": eps}
    if kind not in ("MPNet", "DistilBert"):
        given["type_vocab_size"] = types
    if kind == "Electra" and seed % 2:
        given["embedding_size"] = stack["hidden_size"] // 2
    elif kind == "Electra":
        given["embedding_size"] = stack["hidden_size"]
    config = getattr(transformers, f"{kind}Config")(
        **given,
        vocab_size=vocab,
        max_position_embeddings=CONTEXT,
        pad_token_id=pad,
        bos_token_id=None,
        eos_token_id=None,
    )
    theirs = drawn(getattr(transformers, kind + head)(config), seed)
    theirs.save_pretrained(folder)
    lengths = [int(n) for n in random.integers(3, 18, 2)] + [19]
    tokens = padded(random, lengths, vocab, pad)
    there = mask(lengths)
    batch = {"input_ids": tokens, "attention_mask": there.astype(int)}
    ours = {"tokens": tokens}
    if "type_vocab_size" in given:
        ours["segments"] = random.integers(0, types, tokens.shape) * there
        batch["token_type_ids"] = ours["segments"]
    with torch.no_grad():
        found = theirs(**tensors(**batch), output_hidden_states=True)
    outputs = {"hidden": found.hidden_states[-1].numpy()}
    if head == "ForPreTraining":
        outputs["replaced_logits"] = found.logits.numpy()[..., None]
    elif "logits" in found:
        outputs["logits"] = found.logits.numpy()
    elif "pooler_output" in found:
        outputs["pooled"] = found.pooler_output.numpy()
    return Reference(ours, outputs, there)


FAMILIES = tuple(
    Family(
        f"{kind}{head}",
        "roberta.arch",
        f"transformers {kind}{head}",
        partial(save, kind, head),
    )
    for kind, head in (
        ("Roberta", "ForMaskedLM"),
        ("Roberta", "Model"),
        ("XLMRoberta", "ForMaskedLM"),
        ("Camembert", "Model"),
        ("MPNet", "ForMaskedLM"),
        ("DistilBert", "ForMaskedLM"),
        ("Electra", "ForPreTraining"),
        ("Electra", "ForMaskedLM"),
    )
)
