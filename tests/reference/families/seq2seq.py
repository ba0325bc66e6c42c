"""Encoders and decoders in one: Marian, T5 and Whisper, beside transformers.

Sources of unequal lengths are padded, targets are not: they are causal, and whatever stood
behind them would be seen by nothing.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.reference.families import Array, Family, Reference
from tests.reference.families.encoders import (
    drawn,
    mask,
    padded,
    tensors,
    to_left,
    to_right,
    torch,
    transformers,
)


def sizes(random: np.random.Generator) -> dict[str, int]:
    """The sizes of two stacks that have nothing but their width in common."""
    heads = int(random.choice([3, 5, 7]))
    return {
        "d_model": heads * 2 * int(random.integers(2, 6)),
        "encoder_attention_heads": heads,
        "decoder_attention_heads": 2 * heads,
        "encoder_ffn_dim": int(random.integers(20, 90)),
        "decoder_ffn_dim": int(random.integers(20, 90)),
        "encoder_layers": int(random.integers(2, 4)),
        "decoder_layers": int(random.integers(2, 4)),
    }


def sources(
    random: np.random.Generator, longest: int, vocab: int, pad: int
) -> tuple[Array, list[int]]:
    """Three rows of tokens, padded behind, and their lengths."""
    lengths = [int(n) for n in random.integers(2, longest, 2)] + [longest]
    return padded(random, lengths, vocab, pad), lengths


def targets(random: np.random.Generator, vocab: int, start: int) -> Array:
    tokens = random.integers(0, vocab, (3, 11))
    tokens[:, 0] = start
    return tokens


def computed(theirs: Any, **given: Array) -> dict[str, Array]:
    with torch.no_grad():
        found = theirs(**tensors(**given), output_hidden_states=True)
    return {
        "memory": found.encoder_last_hidden_state.numpy(),
        "hidden": found.decoder_hidden_states[-1].numpy(),
        "logits": found.logits.numpy(),
    }


def marian(shared: bool, folder: Path, seed: int) -> Reference:
    """Without `shared`, the target has a vocabulary of its own, and the seeds tie its table to
    the logits or not."""
    random = np.random.default_rng(seed)
    vocab = int(random.integers(40, 90))
    config = transformers.MarianConfig(
        **sizes(random),
        vocab_size=vocab,
        max_position_embeddings=24,
        activation_function=("swish", "relu", "gelu")[seed % 3],
        scale_embedding=seed % 2 == 0,
        pad_token_id=vocab - 1,
        decoder_start_token_id=vocab - 1,
        share_encoder_decoder_embeddings=shared,
        decoder_vocab_size=vocab + (0 if shared else 7),
        tie_word_embeddings=shared or seed % 2 == 0,
    )
    theirs = drawn(transformers.MarianMTModel(config), seed)
    theirs.final_logits_bias.normal_(generator=torch.Generator().manual_seed(seed))
    theirs.save_pretrained(folder)
    source, lengths = sources(random, 19, vocab, vocab - 1)
    target = targets(random, config.decoder_vocab_size, vocab - 1)
    seen = mask(lengths)
    outputs = computed(
        theirs, input_ids=source, attention_mask=seen.astype(int), decoder_input_ids=target
    )
    return Reference({"source": source, "target": target}, outputs, seen)


def t5(left: bool, folder: Path, seed: int) -> Reference:
    """The seeds make version 1.0, version 1.1, and 1.1 with one table for tokens and logits."""
    random = np.random.default_rng(seed)
    vocab = int(random.integers(40, 90))
    config = transformers.T5Config(
        vocab_size=vocab,
        d_model=int(random.integers(9, 30)),
        num_heads=int(random.choice([3, 5, 7])),
        d_kv=int(random.integers(3, 9)),
        d_ff=int(random.integers(20, 90)),
        num_layers=int(random.integers(2, 4)),
        num_decoder_layers=int(random.integers(2, 4)),
        relative_attention_num_buckets=int(random.choice([8, 12, 32])),
        relative_attention_max_distance=int(random.choice([17, 20, 128])),
        layer_norm_epsilon=float(random.choice([1e-6, 1e-5])),
        feed_forward_proj="relu" if seed % 3 == 0 else "gated-gelu",
        tie_word_embeddings=seed % 3 == 0,
        decoder_start_token_id=0,
    )
    theirs = transformers.T5ForConditionalGeneration(config)
    if seed % 3 == 1:  # this release ties every new model, and loads those of 1.1 as they are
        theirs.lm_head.weight = torch.nn.Parameter(theirs.shared.weight.detach().clone())
        theirs.config.tie_word_embeddings = False
    drawn(theirs, seed)
    theirs.save_pretrained(folder)
    source, lengths = sources(random, 29, vocab, 0)
    target = targets(random, vocab, 0)
    seen = mask(lengths)
    given = {"input_ids": source, "attention_mask": seen.astype(int)}
    if left:
        given = {name: to_left(rows, lengths) for name, rows in given.items()}
    outputs = computed(theirs, decoder_input_ids=target, **given)
    if left:
        outputs["memory"] = to_right(outputs["memory"], lengths)
    return Reference({"source": source, "target": target}, outputs, seen)


def whisper(folder: Path, seed: int) -> Reference:
    random = np.random.default_rng(seed)
    vocab, bins, length = (int(random.integers(low, 2 * low)) for low in (40, 7, 13))
    config = transformers.WhisperConfig(
        **sizes(random),
        vocab_size=vocab,
        num_mel_bins=bins,
        max_source_positions=length,
        max_target_positions=16,
        activation_function=("gelu", "relu", "silu")[seed % 3],
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=1,
    )
    theirs = drawn(transformers.WhisperForConditionalGeneration(config), seed)
    theirs.save_pretrained(folder)
    mel = random.standard_normal((3, bins, 2 * length), np.float32)
    target = targets(random, vocab, 1)
    outputs = computed(theirs, input_features=mel, decoder_input_ids=target)
    return Reference({"mel": mel, "target": target}, outputs)


FAMILIES = (
    Family("Marian", "marian.arch", "transformers MarianMTModel", partial(marian, True)),
    Family(
        "Marian, two vocabularies",
        "marian.arch",
        "transformers MarianMTModel",
        partial(marian, False),
    ),
    Family("T5", "t5.arch", "transformers T5ForConditionalGeneration", partial(t5, False)),
    Family(
        "T5, padded in front",
        "t5.arch",
        "transformers T5ForConditionalGeneration",
        partial(t5, True),
    ),
    Family("Whisper", "whisper.arch", "transformers WhisperForConditionalGeneration", whisper),
)
