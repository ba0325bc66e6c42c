"""Every architecture of the library beside the library that published it.

A family stands in a module of `families/`; those of the modules below have more tests of their
own. The first seed of a few is long, the others are slow. test_round_trips.py has the way back.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reference.agreement import TOLERANCE
from tests.reference.families import Family, differences, library

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
