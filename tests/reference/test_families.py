"""Every architecture of the library beside the library that published it.

A family stands in a module of `families/`; those of the modules below have more tests of their
own. The first seed is in the gate, the others and the round trips are slow.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reference.agreement import TOLERANCE
from tests.reference.families import Family, differences, library
from tests.reference.test_round_trips import there_and_back

pytestmark = pytest.mark.reference("torch", "transformers")

OLDER = ("decoders", "encoders", "seq2seq")
FAMILIES = library(*OLDER)

every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
every_seed = pytest.mark.parametrize(
    "seed",
    [pytest.param(0, marks=pytest.mark.long)]
    + [pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2)],
)


@every_family
@every_seed
def test_what_it_saved_computes_the_same_whole_and_in_steps(
    family: Family, seed: int, tmp_path: Path
) -> None:
    for name, difference in differences(family, tmp_path, seed).items():
        assert difference <= TOLERANCE, name


@every_family
@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 4])
def test_there_and_back(
    family: Family, seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    family.save(tmp_path / "there", seed)
    there_and_back(tmp_path)
    capsys.readouterr()
