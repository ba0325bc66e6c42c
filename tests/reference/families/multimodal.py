"""Models of several inputs: images with texts, videos, and pairs of texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.reference.families import Family, Reference
from tests.reference.families.decoders import settled
from tests.reference.families.encoders import picture, tensors, torch, transformers, widths


def save_llava(folder: Path, seed: int) -> Reference:
    """Five tokens, the image, and a text; ours has the logits of the text."""
    random = np.random.default_rng(seed)
    image, pixels = picture(random)
    image["num_channels"], pixels = 3, np.repeat(pixels[:, :1], 3, axis=1)
    pixels += random.standard_normal(pixels.shape, np.float32)
    text, vocab = widths(random), int(random.integers(40, 90))
    patches = (image["image_size"] // image["patch_size"]) ** 2
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(
            **image, **widths(random), hidden_act=str(random.choice(["quick_gelu", "gelu"]))
        ),
        text_config=transformers.LlamaConfig(
            **text,
            vocab_size=vocab,
            num_key_value_heads=1 if seed == 1 else text["num_attention_heads"],
            max_position_embeddings=80,
            rms_norm_eps=float(random.choice([1e-5, 1e-3])),
            tie_word_embeddings=seed == 2,
        ),
        image_token_index=vocab - 1,
        vision_feature_layer=(-2, -1, -2)[seed % 3],
        multimodal_projector_bias=seed != 1,
        projector_hidden_act=("gelu", "relu", "silu")[seed % 3],
        tie_word_embeddings=seed == 2,
    )
    theirs = settled(transformers.LlavaForConditionalGeneration(config), seed)
    theirs.save_pretrained(folder)
    opening, tokens = (random.integers(0, vocab - 1, (2, n)) for n in (5, 17))
    places = np.full((2, patches), vocab - 1)
    with torch.no_grad():
        found = theirs(
            **tensors(
                input_ids=np.concatenate([opening, places, tokens], 1), pixel_values=pixels
            )
        )
    outputs = {"logits": found.logits[:, 5 + patches :].numpy()}
    return Reference({"pixels": pixels, "opening": opening, "tokens": tokens}, outputs)


FAMILIES = (
    Family("llava", "llava.arch", "transformers LlavaForConditionalGeneration", save_llava),
)
