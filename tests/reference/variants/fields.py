"""Variants of configs, drawn from a seed, and the values that their fields take.

The fields are those of the class itself: the dataclass, its bases, and what `to_dict` returns.
A value follows from the type and the default of its field.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from archdsl.published.config_values import is_bookkeeping
from tests.reference.variants.families import FAMILIES, SIZES, Family

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed; CONTRIBUTING.md says how"
)
from transformers.activations import ACT2FN  # noqa: E402

VALUES = 2  # of each field of the main class of a family; one where no effect is expected
OF_HEADS = 2  # variants of each other class
TOGETHER = 4  # variants of each main class with several fields changed
ABSENT = "(absent)"

# What a config says of itself, and the dtype: all comparisons are in float32. The number of
# labels stands for both tables of labels.
RECORDS = {
    "transformers_version",
    "architectures",
    "_name_or_path",
    "model_type",
    "dtype",
    "id2label",
    "label2id",
}
# Fields that the base class reads without declaring them.
UNDECLARED: dict[str, list[Any]] = {
    "num_labels": [3, 1],
    "tie_last_hidden_states": [False],
    "per_layer_config": [{"1": {"intermediate_size": 20}}],
}
CHOICES: dict[str, list[Any]] = {
    "feed_forward_proj": ["relu", "gated-gelu", "gated-silu", "gated-relu", "gelu", "silu"],
    "problem_type": ["regression", "multi_label_classification"],
    "summary_type": ["last", "first", "mean", "attn"],
    "layer_types": [
        ["sliding_attention", "full_attention"],
        ["full_attention", "sliding_attention"],
        ["sliding_attention"] * 2,
        ["full_attention", "chunked_attention"],
    ],
    "image_size": [32, 24, [16, 24]],
    "patch_size": [4, 16, [8, 4]],
    "stage_names": [["stem", "one", "two"]],
    "out_features": [["stage1"], ["stem", "stage2"]],
    "out_indices": [[1], [0, 2]],
}
_YARN = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 12}
_LONG = {"short_factor": [1.0, 1.5, 2.0], "long_factor": [2.0, 3.0, 4.5]}
_LLAMA3 = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
ROPE: list[dict[str, Any]] = [
    {"rope_type": "default", "rope_theta": 500.0},
    {"rope_type": "default", "partial_rotary_factor": 0.5},
    {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "dynamic", "factor": 2.0},
    _YARN,
    {**_YARN, "beta_fast": 8.0, "beta_slow": 2.0},
    {**_YARN, "attention_factor": 0.7},
    {**_YARN, "mscale": 0.7, "mscale_all_dim": 1.4},
    {**_YARN, "truncate": False},
    {"rope_type": "llama3", "original_max_position_embeddings": 12, **_LLAMA3},
    {"rope_type": "longrope", "original_max_position_embeddings": 12, **_LONG},
    {"rope_type": "longrope", "original_max_position_embeddings": 6, **_LONG},
    {"rope_type": "proportional", "factor": 2.0},
]
# Fields of other releases, beside the `rope_parameters` of this one.
ROPE_BESIDE: list[dict[str, Any]] = [
    {"rope_theta": 500.0},
    {"rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    {"rope_scaling": {"type": "linear", "factor": 4.0}},
    {"rope_scaling": {"factor": 4.0}},
    {"partial_rotary_factor": 0.5},
    {"original_max_position_embeddings": 12},
    {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 500.0}}},
    {"rope_parameters": {"type": "linear", "factor": 4.0, "rope_theta": 10000.0}},
    {"rope_parameters": {"rope_type": "linear", "factor": 4.0}},
    {"rope_parameters": ABSENT, "rope_theta": 500.0},
    {"rope_parameters": ABSENT, "rope_theta": ABSENT},
]
# A part of CLIP as releases of 2022 wrote it: this one replaces the other.
TWICE: list[dict[str, Any]] = [
    {"text_config_dict": {}},
    {"text_config_dict": {"hidden_act": "gelu"}},
    {"vision_config_dict": {}},
    {"vision_config_dict": {"hidden_act": "gelu", "layer_norm_eps": 0.01}},
]
# The labels as releases before 2020 wrote them.
COUNTED = {"id2label": ABSENT, "label2id": ABSENT, "num_labels": 3}


@dataclass(frozen=True)
class Variant:
    """One model: changed fields of its config, by dotted names, and fields that are changed in
    config.json after the model was saved."""

    family: Family
    model: str
    change: dict[str, Any] = field(default_factory=dict)
    written: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        changed = [f"{name} = {json.dumps(value)}" for name, value in self.change.items()]
        written = [f"{name} = {json.dumps(value)}" for name, value in self.written.items()]
        if written:
            changed.append(f"in config.json: {', '.join(written)}")
        return f"{self.model}: {', '.join(changed) or 'small'}".replace(f'"{ABSENT}"', ABSENT)


def variants() -> list[Variant]:
    """All variants, in a fixed order, each once."""
    found = {str(each): each for family in FAMILIES for each in _of_family(family)}
    return list(found.values())


def _of_family(family: Family) -> Iterator[Variant]:
    random = Random(family.title)
    main, *heads = family.models
    options = _options(small(family)) | UNDECLARED
    effects = [name for name in options if not is_bookkeeping(name)]
    drawn = {
        name: random.sample(v, min(VALUES if name in effects else 1, len(v)))
        for name, v in options.items()
    }
    if "rope_parameters" in options:
        drawn["rope_parameters"] = options["rope_parameters"]
    yield Variant(family, main)
    for name, values in drawn.items():
        for value in values:
            yield Variant(family, main, {name: value}, _old_names(name, value, random))
    for _ in range(TOGETHER):
        yield Variant(family, main, _several(options, random))
    for name in effects:
        if name not in UNDECLARED and "." not in name:
            yield Variant(family, main, {}, {name: ABSENT})
    if "rope_parameters" in options:
        for written in ROPE_BESIDE:
            yield Variant(family, main, {}, written)
    if family.title == "CLIP":
        for change in TWICE:
            yield from _replaced(family, change)
    for model in heads:
        # A class of a text is read at its last token, which padding tells.
        pad = {"pad_token_id": 5} if "pad_token_id" in options and "Seq" in model else {}
        yield Variant(family, model, pad)
        yield Variant(family, model, {**pad, "num_labels": 3})
        if "Classification" in model:
            yield Variant(family, model, {**pad, "num_labels": 3}, COUNTED)
        for _ in range(OF_HEADS):
            yield Variant(family, model, {**pad, **_several(options, random)})


def _replaced(family: Family, change: dict[str, Any]) -> Iterator[Variant]:
    """The same change in the second config of a part, with the activation of the first left."""
    for name, fields in change.items():
        part = name.removesuffix("_dict")
        sizes = {**family.sizes[part], **fields}
        left = {f"{part}.hidden_act": "gelu"} if not fields else {}
        yield Variant(family, family.models[0], left, {name: sizes})


def _several(options: dict[str, list[Any]], random: Random) -> dict[str, Any]:
    names = random.sample(list(options), random.randint(2, 4))
    # Fields that share a word often depend on each other, such as a switch and its size.
    words = {word for word in names[0].split("_") if len(word) > 6}
    names += [name for name in options if words & set(name.split("_"))][:2]
    return {name: random.choice(options[name]) for name in dict.fromkeys(names)}


def _old_names(name: str, value: Any, random: Random) -> dict[str, Any]:
    """Rotary fields as releases before 5 wrote them, for half of the variants."""
    if name != "rope_parameters" or random.random() < 0.5 or "partial_rotary_factor" in value:
        return {}
    scaling = {n: v for n, v in value.items() if n != "rope_theta"}
    old = {"rope_parameters": ABSENT, "rope_theta": value["rope_theta"]}
    return old | {"rope_scaling": scaling if scaling["rope_type"] != "default" else None}


def small(family: Family, change: dict[str, Any] | None = None) -> Any:
    """A config of a family in small sizes, with changed fields."""
    made = getattr(transformers, family.config)
    fields = {n: v for n, v in SIZES.items() if n in made.__dataclass_fields__}
    given: dict[str, Any] = fields | json.loads(json.dumps(family.sizes))
    for name, value in (change or {}).items():
        put(given, name, value)
    return made(**given, attn_implementation="eager")


def put(config: dict[str, Any], name: str, value: Any) -> None:
    """Sets a field by its dotted name, or removes it."""
    *within, leaf = name.split(".")
    for part in within:
        config = config.setdefault(part, {})
    config.pop(leaf, None)
    if value != ABSENT:
        config[leaf] = value


def _options(config: Any, prefix: str = "") -> dict[str, list[Any]]:
    """Other values of each field of a config, by dotted name."""
    kinds = {name: str(f.type) for name, f in config.__dataclass_fields__.items()}
    names = [name for name, kind in kinds.items() if "ClassVar" not in kind]
    found: dict[str, list[Any]] = {}
    for name in dict.fromkeys([*names, *config.to_dict()]):
        if name in RECORDS or name.startswith("_"):
            continue
        value = getattr(config, name, None)
        if hasattr(value, "to_dict"):
            found |= _options(value, f"{name}.")
        elif others := [v for v in _others(name, value, kinds.get(name, "")) if v != value]:
            found[prefix + name] = others
    return found


def _others(name: str, value: Any, kind: str) -> list[Any]:
    """Values for a field beside `value`; most are valid."""
    nothing = [None] if "None" in kind else []
    if name in CHOICES:
        return CHOICES[name]
    if name == "rope_parameters":
        return [{"rope_theta": 10000.0, **each} for each in ROPE]
    if name.endswith("token_id"):
        return [7, 2, *([[7, 8]] if "list" in kind else []), *nothing]
    if name.endswith(("tokens", "token_ids")):
        return [[9, 10], *nothing]
    if isinstance(value, bool):
        return [not value]
    if "activation" in name or name.endswith(("_act", "_act_fn", "afn")):
        return [each for each in ACT2FN if each not in ("prelu", "xielu")]  # they have weights
    match value:
        case int():
            return [2 * value or 1, max(1, value // 2), value + 2, *nothing]
        case float():
            return [2 * value, value / 2, min(1.0, 10 * value) or 0.25, *nothing]
        case None if "int" in kind:
            return [8, 12]
        case None if "float" in kind:
            return [0.5]
        case _:
            return []
