"""Encoders of images, of images with texts, and of vectors, beside transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.reference.families import Family, Reference
from tests.reference.families.encoders import (
    ACTIVATIONS,
    drawn,
    image_config,
    picture,
    tensors,
    torch,
    transformers,
    widths,
)


def save_siglip(folder: Path, seed: int) -> Reference:
    """Of the similarities of each image with each text, ours are those of one pair each."""
    random = np.random.default_rng(seed)
    image, pixels = picture(random)
    if seed == 1:  # pixels at the edge that fill no patch
        image["image_size"] += 2
        pixels = np.pad(pixels, [(0, 0), (0, 0), (0, 2), (0, 2)], constant_values=1)
    vocab = int(random.integers(40, 90))
    act = {"hidden_act": str(random.choice(["gelu_pytorch_tanh", "gelu"]))}
    vision = image | widths(random) | act
    config = transformers.SiglipConfig(
        vision_config=vision,
        text_config=widths(random)
        | act
        | {
            "vocab_size": vocab,
            "max_position_embeddings": 17,
            "projection_size": vision["hidden_size"],
        },
    )
    theirs = drawn(transformers.SiglipModel(config), seed)
    theirs.save_pretrained(folder)
    tokens = random.integers(0, vocab, (2, 17))
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


def save_dinov3(folder: Path, seed: int) -> Reference:
    """The angles of a head are a whole number of pairs for each axis."""
    random = np.random.default_rng(seed)
    image, pixels = picture(random)
    stack, heads = widths(random), int(random.choice([3, 5]))
    config = transformers.DINOv3ViTConfig(
        **image | stack | {"num_attention_heads": heads, "hidden_size": heads * 4 * (seed + 2)},
        hidden_act=str(random.choice(ACTIVATIONS)),
        layer_norm_eps=float(random.choice([1e-5, 1e-6])),
        rope_theta=float(random.choice([100.0, 37.0])),
        num_register_tokens=int(random.integers(1, 5)),
        use_gated_mlp=seed == 1,
    )
    theirs = drawn(transformers.DINOv3ViTModel(config), seed)
    theirs.save_pretrained(folder)
    with torch.no_grad():
        found = theirs(torch.from_numpy(pixels))
    outputs = {
        "hidden": found.last_hidden_state.numpy(),
        "pooled": found.pooler_output.numpy(),
    }
    return Reference({"pixels": pixels}, outputs)


def save_mae(folder: Path, seed: int) -> Reference:
    """Nothing is masked, and the noise keeps the order. Seed 1 has the decoder, too."""
    random = np.random.default_rng(seed)
    fields, pixels = image_config(random)
    config = transformers.ViTMAEConfig(
        **fields,
        mask_ratio=0.0,
        decoder_hidden_size=12,
        decoder_num_attention_heads=3,
        decoder_intermediate_size=20,
        decoder_num_hidden_layers=1,
    )
    theirs = drawn(transformers.ViTMAEForPreTraining(config), seed)
    with torch.no_grad():
        theirs.vit.embeddings.position_embeddings.normal_(
            generator=torch.Generator().manual_seed(seed)
        )
    (theirs if seed == 1 else theirs.vit).save_pretrained(folder)
    noise = torch.arange((config.image_size // config.patch_size) ** 2).expand(2, -1)
    with torch.no_grad():
        found = theirs.vit(torch.from_numpy(pixels), noise=noise.float())
    return Reference({"pixels": pixels}, {"hidden": found.last_hidden_state.numpy()})


def save_perceiver(folder: Path, seed: int) -> Reference:
    random = np.random.default_rng(seed)
    heads, readers = int(random.choice([3, 5])), int(random.choice([2, 4]))
    config = transformers.PerceiverConfig(
        num_latents=int(random.integers(4, 9)),
        d_latents=heads * readers * 2,
        d_model=readers * int(random.integers(2, 6)),
        num_blocks=1 + seed % 3,
        num_self_attends_per_block=2,
        num_self_attention_heads=heads,
        num_cross_attention_heads=readers,
        self_attention_widening_factor=int(random.integers(1, 4)),
        cross_attention_widening_factor=int(random.integers(1, 4)),
        hidden_act=str(random.choice(ACTIVATIONS)),
        max_position_embeddings=20,
    )
    theirs = drawn(transformers.PerceiverModel(config), seed)
    theirs.save_pretrained(folder)
    x = random.standard_normal((2, 13, config.d_model), np.float32)
    with torch.no_grad():
        found = theirs(torch.from_numpy(x))
    return Reference({"x": x}, {"hidden": found.last_hidden_state.numpy()})


FAMILIES = (
    Family("siglip", "siglip.arch", "transformers SiglipModel", save_siglip),
    Family("dinov3", "dinov3.arch", "transformers DINOv3ViTModel", save_dinov3),
    Family("mae", "mae.arch", "transformers ViTMAEModel", save_mae),
    Family("perceiver_io", "perceiver_io.arch", "transformers PerceiverModel", save_perceiver),
)
