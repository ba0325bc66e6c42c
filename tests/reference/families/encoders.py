"""Encoders of texts and images: BERT, ViT, DeiT, DINOv2 and CLIP, beside transformers and timm.

Sizes are drawn from the seed, odd ones: a number of heads that no published model has, widths
that are no powers of two. A batch's rows differ in length where its model knows padding.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.reference.families import Array, Family, Reference

torch = pytest.importorskip("torch", reason="torch is not installed; CONTRIBUTING.md says how")
transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed; CONTRIBUTING.md says how"
)

ACTIVATIONS = ("gelu", "gelu_new", "relu", "silu")


def drawn(model: Any, seed: int) -> Any:
    """The model in evaluation mode, all that it trains drawn anew and far from first values."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                noise = torch.randn(weight.shape, generator=random)
                spread = weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.3
                centre = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
                weight.copy_(centre + spread * noise)
    return model.eval()


def widths(random: np.random.Generator) -> dict[str, int]:
    """The sizes of a stack under the names that most configs give them."""
    heads = int(random.choice([3, 5, 7]))
    width = heads * 2 * int(random.integers(2, 6))
    return {
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": int(random.integers(width, 3 * width)),
        "num_hidden_layers": int(random.integers(2, 4)),
    }


# -- padding --


def padded(random: np.random.Generator, lengths: Sequence[int], vocab: int, pad: int) -> Array:
    """Rows of tokens [B, T] of these lengths, `pad` behind them and nowhere else."""
    tokens = np.full((len(lengths), max(lengths)), pad)
    for row, length in zip(tokens, lengths, strict=True):
        row[:length] = random.choice(np.setdiff1d(np.arange(vocab), [pad]), length)
    return tokens


def mask(lengths: Sequence[int]) -> Array:
    """[B, T] True where a row is."""
    return np.arange(max(lengths)) < np.asarray(lengths)[:, None]


def to_left(rows: Array, lengths: Sequence[int]) -> Array:
    """Rows that are padded behind, padded in front."""
    pairs = zip(rows, lengths, strict=True)
    return np.stack([np.roll(row, len(row) - length, axis=0) for row, length in pairs])


def to_right(rows: Array, lengths: Sequence[int]) -> Array:
    """The way back from `to_left`."""
    pairs = zip(rows, lengths, strict=True)
    return np.stack([np.roll(row, length - len(row), axis=0) for row, length in pairs])


def tensors(**arrays: Array) -> dict[str, Any]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


# -- texts --


def bert(kind: str, left: bool, folder: Path, seed: int) -> Reference:
    """`left` pads their batch in front, where the pooler would read the padding."""
    random = np.random.default_rng(seed)
    vocab, types, pad = int(random.integers(40, 90)), int(random.integers(2, 4)), int(seed % 3)
    config_class = getattr(transformers, re.sub("(Model|For.*)$", "Config", kind))
    narrow = {"embedding_size": int(random.integers(5, 9))} if "Albert" in kind else {}
    config = config_class(
        **widths(random),
        **narrow,
        vocab_size=vocab,
        type_vocab_size=types,
        max_position_embeddings=24,
        pad_token_id=pad,
        hidden_act=str(random.choice(ACTIVATIONS)),
        layer_norm_eps=float(random.choice([1e-12, 1e-5])),
    )
    theirs = drawn(getattr(transformers, kind)(config), seed)
    theirs.save_pretrained(folder)
    lengths = [int(n) for n in random.integers(3, 20, 2)] + [21]
    tokens = padded(random, lengths, vocab, pad)
    segments = random.integers(0, types, tokens.shape) * mask(lengths)
    given = {
        "input_ids": tokens,
        "token_type_ids": segments,
        "attention_mask": mask(lengths).astype(int),
        "position_ids": np.arange(21) * mask(lengths),
    }
    if left:
        given = {name: to_left(rows, lengths) for name, rows in given.items()}
    with torch.no_grad():
        found = theirs(**tensors(**given), output_hidden_states=True)
    outputs = {"hidden": found.hidden_states[-1].numpy()}
    if "logits" in found:
        outputs["logits"] = found.logits.numpy()
    if left:
        outputs = {name: to_right(rows, lengths) for name, rows in outputs.items()}
    elif "pooler_output" in found:
        outputs["pooled"] = found.pooler_output.numpy()
    return Reference({"tokens": tokens, "segments": segments}, outputs, mask(lengths))


# -- images --


def picture(random: np.random.Generator) -> tuple[dict[str, Any], Array]:
    """The fields of a config that say what an image is, and a batch of two."""
    patch = int(random.choice([3, 4, 7]))
    size, channels = patch * int(random.integers(2, 5)), int(random.choice([1, 3]))
    fields = {"image_size": size, "patch_size": patch, "num_channels": channels}
    pixels = random.standard_normal((2, channels, size, size), np.float32)
    return fields, pixels


def image_config(random: np.random.Generator) -> tuple[dict[str, Any], Array]:
    """A config of one of the image models, and a batch of two images."""
    fields, pixels = picture(random)
    chosen = {
        "hidden_act": str(random.choice(ACTIVATIONS)),
        "layer_norm_eps": float(random.choice([1e-12, 1e-6])),
        "qkv_bias": bool(random.integers(2)),
    }
    return fields | widths(random) | chosen, pixels


def vit(folder: Path, seed: int) -> Reference:
    random = np.random.default_rng(seed)
    fields, pixels = image_config(random)
    config = transformers.ViTConfig(**fields, num_labels=11)
    theirs = drawn(transformers.ViTForImageClassification(config), seed)
    theirs.save_pretrained(folder)
    with torch.no_grad():
        images = torch.from_numpy(pixels)
        outputs = {
            "hidden": theirs.vit(images).last_hidden_state.numpy(),
            "logits": theirs(images).logits.numpy(),
        }
    return Reference({"pixels": pixels}, outputs)


def deit(folder: Path, seed: int) -> Reference:
    random = np.random.default_rng(seed)
    fields, pixels = image_config(random)
    config = transformers.DeiTConfig(**fields, num_labels=7)
    theirs = drawn(transformers.DeiTForImageClassificationWithTeacher(config), seed)
    theirs.save_pretrained(folder)
    with torch.no_grad():
        images = torch.from_numpy(pixels)
        found = theirs(images)
        outputs = {
            "hidden": theirs.deit(images).last_hidden_state.numpy(),
            "logits": found.logits.numpy(),
            "cls_logits": found.cls_logits.numpy(),
            "distillation_logits": found.distillation_logits.numpy(),
        }
    return Reference({"pixels": pixels}, outputs)


def dinov2(folder: Path, seed: int) -> Reference:
    random = np.random.default_rng(seed)
    fields, pixels = image_config(random)
    del fields["intermediate_size"]
    config = transformers.Dinov2Config(
        **fields, mlp_ratio=int(random.integers(2, 5)), use_swiglu_ffn=bool(seed % 2)
    )
    theirs = drawn(transformers.Dinov2Model(config), seed)
    theirs.save_pretrained(folder)
    with torch.no_grad():
        found = theirs(torch.from_numpy(pixels))
    outputs = {
        "hidden": found.last_hidden_state.numpy(),
        "pooled": found.pooler_output.numpy(),
    }
    return Reference({"pixels": pixels}, outputs)


# -- both --


def clip(folder: Path, seed: int) -> Reference:
    """Of the similarities of each image with each text, ours are those of one pair each."""
    random = np.random.default_rng(seed)
    image, pixels = picture(random)
    vocab = int(random.integers(40, 90))
    end = 2 if seed % 2 else vocab - 3  # a 2 is what old configs have, and means the last
    act = {"hidden_act": str(random.choice(["quick_gelu", "gelu"]))}
    config = transformers.CLIPConfig(
        vision_config=image | widths(random) | act,
        text_config=widths(random)
        | act
        | {"vocab_size": vocab, "max_position_embeddings": 24, "eos_token_id": end},
        projection_dim=int(random.integers(7, 30)),
    )
    theirs = drawn(transformers.CLIPModel(config), seed)
    theirs.save_pretrained(folder)
    tokens = random.integers(3, vocab - 3, (2, 17))
    tokens[0, 16] = tokens[1, 9] = tokens[1, 12] = vocab - 1 if end == 2 else end
    with torch.no_grad():
        found = theirs(**tensors(input_ids=tokens, pixel_values=pixels))
    outputs = {
        "image_hidden": found.vision_model_output.last_hidden_state.numpy(),
        "image_features": found.image_embeds.numpy(),
        "text_hidden": found.text_model_output.last_hidden_state.numpy(),
        "text_features": found.text_embeds.numpy(),
        "similarity": found.logits_per_image.diagonal().numpy(),
    }
    return Reference({"tokens": tokens, "pixels": pixels}, outputs)


# -- timm --


@dataclass(frozen=True)
class StateDict:
    """A file of weights without a config: the spec that reads it and its parameters."""

    spec: str
    sizes: Mapping[str, int | float | bool]
    reference: Reference


def timm_model(kind: str, folder: Path, seed: int) -> StateDict:
    """One of timm's image models in odd sizes, its state dict saved to `timm.pt`."""
    random = np.random.default_rng(seed)
    image, pixels = picture(random)
    stack = widths(random)
    width, qkv_bias = stack["hidden_size"], bool(random.integers(2))
    sizes: dict[str, Any] = {
        "image": image["image_size"],
        "patch": image["patch_size"],
        "channels": image["num_channels"],
        "D": width,
        "heads": stack["num_attention_heads"],
        "depth": stack["num_hidden_layers"],
        "qkv_bias": qkv_bias,
    }
    given: dict[str, Any] = {
        "img_size": sizes["image"],
        "patch_size": sizes["patch"],
        "in_chans": sizes["channels"],
        "embed_dim": width,
        "num_heads": sizes["heads"],
        "depth": sizes["depth"],
        "qkv_bias": qkv_bias,
        "num_classes": 0 if kind == "dinov2" else 13,
    }
    if kind == "dinov2":
        sizes["gated"] = bool(seed % 2)
        given["init_values"] = 1e-5
        if sizes["gated"]:
            features = (2 * 4 * width // 3 + 7) // 8 * 8
            given["mlp_ratio"] = (2 * features + 0.5) / width
    else:
        sizes["classes"] = 13
    asked = {"given": given, "gated": sizes.get("gated", False), "seed": seed, "kind": kind}
    (folder / "given.json").write_text(json.dumps(asked), encoding="utf-8")
    np.save(folder / "pixels.npy", pixels)
    command = [sys.executable, "-m", "tests.reference.families.timm_models", str(folder)]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[3])
    found = np.load(folder / "outputs.npz")
    outputs = {"hidden": found["hidden"]}
    outputs["pooled" if kind == "dinov2" else "logits"] = found["read"]
    specs = {"vit": "dosovitskiy2020.arch", "deit": "deit.arch", "dinov2": "dinov2.arch"}
    specs["cait"] = "cait.arch"
    return StateDict(specs[kind], sizes, Reference({"pixels": pixels}, outputs))


_BERT = "bert.arch"
FAMILIES = (
    Family("BERT", _BERT, "transformers BertModel", partial(bert, "BertModel", False)),
    Family(
        "BERT, padded in front",
        _BERT,
        "transformers BertModel",
        partial(bert, "BertModel", True),
    ),
    Family(
        "BERT, masked",
        _BERT,
        "transformers BertForMaskedLM",
        partial(bert, "BertForMaskedLM", False),
    ),
    Family(
        "BERT, masked, padded in front",
        _BERT,
        "transformers BertForMaskedLM",
        partial(bert, "BertForMaskedLM", True),
    ),
    Family(
        "ALBERT",
        "albert.arch",
        "transformers AlbertModel",
        partial(bert, "AlbertModel", False),
    ),
    Family(
        "ALBERT, masked",
        "albert.arch",
        "transformers AlbertForMaskedLM",
        partial(bert, "AlbertForMaskedLM", False),
    ),
    Family("ViT", "dosovitskiy2020.arch", "transformers ViTForImageClassification", vit),
    Family("DeiT", "deit.arch", "transformers DeiTForImageClassificationWithTeacher", deit),
    Family("DINOv2", "dinov2.arch", "transformers Dinov2Model", dinov2),
    Family("CLIP", "clip.arch", "transformers CLIPModel", clip),
)
