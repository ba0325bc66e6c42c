"""BART and its relatives: mBART, Pegasus, M2M-100 and the decoder of TrOCR."""

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


def save_trocr(folder: Path, seed: int) -> Reference:
    random = np.random.default_rng(seed)
    both = sizes(random)
    size = None if seed == 1 else int(random.integers(5, 30))
    config = transformers.TrOCRConfig(
        **{name: both[name] for name in both if name == "d_model" or "decoder_" in name},
        vocab_size=int(random.integers(40, 90)),
        max_position_embeddings=24,
        cross_attention_hidden_size=size,
        activation_function=("gelu", "relu", "silu")[seed % 3],
        scale_embedding=seed % 2 == 0,
        use_learned_position_embeddings=seed % 3 != 1,
        layernorm_embedding=seed % 3 != 2,
        pad_token_id=seed % 3,
    )
    theirs = drawn(transformers.TrOCRForCausalLM(config), seed)
    theirs.save_pretrained(folder)
    memory = random.standard_normal((3, 7, size or config.d_model), np.float32)
    target = random.integers(seed % 3 + 1, config.vocab_size, (3, 11))
    with torch.no_grad():
        found = theirs(
            input_ids=torch.from_numpy(target),
            encoder_hidden_states=torch.from_numpy(memory),
            output_hidden_states=True,
        )
    outputs = {"hidden": found.hidden_states[-1].numpy(), "logits": found.logits.numpy()}
    return Reference({"memory": memory, "target": target}, outputs)


FAMILIES = (
    *(
        Family(
            kind,
            "bart.arch",
            f"transformers {kind}ForConditionalGeneration",
            partial(save, kind),
        )
        for kind in ("Bart", "MBart", "Pegasus", "M2M100")
    ),
    Family("TrOCR", "trocr.arch", "transformers TrOCRForCausalLM", save_trocr),
)
