"""Every architecture of the library beside the library that published it.

A family stands in a module of `families/`; those of the modules below have more tests of their
own. The first seed of a few is long, the others and the round trips are slow.
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

# Families with most that there is: windows by layer, experts, states, sinks, towers.
GATE = {
    "Bart",
    "deepseek_v3",
    "gemma3",
    "gpt_oss",
    "jamba",
    "lfm2",
    "RobertaForMaskedLM",
    "siglip",
}

every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
cases = [
    pytest.param(
        family,
        seed,
        id=f"{family.name}-{seed}",
        marks=pytest.mark.long if seed == 0 and family.name in GATE else pytest.mark.slow,
    )
    for family in FAMILIES
    for seed in range(3)
]


@pytest.mark.parametrize(("family", "seed"), cases)
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
