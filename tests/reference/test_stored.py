"""Our specs give the outputs and losses that PyTorch gave when stored/*.npz was made.

stored/make_references.py says how; the other tests of this folder compare with PyTorch itself.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tinygrad.helpers import Context

import archdsl
from archdsl.backend.program import OPTIONS
from tests.reference.agreement import TOLERANCE, apart

DATA = Path(__file__).parent / "stored"


@pytest.mark.parametrize("name", ["gpt", "transformer", "vit"])
def test_outputs_and_losses_are_those_of_pytorch(tmp_path: Path, name: str) -> None:
    with np.load(DATA / f"{name}.npz") as file:
        stored = dict(file)

    def under(folder: str) -> dict[str, np.ndarray]:
        return {
            key.removeprefix(f"{folder}/"): array
            for key, array in stored.items()
            if key.startswith(f"{folder}/")
        }

    sizes = {key: int(size) for key, size in under("sizes").items()}
    model = archdsl.compile(f"{name}.arch", device="CPU", **sizes)
    np.savez(tmp_path / "weights.npz", **under("weights"))
    model.load(tmp_path / "weights.npz")
    inputs, real = under("inputs"), stored["real"]
    with Context(**OPTIONS):  # as a forward pass has them, so that kernels are made once
        assert apart(model.loss(**inputs), stored["loss"]) <= TOLERANCE
    inputs.pop("label", None)
    for _ in range(3):  # computed, captured and played back
        logits = model(**inputs)["logits"].numpy()
        assert apart(logits[real], stored["logits"][real]) <= TOLERANCE
