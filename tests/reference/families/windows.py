"""Encoders of images that know distances of two axes, beside transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.reference.families import Family, Reference
from tests.reference.families.encoders import (
    ACTIVATIONS,
    drawn,
    picture,
    torch,
    transformers,
    widths,
)


def save_beit(folder: Path, seed: int) -> Reference:
    """A bias for each layer, one for all layers, or trained positions, as in its releases."""
    random = np.random.default_rng(seed)
    fields, pixels = picture(random)
    config = transformers.BeitConfig(
        **fields,
        **widths(random),
        hidden_act=str(random.choice(ACTIVATIONS)),
        layer_norm_eps=float(random.choice([1e-12, 1e-5])),
        use_relative_position_bias=seed % 3 == 0,
        use_shared_relative_position_bias=seed % 3 == 1,
        use_absolute_position_embeddings=seed % 3 == 2,
        use_mean_pooling=seed % 3 != 1,
        use_mask_token=seed % 3 == 1,
        num_labels=11,
    )
    classifies = seed % 3 != 1
    kind = transformers.BeitForImageClassification if classifies else transformers.BeitModel
    theirs = drawn(kind(config), seed)
    theirs.save_pretrained(folder)
    with torch.no_grad():
        images = torch.from_numpy(pixels)
        states = (theirs.beit if classifies else theirs)(images)
        outputs = {
            "hidden": states.last_hidden_state.numpy(),
            "pooled": states.pooler_output.numpy(),
        }
        if classifies:
            outputs["logits"] = theirs(images).logits.numpy()
    return Reference({"pixels": pixels}, outputs)


def save_swin(folder: Path, seed: int) -> Reference:
    """Grids that windows do not fill, an odd grid that is merged, and a stage of one window."""
    random = np.random.default_rng(seed)
    patch, window, side = [(2, 3, 26), (3, 2, 17), (1, 2, 21)][seed % 3]
    shape = (1 + seed % 3, patch * side, patch * side)
    pixels = random.standard_normal((2, *shape), np.float32)
    config = transformers.SwinConfig(
        image_size=patch * side,
        patch_size=patch,
        num_channels=shape[0],
        embed_dim=12,
        depths=[int(n) for n in random.integers(1, 4, 4)],
        num_heads=[3, 2, 4, 6],
        window_size=window,
        mlp_ratio=float(random.choice([2.0, 2.5])),
        qkv_bias=seed != 1,
        hidden_act=str(random.choice(ACTIVATIONS)),
        layer_norm_eps=float(random.choice([1e-5, 1e-3])),
        use_absolute_embeddings=seed == 2,
        num_labels=7,
    )
    kind = transformers.SwinModel if seed == 1 else transformers.SwinForImageClassification
    theirs = drawn(kind(config), seed)
    theirs.save_pretrained(folder)
    with torch.no_grad():
        images = torch.from_numpy(pixels)
        states = (theirs if seed == 1 else theirs.swin)(images)
        outputs = {
            "hidden": states.last_hidden_state.numpy(),
            "pooled": states.pooler_output.numpy(),
        }
        if seed != 1:
            outputs["logits"] = theirs(images).logits.numpy()
    return Reference({"pixels": pixels}, outputs)


def save_sam(folder: Path, seed: int) -> Reference:
    """Windows that the grid does not fill; seed 2 is in a whole SamModel."""
    random = np.random.default_rng(seed)
    patch, side, window = [(3, 7, 3), (2, 8, 5), (4, 5, 2)][seed % 3]
    channels = 1 + seed % 3
    stack = widths(random)
    del stack["intermediate_size"]
    config = transformers.SamVisionConfig(
        **stack,
        image_size=patch * side,
        patch_size=patch,
        num_channels=channels,
        window_size=window,
        global_attn_indexes=[0, 1] if seed == 1 else [1],
        output_channels=int(random.integers(5, 12)),
        mlp_dim=int(random.integers(20, 50)),
        hidden_act=str(random.choice(ACTIVATIONS)),
        layer_norm_eps=float(random.choice([1e-6, 1e-3])),
        qkv_bias=seed != 1,
        use_abs_pos=seed != 1,
    )
    if seed == 2:
        config = transformers.SamConfig(vision_config=config.to_dict())
    kind = transformers.SamModel if seed == 2 else transformers.SamVisionModel
    theirs = drawn(kind(config), seed)
    theirs.save_pretrained(folder)
    pixels = random.standard_normal((2, channels, patch * side, patch * side), np.float32)
    with torch.no_grad():
        found = theirs.vision_encoder(torch.from_numpy(pixels)).last_hidden_state.numpy()
    return Reference({"pixels": pixels}, {"hidden": found})


FAMILIES = (
    Family("beit", "beit.arch", "transformers BeitForImageClassification", save_beit),
    Family("swin", "swin.arch", "transformers SwinForImageClassification", save_swin),
    Family("sam", "sam.arch", "transformers SamVisionModel", save_sam),
)
