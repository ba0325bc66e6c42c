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


@pytest.mark.parametrize("ways", [("max_tokens",), ("cls_token", "mean_tokens"), ()])
def test_other_poolings_are_an_error(ways: tuple[str, ...], tmp_path: Path) -> None:
    written(tmp_path, BOTH, **dict.fromkeys(ways, True))
    with pytest.raises(ArchError, match="this pooling is not supported"):
        read_pooling(tmp_path)
    assert read_pooling(tmp_path, "mean").pool == "mean"


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
