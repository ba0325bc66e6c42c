"""The config of an export: the imported one, with the fields of changed parameters."""

from __future__ import annotations

from typing import Any

import pytest

from archdsl.analysis import analyse
from archdsl.diagnostics import ArchError
from archdsl.published.keep_config import keep_fields

GPT2: dict[str, Any] = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "vocab_size": 100,
    "n_positions": 8,
    "n_ctx": 8,
    "n_embd": 16,
    "n_head": 2,
    "n_layer": 1,
    "n_inner": None,
    "layer_norm_epsilon": 1e-5,
    "activation_function": "gelu_pytorch_tanh",
    "bos_token_id": 7,
    "id2label": {"0": "cat"},
}
SMALL = {"vocab": 100, "context": 8, "D": 16, "heads": 2, "depth": 1, "inner": 64}
BERT: dict[str, Any] = {
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "vocab_size": 100,
    "max_position_embeddings": 8,
    "hidden_size": 16,
    "type_vocab_size": 2,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "intermediate_size": 64,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "id2label": {"0": "cat", "1": "dog", "2": "tree"},
    "label2id": {"cat": 0},
}
HEADED = {**SMALL, "task": "classify", "eps": 1e-5}


def keep(spec: str, settings: dict[str, Any], original: dict[str, Any], *ignore: str) -> Any:
    made = analyse(spec, settings=settings)
    node = made.maps["huggingface"].config
    assert node is not None
    options = (made.model, made.elaborator, made.env, original, {}, ignore)
    return keep_fields("config.json", node, *options)


def changes(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The fields with another value, None for those that are gone."""
    return {name: new.get(name) for name in old | new if old.get(name, ()) != new.get(name, ())}


@pytest.mark.parametrize(
    ("spec", "settings", "original"),
    [("gpt2.arch", SMALL, GPT2), ("bert.arch:Bert", {**HEADED, "classes": 3}, BERT)],
)
def test_the_config_of_an_equal_model_is_kept(
    spec: str, settings: dict[str, Any], original: dict[str, Any]
) -> None:
    assert keep(spec, settings, original) == original


@pytest.mark.parametrize(
    ("settings", "changed"),
    [
        ({"vocab": 101}, {"vocab_size": 101}),
        ({"act": "relu"}, {"activation_function": "relu"}),
        ({"inner": 32}, {"n_inner": 32}),
        # The width of the MLP would follow from D.
        ({"D": 32}, {"n_embd": 32, "n_inner": 64}),
        ({"task": "none"}, {"architectures": ["GPT2Model"]}),
    ],
)
def test_only_fields_of_changed_parameters_change(
    settings: dict[str, Any], changed: dict[str, Any]
) -> None:
    assert changes(GPT2, keep("gpt2.arch", SMALL | settings, GPT2)) == changed


def test_the_names_of_other_classes_are_new() -> None:
    found = keep("bert.arch:Bert", {**HEADED, "classes": 2}, BERT)
    labels = {"0": "LABEL_0", "1": "LABEL_1"}
    assert changes(BERT, found) == {"id2label": labels, "label2id": None}


def test_a_field_keeps_its_name() -> None:
    rope = {"rope_type": "linear", "factor": 4.0}
    original = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 100,
        "max_position_embeddings": 8,
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "rope_theta": 500.0,
        "rope_scaling": rope,
    }
    sizes = {"vocab": 100, "context": 8, "D": 16, "heads": 2, "depth": 1, "inner": 64}
    sizes |= {"kv_heads": 2, "theta": 500.0, "scaling": "linear", "factor": 4.0}
    assert keep("llama.arch", sizes, original) == original
    found = keep("llama.arch", sizes | {"factor": 8.0, "theta": 900.0}, original)
    changed = {"rope_theta": 900.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    assert changes(original, found) == changed


def test_the_config_of_another_model_is_an_error() -> None:
    with pytest.raises(ArchError, match=r"config\.json: "):
        keep("gpt2.arch", SMALL, BERT)


def test_unknown_fields_are_an_error_unless_they_are_ignored() -> None:
    odd = GPT2 | {"odd": 3}
    with pytest.raises(ArchError, match="--ignore odd"):
        keep("gpt2.arch", SMALL, odd)
    assert keep("gpt2.arch", SMALL, odd, "odd") == odd
