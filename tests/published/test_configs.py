"""Reading, rejecting and writing published configs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archdsl.analysis import analyse, check
from archdsl.diagnostics import ArchError
from archdsl.formats.host import LazyTensor
from archdsl.pretrained import export
from archdsl.published.config_values import flatten
from archdsl.published.configs import write_config
from archdsl.published.recognise import Recognised, recognise
from archdsl.published.specialise_spec import specialise_spec
from archdsl.syntax import ast

SPEC = """\
model Small(
  vocab = 11, D = 6, heads = 3, kv_heads = heads, act = gelu, eps = 1e-5, tied = true,
  window = none, factor = 1.0, stretched = false
) {
  input tokens: int[T <= 4] < vocab
  h = tokens -> embed(vocab, D) -> norm(layer, eps) -> act
  output logits: float[T, vocab] = h -> unembed(embed) if tied else head: linear(vocab)
}

weights "huggingface" for Small {
  config {
    model_type = "small"
    architectures = list("SmallLM")
    vocab_size = vocab
    sizes.hidden | hidden_size = D
    num_heads = heads
    num_kv_heads = kv_heads default heads
    hidden_act = names(act, gelu = "gelu", gelu_tanh = one_of("gelu_new", "gelu_tanh"))
    norm.eps = eps default 1e-6
    tie_word_embeddings = tied default false
    sliding_window = window
    is_decoder = false default false
    head_size = D // heads default D // heads
    layer_types = list("full", heads) default list("full", heads)
    summary = any
    stretched = stretched default false
    if stretched {
      rope.factor = factor
    }
  }
  embed.* = wte.*
  norm.* = ln.*
  if not tied { head.* = head.* }
}

model Other() { input x: float[3]  output y: float[3] = x -> linear(3) }

weights "huggingface" for Other {
  config {
    model_type = "small"
    architectures = list("OtherLM")
  }
  linear.* = fc.*
}

weights "mute" for Other { linear.* = fc.* }
"""
CONFIG: dict[str, Any] = {
    "model_type": "small",
    "architectures": ["SmallLM"],
    "vocab_size": 13,
    "sizes": {"hidden": 10},
    "num_heads": 5,
    "hidden_act": "gelu_tanh",
    "sliding_window": None,
    "transformers_version": "4.0",
    "id2label": {"0": "a"},
    "norm": {"eps": 1},
}


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("small.arch").write_text(SPEC, encoding="utf-8")
    return "small.arch"


def read(config: Mapping[str, Any], spec: str, **more: Any) -> Recognised:
    changed = {k: v for k, v in {**config, **more}.items() if v != "absent"}
    return recognise("config.json", changed, spec)


def test_a_config_sets_the_parameters(spec: str) -> None:
    known = read(CONFIG, spec)
    assert known.model.name.id == "Small"
    assert known.settings == {
        "vocab": 13,
        "D": 10,
        "heads": 5,
        "kv_heads": 5,
        "act": "gelu_tanh",
        "eps": 1,
        "tied": False,
        "window": "none",
        "stretched": False,
    }


def test_a_round_trip_keeps_every_field(spec: str) -> None:
    whole = {
        "model_type": "small",
        "architectures": ["SmallLM"],
        "vocab_size": 13,
        "sizes": {"hidden": 14},
        "num_heads": 7,
        "num_kv_heads": 3,
        "hidden_act": "gelu_new",
        "norm": {"eps": 0.125},
        "tie_word_embeddings": False,
        "sliding_window": 9,
        "stretched": True,
        "rope": {"factor": 2.5},
    }
    # A field fixed to its value when absent is read but not written.
    fixed = {"is_decoder": False, "head_size": 2, "layer_types": ["full"] * 7}
    known = read(whole, spec, **fixed)
    analysis = analyse(f"{spec}:Small", settings=known.settings)
    config = analysis.maps["huggingface"].config
    assert config is not None
    assert write_config(config, analysis.elaborator, analysis.env) == whole


def test_the_best_matching_block_is_used(spec: str) -> None:
    assert read({"model_type": "small", "architectures": ["OtherLM"]}, spec).model.name.id == (
        "Other"
    )


def test_an_old_config_is_known_by_its_architecture(spec: str) -> None:
    known = read({"architectures": ["OtherLM"]}, spec)
    assert (known.model.name.id, known.settings) == ("Other", {})


WRONG: dict[str, dict[str, Any]] = {
    "unknown_field": {"rope_scalling": {"type": "yarn"}, "num_head": 3},
    "unknown_choice": {"hidden_act": "gelu_nwe"},
    "no_text": {"hidden_act": 3},
    "missing": {"vocab_size": "absent"},
    "fixed": {"is_decoder": True},
    "computed": {"head_size": 3, "layer_types": ["full", "sliding"]},
    "two_spellings": {"hidden_size": 11},
    "no_value": {"vocab_size": [3]},
    "fraction": {"vocab_size": 1.5},
    "truth": {"num_heads": True},
    "out_of_condition": {"rope": {"factor": 2.0}},
    "in_condition": {"stretched": True},
    "another_model": {"model_type": "smal"},
    "no_type": {"model_type": "absent", "architectures": ["OldLM"]},
    "another_architecture": {"architectures": ["SmallForTokens"]},
    "several": {"vocab_size": "absent", "hidden_act": "no", "is_decoder": True, "odd": 1},
}


@pytest.mark.parametrize("name", WRONG)
def test_rejected_configs(name: str, spec: str, golden: Callable[[str, str], None]) -> None:
    def refuse() -> None:
        known = read(CONFIG, spec, **WRONG[name])
        analyse(f"{spec}:Small", settings=known.settings)

    with pytest.raises(ArchError) as raised:
        refuse()
    golden(f"semantics/configs/{name}.txt", f"{raised.value}\n")


def test_nested_fields() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": None}, "e": {}}) == {"a.b.c": 1, "a.d": None}


def test_tensors_replace_missing_fields(spec: str) -> None:
    text = SPEC.replace(
        "tie_word_embeddings = tied default false", "tensors.head.weight = not tied"
    )
    Path("small.arch").write_text(text, encoding="utf-8")
    for tensors, tied in (("head.weight",), False), (("wte.weight",), True):
        stored = dict.fromkeys(tensors, LazyTensor("float32", (1,), lambda: np.zeros(1)))
        known = recognise("config.json", CONFIG, spec, stored)
        assert known.settings["tied"] is tied
        analysis = analyse(f"{spec}:Small", settings=known.settings)
        config = analysis.maps["huggingface"].config
        assert config is not None
        assert "tensors" not in write_config(config, analysis.elaborator, analysis.env)


def test_classes_are_counted_by_their_labels(spec: str) -> None:
    text = SPEC.replace(
        "num_heads = heads", "num_heads = heads\n    id2label | num_labels = labels(classes)"
    )
    text = text.replace("stretched = false\n)", "stretched = false, classes = 2\n)")
    Path("small.arch").write_text(text, encoding="utf-8")
    labels = {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}
    known = read(CONFIG, spec, id2label=labels)
    assert known.settings["classes"] == 3
    assert read(CONFIG, spec, id2label="absent", num_labels=3).settings["classes"] == 3
    assert read(CONFIG, spec, id2label=labels, num_labels=3).settings["classes"] == 3
    with pytest.raises(ArchError, match="id2label and num_labels must have the same value"):
        read(CONFIG, spec, id2label=labels, num_labels=2)
    analysis = analyse(f"{spec}:Small", settings=known.settings)
    config = analysis.maps["huggingface"].config
    assert config is not None
    assert write_config(config, analysis.elaborator, analysis.env)["id2label"] == labels


# -- configs without a model type --

NANO: dict[str, Any] = {
    "model_args": {"n_layer": 1, "n_head": 2, "n_embd": 4, "block_size": 8, "vocab_size": 9},
    "config": {"dataset": "letters", "wandb": {"log": False}},
    "iter_num": 3,
}


def test_a_nested_field_identifies_a_config() -> None:
    found = recognise("ckpt.pt", NANO)
    assert (found.path.name, found.title) == ("gpt2.arch", "nanogpt")
    sizes = {"vocab": 9, "context": 8, "D": 4, "heads": 2, "depth": 1}
    assert found.settings == {**sizes, "bias": True, "act": "gelu"}


def test_its_other_fields_are_read_strictly() -> None:
    args = NANO["model_args"] | {"rotary": True}
    with pytest.raises(ArchError, match=r"model_args\.rotary is true, but this spec does not"):
        recognise("ckpt.pt", NANO | {"model_args": args})


def test_it_has_no_config_json() -> None:
    made = analyse("gpt2.arch:small")
    with pytest.raises(ArchError, match="no `weights` block") as raised:
        export(made, "missing.safetensors", "there", "nanogpt", 1000)
    assert raised.value.diagnostics[0].expected == "`huggingface`"


# -- lists that a parameter holds as a string --

LISTS = """\
model Lists(layers = "", limits = "0.0 inf", depth = 2, window = 4) {
  input x: float[3]
  output y: float[3] = x -> h: { linear(3) -> shift(window) } * depth
}

weights "huggingface" for Lists {
  config {
    model_type = "lists"
    layer_types = words(layers, full = "full_attention", conv = "conv") default none
    time_step_limit = numbers(limits) default "0.0 inf"
    windows = list(window, depth) default list(window, depth)
  }
  h.{i}.linear.* = h.{i}.*
}
"""


def lists(tmp_path: Path, **fields: Any) -> Mapping[str, Any]:
    spec = tmp_path / "lists.arch"
    spec.write_text(LISTS, encoding="utf-8")
    return recognise("config.json", {"model_type": "lists", **fields}, str(spec)).settings


def test_a_list_is_a_string(tmp_path: Path) -> None:
    assert lists(tmp_path) == {"layers": "", "limits": "0.0 inf"}
    limits = [0, {"__float__": "Infinity"}]
    given = {"layer_types": ["conv", "full_attention"], "time_step_limit": limits}
    assert lists(tmp_path, **given) == {"layers": "conv full", "limits": "0.0 inf"}
    assert lists(tmp_path, time_step_limit=[2, 6])["limits"] == "2 6"


def test_a_specialised_spec_has_only_what_its_model_uses(tmp_path: Path) -> None:
    others = """
use "blocks.arch"
block outer(x: float[T, D]): float[T, D] { x -> inner }
block inner(x: float[T, D]): float[T, D] { x -> linear(D) }
model Other() { input x: float[4, 3]  output y: float[4, 3] = x -> outer -> layer_scale }
weights "shared" { config { act = any } }
weights "huggingface" for Other {
  include "shared"
  config { model_type = "other" }
  outer.inner.linear.* = h.*
  layer_scale.* = scale.*
}
"""
    spec = tmp_path / "lists.arch"
    spec.write_text(others + LISTS, encoding="utf-8")
    known = recognise("config.json", {"model_type": "lists"}, str(spec))
    items = specialise_spec(known, 24, {"huggingface"}).items
    assert [type(item) for item in items] == [ast.Model, ast.Weights]


def test_equal_values_of_a_list_set_a_parameter(tmp_path: Path) -> None:
    assert lists(tmp_path, windows=[6, 6])["window"] == 6


@pytest.mark.parametrize(
    "fields",
    [
        {"layer_types": "conv"},
        {"layer_types": ["conv", "other"]},
        {"layer_types": [["conv"]]},
        {"time_step_limit": "0.0 inf"},
        {"time_step_limit": [True]},
        {"windows": [4, 5]},
        {"windows": [5, 5, 5]},
        {"windows": 4},
        {"windows": [0.5, 0.5]},
        {"windows": []},
    ],
)
def test_what_is_no_such_list_is_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    with pytest.raises(ArchError) as caught:
        lists(tmp_path, **fields)
    assert f"{next(iter(fields))} is " in str(caught.value)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("numbers(limits)", '"0.0 wide" is no list of numbers'),
        ("numbers(limit)", "nothing is named `limit` here"),
    ],
)
def test_a_string_of_a_spec_that_is_no_list_is_refused(
    tmp_path: Path, written: str, message: str
) -> None:
    spec = tmp_path / "lists.arch"
    text = LISTS.replace('"0.0 inf",', '"0.0 wide",').replace("numbers(limits)", written)
    spec.write_text(text, encoding="utf-8")
    (found,) = check(str(spec))
    assert (found.code, found.message) == ("config", message)


def test_null_is_no_number(tmp_path: Path) -> None:
    spec = tmp_path / "lists.arch"
    line = '    model_type = "lists"\n'
    text = LISTS.replace(line, line + "    num_layers = depth default 2 null none\n")
    spec.write_text(text, encoding="utf-8")
    config: dict[str, Any] = {"model_type": "lists"}
    assert recognise("config.json", config, str(spec)).settings["depth"] == 2
    with pytest.raises(ArchError, match="num_layers is null, but `depth` must be a whole"):
        recognise("config.json", config | {"num_layers": None}, str(spec))
