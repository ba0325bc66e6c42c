"""Models of several inputs: images with texts, videos, and pairs of texts."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.reference.families import Family, Reference
from tests.reference.families.decoders import settled
from tests.reference.families.encoders import (
    ACTIVATIONS,
    mask,
    padded,
    picture,
    tensors,
    torch,
    transformers,
    widths,
)


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
    if seed == 2:  # the names of the published checkpoints
        named = load_file(folder / "model.safetensors")
        save_file(
            {re.sub("^vision_tower", r"\g<0>.vision_model", k): v for k, v in named.items()},
            folder / "model.safetensors",
        )
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


def save_timesformer(folder: Path, seed: int) -> Reference:
    random = np.random.default_rng(seed)
    image, pixels = picture(random)
    frames = int(random.integers(2, 5))
    config = transformers.TimesformerConfig(
        **image,
        **widths(random),
        num_frames=frames,
        qkv_bias=seed != 1,
        layer_norm_eps=float(random.choice([1e-6, 1e-3])),
        hidden_act=str(random.choice(ACTIVATIONS)),
        num_labels=5,
    )
    kind = "TimesformerModel" if seed == 2 else "TimesformerForVideoClassification"
    theirs = settled(getattr(transformers, kind)(config), seed)
    theirs.save_pretrained(folder)
    video = random.standard_normal((2, frames, *pixels.shape[1:]), np.float32)
    with torch.no_grad():
        whole = theirs(torch.from_numpy(video), output_hidden_states=True)
        body = theirs if seed == 2 else theirs.timesformer
        outputs = {"hidden": body.layernorm(whole.hidden_states[-1]).numpy()}
    if seed != 2:
        outputs["logits"] = whole.logits.numpy()
    return Reference({"video": video}, outputs)


def save_qformer(folder: Path, seed: int) -> Reference:
    """Seed 1 has queries alone, the others a text of unequal lengths behind them."""
    random = np.random.default_rng(seed)
    sizes = widths(random)
    sizes |= {"cross_attention_frequency": 2 + seed % 2, "encoder_hidden_size": 11}
    sizes |= {"layer_norm_eps": 1e-5, "hidden_act": str(random.choice(ACTIVATIONS))}
    queries = random.standard_normal((3, 32, sizes["hidden_size"]), np.float32)
    image = random.standard_normal((3, 13, 11), np.float32)
    given = {"query_embeds": queries, "encoder_hidden_states": image}
    inputs = {"queries": queries, "image": image}
    if seed == 1:
        config = transformers.Blip2QFormerConfig(**sizes)
        theirs = settled(transformers.Blip2QFormerModel(config), seed)
    else:
        config = transformers.InstructBlipQFormerConfig(
            **sizes, vocab_size=50, max_position_embeddings=20, pad_token_id=seed
        )
        theirs = settled(transformers.InstructBlipQFormerModel(config), seed)
        lengths = [4, 9, 17]
        inputs["tokens"] = padded(random, lengths, 50, seed)
        seen = np.concatenate([np.ones((3, 32), bool), mask(lengths)], 1)
        given |= {"input_ids": inputs["tokens"], "attention_mask": seen.astype(int)}
    theirs.save_pretrained(folder)
    with torch.no_grad():
        found = theirs(**tensors(**given)).last_hidden_state.numpy()
    outputs = {"hidden": found[:, :32]}
    if seed == 1:
        return Reference(inputs, outputs)
    return Reference(inputs, outputs | {"text_hidden": found[:, 32:]}, mask(lengths))


FAMILIES = (
    Family("llava", "llava.arch", "transformers LlavaForConditionalGeneration", save_llava),
    Family(
        "timesformer",
        "timesformer.arch",
        "transformers TimesformerForVideoClassification",
        save_timesformer,
    ),
    Family("qformer", "qformer.arch", "transformers InstructBlipQFormerModel", save_qformer),
)
