"""Models of sound: AST, Moonshine, wav2vec 2.0 and Conformer, beside transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.reference.families import Family, Reference
from tests.reference.families.encoders import ACTIVATIONS, drawn, widths

torch = pytest.importorskip("torch", reason="torch is not installed; CONTRIBUTING.md says how")
transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed; CONTRIBUTING.md says how"
)


def save_ast(folder: Path, seed: int) -> Reference:
    random = np.random.default_rng(seed)
    patch, stride = int(random.integers(3, 7)), int(random.integers(2, 5))
    frames, mels = (int(n) for n in random.integers(12, 24, 2))
    config = transformers.ASTConfig(
        **widths(random),
        patch_size=patch,
        time_stride=stride,
        frequency_stride=stride,
        max_length=frames,
        num_mel_bins=mels,
        num_labels=int(random.integers(2, 9)),
        hidden_act=str(random.choice(ACTIVATIONS)),
        qkv_bias=bool(random.integers(2)),
        layer_norm_eps=float(random.choice([1e-12, 1e-6])),
    )
    bare = seed == 2
    kind = transformers.ASTModel if bare else transformers.ASTForAudioClassification
    theirs = drawn(kind(config), seed)
    theirs.save_pretrained(folder)
    mel = random.standard_normal((2, frames, mels), np.float32)
    with torch.no_grad():
        found = theirs(torch.from_numpy(mel), output_hidden_states=not bare)
    if bare:
        outputs = {"hidden": found.last_hidden_state, "pooled": found.pooler_output}
    else:
        outputs = {"logits": found.logits}
    return Reference({"mel": mel}, {name: each.numpy() for name, each in outputs.items()})


def save_moonshine(folder: Path, seed: int) -> Reference:
    """The last seed is a bare model."""
    random = np.random.default_rng(seed)
    heads, vocab = int(random.choice([3, 5])), int(random.integers(40, 90))
    config = transformers.MoonshineConfig(
        vocab_size=vocab,
        hidden_size=heads * 4 * int(random.integers(1, 4)),
        intermediate_size=int(random.integers(20, 60)),
        encoder_num_attention_heads=heads,
        decoder_num_attention_heads=heads,
        encoder_num_hidden_layers=int(random.integers(1, 3)),
        decoder_num_hidden_layers=int(random.integers(1, 3)),
        encoder_hidden_act=str(random.choice(["gelu", "relu", "silu"])),
        decoder_hidden_act=str(random.choice(["gelu", "relu", "silu"])),
        attention_bias=bool(random.integers(2)),
        pad_head_dim_to_multiple_of=8 if seed == 1 else None,
        max_position_embeddings=40,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": float(random.choice([500.0, 10000.0])),
            "partial_rotary_factor": float(random.choice([0.5, 1.0])),
        },
    )
    bare = seed == 2
    kind = (
        transformers.MoonshineModel if bare else transformers.MoonshineForConditionalGeneration
    )
    theirs = drawn(kind(config), seed)
    theirs.save_pretrained(folder)
    wave = random.standard_normal((2, int(random.integers(2000, 6000))), np.float32)
    target = random.integers(0, vocab, (2, 11))
    with torch.no_grad():
        found = theirs(
            input_values=torch.from_numpy(wave), decoder_input_ids=torch.from_numpy(target)
        )
    outputs = {"memory": found.encoder_last_hidden_state}
    outputs |= {"hidden": found.last_hidden_state} if bare else {"logits": found.logits}
    found = {name: each.numpy() for name, each in outputs.items()}
    return Reference({"wave": wave, "target": target}, found)


def sounds(random: np.random.Generator) -> dict[str, Any]:
    """The sizes of a wav2vec 2.0: seven convolutions, of which the kernels are those of all."""
    return {
        **widths(random),
        "vocab_size": int(random.integers(9, 40)),
        "hidden_act": str(random.choice(["gelu", "relu", "swish"])),
        "layer_norm_eps": float(random.choice([1e-5, 1e-3])),
        "conv_dim": random.integers(3, 14, 7).tolist(),
        "conv_bias": bool(random.integers(2)),
        "feat_extract_activation": str(random.choice(["gelu", "relu", "silu"])),
        "mask_time_prob": 0.0,  # no weight for what training hides
    }


def heard(theirs: Any, folder: Path, seed: int) -> Reference:
    """What a model with a head, or a bare one, computes from samples.

    A row ends earlier than the other one if each vector is normalised alone: else what is
    behind its end changes all of it in transformers.
    """
    random = np.random.default_rng(seed)
    drawn(theirs, seed)
    theirs.save_pretrained(folder)
    wave = random.standard_normal((2, int(random.integers(400, 9000))), np.float32)
    inputs, mask = {"wave": wave}, None
    given = {"input_values": torch.from_numpy(wave)}
    if theirs.config.model_type == "wav2vec2" and theirs.config.feat_extract_norm == "layer":
        lengths = np.array([int(random.integers(400, wave.shape[1])), wave.shape[1]])
        inputs["heard"] = (np.arange(wave.shape[1]) < lengths[:, None]).astype(np.int64)
        given["attention_mask"] = torch.from_numpy(inputs["heard"])
        count = (wave.shape[1] - 80) // 320
        mask = np.arange(count) < ((lengths - 80) // 320)[:, None]
    with torch.no_grad():
        found = theirs(**given, output_hidden_states=True)
    if "logits" in found:
        outputs = {"logits": found.logits}
    else:
        outputs = {"hidden": found.last_hidden_state}
    found = {name: each.numpy() for name, each in outputs.items()}
    return Reference(inputs, found, mask)


def save_wav2vec2(folder: Path, seed: int) -> Reference:
    random = np.random.default_rng(seed)
    config = transformers.Wav2Vec2Config(
        **sounds(random),
        feat_extract_norm="layer" if seed % 3 else "group",
        do_stable_layer_norm=seed % 2 == 1,
        num_conv_pos_embeddings=int(random.choice([8, 9])),
        num_conv_pos_embedding_groups=2,
    )
    kind = transformers.Wav2Vec2Model if seed == 2 else transformers.Wav2Vec2ForCTC
    return heard(kind(config), folder, seed)


def save_conformer(folder: Path, seed: int) -> Reference:
    random = np.random.default_rng(seed)
    config = transformers.Wav2Vec2ConformerConfig(
        **sounds(random),
        feat_extract_norm=str(random.choice(["group", "layer"])),
        conv_depthwise_kernel_size=int(random.choice([3, 7])),
        position_embeddings_type=("relative", "rotary", None)[seed % 3],
        rotary_embedding_base=int(random.choice([500, 10000])),
        max_source_positions=int(random.choice([10, 5000])),
        num_conv_pos_embedding_groups=2,
    )
    names = ("Wav2Vec2ConformerForCTC", "Wav2Vec2ConformerModel")
    theirs = getattr(transformers, names[seed == 2])(config)
    draw = torch.Generator().manual_seed(seed)
    for name, measured in theirs.named_buffers():
        if "running" in name:
            measured.uniform_(0.5, 2, generator=draw)
    return heard(theirs, folder, seed)


FAMILIES = (
    Family(
        "conformer", "conformer.arch", "transformers Wav2Vec2ConformerForCTC", save_conformer
    ),
    Family("wav2vec2", "wav2vec2.arch", "transformers Wav2Vec2ForCTC", save_wav2vec2),
    Family(
        "moonshine",
        "moonshine.arch",
        "transformers MoonshineForConditionalGeneration",
        save_moonshine,
    ),
    Family("ast", "ast.arch", "transformers ASTForAudioClassification", save_ast),
)
