"""Models of two streams that transformers has saved compute the same here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import archdsl
from tests.reference.agreement import TOLERANCE
from tests.reference.families import Family, disagreement
from tests.reference.families.seq2seq import FAMILIES
from tests.suite import first

pytestmark = pytest.mark.reference("torch", "transformers")


@pytest.mark.parametrize("seed", first(range(3)))
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_what_transformers_saved_computes_the_same(
    tmp_path: Path, family: Family, seed: int
) -> None:
    reference = family.save(tmp_path, seed)
    ours = archdsl.from_pretrained(tmp_path, device="CPU")(**reference.inputs)
    for name, difference in disagreement(ours, reference).items():
        assert difference <= TOLERANCE, name
    best = ours["logits"].numpy().argmax(-1)
    assert np.array_equal(best, reference.outputs["logits"].argmax(-1))
