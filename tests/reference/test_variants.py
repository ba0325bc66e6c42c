"""Variants of configs: none is silently different from transformers.

`python -m tests.reference.variants` records the results that docs/zoo.md sums up.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reference.variants import results

FEW = 12


def test_no_recorded_variant_is_different() -> None:
    rows = results.read()
    assert not [row for row in rows if row.kind == "different"]
    assert len([row for row in rows if row.kind == "equal"]) >= 300
    assert {row.kind for row in rows} == {"equal", "refused", "not theirs"}


@pytest.mark.long
@pytest.mark.reference("torch", "transformers")
def test_the_recorded_variants_are_those_of_the_config_classes() -> None:
    from tests.reference.variants.fields import variants

    assert [row.variant for row in results.read()] == list(map(str, variants()))


@pytest.mark.long
@pytest.mark.reference("torch", "transformers")
@pytest.mark.parametrize("number", range(FEW))
def test_few_variants_are_not_different(tmp_path: Path, number: int) -> None:
    from tests.reference.variants.compare import compare
    from tests.reference.variants.fields import variants

    chosen = variants()[number * len(variants()) // FEW + 5]
    result = compare(chosen, tmp_path)
    assert result.kind != "different", f"{chosen}: {result.found}"


@pytest.mark.slow
@pytest.mark.reference("torch", "transformers")
def test_all_variants_are_as_recorded(tmp_path: Path) -> None:
    from tests.reference.variants.compare import compare
    from tests.reference.variants.fields import variants

    kinds = {row.variant: row.kind for row in results.read()}
    other = []
    for number, each in enumerate(variants()):
        (folder := tmp_path / str(number)).mkdir()
        result = compare(each, folder)
        if result.kind != kinds[str(each)]:
            other.append(f"{each}: {result.kind}, {result.found}")
    assert not other
