"""The text of a run's model."""

from pathlib import Path

import pytest

import archdsl
from archdsl.analysis import analyse
from archdsl.diagnostics import ArchError
from archdsl.training.run_spec import spec_of_run
from archdsl.training.trained import SPEC

SIZES = {"image": 8, "patch": 4, "classes": 5, "D": 8, "heads": 2, "depth": 1}


@pytest.mark.parametrize("spec", ["vit.arch", "ft_transformer.arch"])
def test_a_run_resumes_from_its_own_text(tmp_path: Path, spec: str) -> None:
    """Which the expansion of its graph is not: names of axes differ, and blocks with them."""
    made = analyse(spec).graph
    begun = spec_of_run(made, tmp_path, resume=False)
    (tmp_path / SPEC).write_text(begun)
    again = analyse(str(tmp_path / SPEC)).graph
    assert spec_of_run(again, tmp_path, resume=False) != begun
    assert spec_of_run(again, tmp_path, resume=True) == begun
    assert spec_of_run(made, tmp_path, resume=True) == begun


def test_another_model_has_its_own_text(tmp_path: Path) -> None:
    made = analyse("vit.arch", settings=SIZES).graph
    (tmp_path / SPEC).write_text(spec_of_run(made, tmp_path, resume=False))
    other = analyse("vit.arch", settings=SIZES | {"heads": 4}).graph
    assert "heads = 4" in spec_of_run(other, tmp_path, resume=True)


@pytest.mark.slow
def test_a_run_of_a_vit_can_be_made_longer(tmp_path: Path) -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    pixels = rng.normal(size=(20, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "a.npz", pixels=pixels, label=rng.integers(0, 5, 20))
    model = archdsl.compile("vit.arch", device="CPU", **SIZES)  # type: ignore[arg-type]
    settings = {"data": tmp_path / "a.npz", "batch": 4, "schedule": "constant", "warmup": 0}
    model.fit(tmp_path / "run", steps=2, **settings)
    again = archdsl.compile(str(tmp_path / "run" / SPEC), device="CPU")
    assert again.fit(tmp_path / "run", steps=4, resume=True, **settings).step == 4
    other = archdsl.compile("vit.arch", device="CPU", **SIZES | {"heads": 4})  # type: ignore[arg-type]
    with pytest.raises(ArchError, match="the run has another spec"):
        other.fit(tmp_path / "run", steps=6, resume=True, **settings)
