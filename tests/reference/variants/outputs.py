"""What goes into a model of transformers and what comes out, by our names."""

from __future__ import annotations

from inspect import signature
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

LENGTH = 9


def arguments(model: Any) -> dict[str, Any]:
    """Arguments by their names: two texts, one padded where padding is known, images, sound."""
    import torch

    config = model.config
    random = np.random.default_rng(0)
    text = getattr(config, "text_config", config)
    image = getattr(config, "vision_config", config)
    takes = signature(model.forward).parameters
    given: dict[str, Any] = {}
    if "input_ids" in takes:
        tokens = _tokens(random, text)
        eos = getattr(text, "eos_token_id", None)
        if "CLIP" in type(model).__name__:
            tokens[0, 5] = tokens[1, 8] = text.vocab_size - 1 if eos == 2 else eos
        if _pads(model):
            tokens[0, 6:] = text.pad_token_id
            given["attention_mask"] = torch.tensor(tokens != text.pad_token_id).long()
        if "T5ForSequence" in type(model).__name__:  # reads the last end of a text
            tokens[0, 5] = tokens[1, 8] = np.ravel(eos)[0]
        given["input_ids"] = torch.tensor(tokens).long()
    if getattr(config, "type_vocab_size", 0):
        segments = random.integers(0, config.type_vocab_size, (2, LENGTH))
        given["token_type_ids"] = torch.tensor(segments).long()
    if "decoder_input_ids" in takes and "T5ForSequence" not in type(model).__name__:
        given["decoder_input_ids"] = torch.tensor(_tokens(random, config)).long()
    if "pixel_values" in takes:
        size = image.image_size
        height, width = size if isinstance(size, list | tuple) else (size, size)
        shape = (2, image.num_channels, height, width)
        given["pixel_values"] = torch.tensor(random.standard_normal(shape)).float()
    if "input_features" in takes:
        shape = (2, config.num_mel_bins, 2 * config.max_source_positions)
        given["input_features"] = torch.tensor(random.standard_normal(shape)).float()
    return given


def _pads(model: Any) -> bool:
    """Whether a padded text has a mask: in encoders, and for the class of a text."""
    kind = type(model).__name__
    encoders = ("Bert", "T5", "Marian", "SequenceClassification")
    pads = any(part in kind for part in encoders)
    return pads and getattr(model.config, "pad_token_id", None) is not None


def _tokens(random: np.random.Generator, config: Any) -> Array:
    """Two texts without special tokens; 0 is the usual padding."""
    special = [v for n, v in config.to_dict().items() if n.endswith("token_id")]
    used = [np.ravel(each) for each in special if each is not None]
    plain = np.setdiff1d(np.arange(1, config.vocab_size), np.concatenate([*used, [0]]))
    return random.choice(plain, (2, LENGTH))


def inputs(model: Any, given: dict[str, Any]) -> dict[str, Array]:
    """The arguments as inputs by our names."""
    encodes = "decoder_input_ids" in signature(model.forward).parameters
    names = {
        "input_ids": "source" if encodes or "T5" in type(model).__name__ else "tokens",
        "token_type_ids": "segments",
        "decoder_input_ids": "target",
        "pixel_values": "pixels",
        "input_features": "mel",
    }
    return {names[n]: value.numpy() for n, value in given.items() if n in names}


def outputs(model: Any, given: dict[str, Any]) -> dict[str, Array]:
    """Their outputs by our names."""
    import torch

    seen: dict[str, Any] = {}
    parts = {"": model.base_model} | {part: getattr(model, part, None) for part in CLIP_PARTS}

    def keep(out: Any, part: str) -> None:
        seen[part] = (
            dict(out) if isinstance(out, dict) else out
        )  # a copy: CLIP changes it later

    for part, module in parts.items():
        if module is not None:
            module.register_forward_hook(lambda *each, part=part: keep(each[-1], part))
    with torch.no_grad():
        out = model(**given, output_hidden_states=True, return_dict=True)
        found = (_of_clip if "CLIP" in type(model).__name__ else _of_others)(model, out, seen)
    return {name: each.numpy() for name, each in found.items() if each is not None}


def _of_others(model: Any, out: Any, seen: dict[str, Any]) -> dict[str, Any]:
    import torch

    kind = type(model).__name__
    if kind.endswith("EncoderModel"):
        return {"memory": out.last_hidden_state}
    base = seen[""]
    if isinstance(base, tuple):  # `return_dict` is false
        base = {"last_hidden_state": base[0]}
    states = out.get("decoder_hidden_states") or out.get("hidden_states")
    found = {
        "hidden": base.get("last_hidden_state", states[-1] if states else None),
        "pooled": base.get("pooler_output"),
        "memory": out.get("encoder_last_hidden_state"),
        "cls_logits": out.get("cls_logits"),
        "distillation_logits": out.get("distillation_logits"),
        _head(kind): out.get("prediction_logits", out.get("logits")),
    }
    if "seq_relationship_logits" in out:
        found["next_logits"] = out.seq_relationship_logits
    if "start_logits" in out:
        found["span_logits"] = torch.stack([out.start_logits, out.end_logits], -1)
    return found


def _head(kind: str) -> str:
    heads = {
        "NextSentence": "next_logits",
        "SequenceClassification": "class_logits",
        "TokenClassification": "token_logits",
    }
    return next((name for part, name in heads.items() if part in kind), "logits")


CLIP_PARTS = {"text_model": ("text", "text"), "vision_model": ("image", "visual")}


def _of_clip(model: Any, out: Any, seen: dict[str, Any]) -> dict[str, Any]:
    """Of each part: the states, the one that is read, its projection, and that scaled."""
    kind = type(model).__name__
    found: dict[str, Any] = {}
    if "logits_per_image" in out:  # of the similarities, ours are those of one pair each
        found["similarity"] = out.logits_per_image.diagonal()
    for part, (ours, theirs) in CLIP_PARTS.items():
        alone = kind == f"CLIP{part.partition('_')[0].title()}Model"
        if not alone and part not in seen:
            continue
        states = seen.get(part, out)
        found[f"{ours}_hidden"] = states["last_hidden_state"]
        found[f"{ours}_pooled"] = states["pooler_output"]
        if project := getattr(model, f"{theirs}_projection", None):
            vector = project(states["pooler_output"])
            found[f"{ours}_vector"] = vector
            found[f"{ours}_features"] = vector / vector.norm(dim=-1, keepdim=True)
            own = "vector" if "WithProjection" in kind else "features"
            found[f"{ours}_{own}"] = out[f"{ours}_embeds"]
    return found
