"""Text embeddings: batches, padding, truncation, and the files of sentence-transformers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import archdsl
from archdsl.diagnostics import ArchError
from archdsl.tasks.embed import (
    POOLS,
    Pooling,
    embed,
    find_encoder,
    read_pooling,
    similarity,
    tokenize,
)

SIZES = {"vocab": 40, "context": 24, "D": 8, "heads": 2, "depth": 1}


class Letters:
    """Letters from 3 on, between 1 and 2, as BERT has [CLS] and [SEP]."""

    def encode(self, text: str) -> list[int]:
        return [1, *(ord(letter) - 62 for letter in text), 2]


def tokens(text: str, **pooling: Any) -> list[int]:
    found, _ = tokenize(Letters(), [text], Pooling(**pooling), 24)  # type: ignore[arg-type]
    return found[0]


@pytest.mark.parametrize("pool", ["mean", "cls"])
@pytest.mark.parametrize("spec", ["bert.arch:Bert", "gpt2.arch"])
def test_vectors_do_not_depend_on_the_batch(pool: str, spec: str) -> None:
    model = archdsl.compile(spec, device="CPU", **SIZES)
    rng = np.random.default_rng(0)
    # More than one batch, of all lengths, in random order.
    rows = [rng.integers(1, 40, rng.integers(1, 17)).tolist() for _ in range(35)]
    if spec == "gpt2.arch":  # without padding, each length is a program
        rows = [row[:3] for row in rows[:6]]
    pooling = Pooling(pool)
    vectors = embed(model, rows, pooling)
    assert vectors.shape == (len(rows), 8)
    plain = embed(model, rows, replace(pooling, normalise=False))
    for row, vector, whole in list(zip(rows, vectors, plain, strict=True))[:2]:
        given: dict[str, Any] = {"tokens": [row]}
        if len(model.graph.inputs) > 1:
            given["segments"] = [[0] * len(row)]
        states = model(**given)[find_encoder(model.graph).hidden].numpy()[0]
        right = states.mean(0) if pool == "mean" else states[0]
        np.testing.assert_allclose(vector, right / np.linalg.norm(right), atol=1e-5)
        np.testing.assert_allclose(whole, right, atol=1e-5)


def test_similarity_is_the_cosine() -> None:
    vectors = np.array([[3, 4], [4, 3], [-6, -8]], np.float32)
    right = [[1, 0.96, -1], [0.96, 1, -0.96], [-1, -0.96, 1]]
    np.testing.assert_allclose(similarity(vectors), right, atol=1e-6)


def test_truncation_keeps_the_end_token() -> None:
    assert tokens("ABCDEF", limit=5) == [1, 3, 4, 5, 2]
    assert tokens("ABC", limit=5) == [1, 3, 4, 5, 2]
    assert len(tokens("A" * 50)) == 24
    words, cut = tokenize(Letters(), ["A", "A" * 30], Pooling(), 24)  # type: ignore[arg-type]
    assert (len(words[1]), cut) == (24, [1])


def test_prompts_and_lower_case() -> None:
    assert tokens("b", prompt="A") == [1, 3, ord("b") - 62, 2]
    assert tokens("B", lower=True) == tokens("b")


def test_models_that_do_not_encode_texts() -> None:
    assert find_encoder(archdsl.compile("bert.arch:BertMaskedLM").graph).hidden == "hidden"
    for spec in ("vit.arch", "clip.arch", "annalog.arch", "gpt.arch"):
        with pytest.raises(ArchError, match="is not a text encoder"):
            find_encoder(archdsl.compile(spec).graph)


# -- the files of sentence-transformers --


def written(
    folder: Path, modules: list[str], general: dict[str, Any] | None = None, **pooling: bool
) -> Path:
    named = [{"type": f"sentence_transformers.models.{m}", "path": m} for m in modules]
    named[0]["path"] = ""
    (folder / "modules.json").write_text(json.dumps(named))
    (folder / "Pooling").mkdir()
    text = {f"pooling_mode_{name}": on for name, on in pooling.items()}
    (folder / "Pooling" / "config.json").write_text(json.dumps(text))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 7}')
    (folder / "config_sentence_transformers.json").write_text(json.dumps(general or {}))
    return folder


BOTH = ["Transformer", "Pooling"]


def test_pooling_is_read_from_the_checkpoint(tmp_path: Path) -> None:
    assert read_pooling(tmp_path) == Pooling("mean", True, None)
    written(tmp_path, BOTH, cls_token=True, mean_tokens=False)
    assert read_pooling(tmp_path) == Pooling("cls", False, 7)
    assert read_pooling(tmp_path, "mean") == Pooling("mean", False, 7)


def test_normalisation_and_prompts_from_the_checkpoint(tmp_path: Path) -> None:
    general = {"prompts": {"query": "find: "}, "default_prompt_name": "query"}
    written(tmp_path, [*BOTH, "Normalize"], general, mean_tokens=True)
    assert read_pooling(tmp_path) == Pooling("mean", True, 7, prompt="find: ")


@pytest.mark.parametrize(
    ("general", "message"),
    [
        ({"prompts": {"query": 3}, "default_prompt_name": "query"}, "are not texts"),
        ({"prompts": {"query": "q"}, "default_prompt_name": False}, "are not texts"),
        ({"prompts": [1], "default_prompt_name": "query"}, "are not texts"),
        ({"prompts": {"query": "q"}, "default_prompt_name": "queri"}, "did you mean `query`"),
    ],
)
def test_odd_prompts_are_an_error(
    general: dict[str, Any], message: str, tmp_path: Path
) -> None:
    written(tmp_path, BOTH, general)
    with pytest.raises(ArchError, match=message):
        read_pooling(tmp_path)


@pytest.mark.parametrize("path", ["../elsewhere", "/etc"])
def test_a_module_outside_the_folder_is_refused(path: str, tmp_path: Path) -> None:
    modules = [{"type": "a.Pooling", "path": path}]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ArchError, match="is not in the folder"):
        read_pooling(tmp_path)


def pooling_file(folder: Path, fields: dict[str, Any]) -> Path:
    """A folder of sentence-transformers with these fields in its config of pooling."""
    written(folder, BOTH)
    (folder / "Pooling" / "config.json").write_text(json.dumps(fields))
    return folder


SIZE = {"embedding_dimension": 8, "include_prompt": True}


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("listed", [False, True])
def test_the_pooling_of_sentence_transformers_5_4(
    name: str, listed: bool, tmp_path: Path
) -> None:
    mode = [name] if listed else name
    folder = pooling_file(tmp_path, {**SIZE, "pooling_mode": mode})
    assert read_pooling(folder).pool == name


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ({"max_tokens": True, "mean_tokens": False}, "max"),
        ({"lasttoken": True}, "lasttoken"),
        ({"mean_sqrt_len_tokens": True}, "mean_sqrt_len_tokens"),
        ({"weightedmean_tokens": True}, "weightedmean"),
        ({"mean_tokens": False}, "mean"),
        ({}, "mean"),
    ],
)
def test_the_flags_of_older_files(flags: dict[str, bool], name: str, tmp_path: Path) -> None:
    assert read_pooling(written(tmp_path, BOTH, **flags)).pool == name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pooling_mode": ["cls", "mean"]}, "several poolings are not supported"),
        (
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
            "several poolings are not supported",
        ),
        ({"pooling_mode": "median"}, "unknown pooling"),
        ({"pooling_mode": 3}, "unknown pooling"),
        ({"pooling_mode": [["cls"]]}, "unknown pooling"),
        ({"pooling_mode_median": True}, "the field `pooling_mode_median` is unknown"),
        ({"include_prompt": False}, "`include_prompt` is false"),
    ],
)
def test_other_poolings_are_an_error(
    fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = pooling_file(tmp_path, fields)
    with pytest.raises(ArchError, match=message):
        read_pooling(folder)
    assert read_pooling(folder, "mean").pool == "mean"


@pytest.mark.parametrize("name", POOLS)
def test_poolings(name: str) -> None:
    states = np.array([[1.0, -4.0], [2.0, 8.0]])
    right = {
        "mean": [1.5, 2.0],
        "cls": [1.0, -4.0],
        "lasttoken": [2.0, 8.0],
        "max": [2.0, 8.0],
        "mean_sqrt_len_tokens": [3 / 2**0.5, 4 / 2**0.5],
        "weightedmean": [(1 + 4) / 3, (-4 + 16) / 3],
    }
    np.testing.assert_allclose(POOLS[name](states), right[name])


def test_the_maximum_length_is_the_tokenizers(tmp_path: Path) -> None:
    folder = written(tmp_path, BOTH)
    tokenizer = folder / "tokenizer_config.json"
    tokenizer.write_text(json.dumps({"model_max_length": 9}))
    assert read_pooling(folder).limit == 7
    # sentence-transformers 5.4 does not write `max_seq_length`.
    text = {"method": "forward", "method_output_name": "last_hidden_state"}
    task = {"transformer_task": "feature-extraction", "modality_config": {"text": text}}
    (folder / "sentence_bert_config.json").write_text(json.dumps(task))
    assert read_pooling(folder).limit == 9
    tokenizer.write_text(json.dumps({"model_max_length": 10**30}))
    assert tokens("A" * 50, limit=read_pooling(folder).limit) == tokens("A" * 50)


@pytest.mark.parametrize(
    "fields",
    [
        {"transformer_task": "fill-mask"},
        {"module_output_name": "sentence_embedding"},
        {"processing_kwargs": {"text": {"max_length": 3}}},
        {"modality_config": {"text": {"method": "get_text_features"}}},
    ],
)
def test_other_transformers_are_an_error(fields: dict[str, Any], tmp_path: Path) -> None:
    folder = written(tmp_path, BOTH)
    (folder / "sentence_bert_config.json").write_text(json.dumps(fields))
    (name,) = fields
    with pytest.raises(ArchError, match=f"this `{name}` is not supported"):
        read_pooling(folder)


def test_other_modules_are_an_error(tmp_path: Path) -> None:
    written(tmp_path, [*BOTH, "Dense"], mean_tokens=True)
    with pytest.raises(ArchError, match="these modules are not supported"):
        read_pooling(tmp_path, "mean")


@pytest.mark.parametrize("prompts", [{}, {"prompts": {}}, {"prompts": {"quary": "find: "}}])
def test_a_missing_default_prompt_is_an_error(prompts: dict[str, Any], tmp_path: Path) -> None:
    written(tmp_path, BOTH, {**prompts, "default_prompt_name": "query"}, mean_tokens=True)
    with pytest.raises(ArchError, match="the default prompt `query` is not among") as raised:
        read_pooling(tmp_path)
    help = raised.value.diagnostics[0].help or ""
    assert ("did you mean `quary`?" in help) == bool(prompts.get("prompts"))
