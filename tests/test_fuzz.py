"""Mutated specs are answered by diagnostics; `python -m tests.fuzz` runs more."""

from __future__ import annotations

import pytest

from tests.fuzz import failures


@pytest.mark.parametrize(
    ("start", "count"), [(0, 15), pytest.param(15, 200, marks=pytest.mark.long)]
)
def test_mutated_specs_get_diagnostics(start: int, count: int) -> None:
    found = [
        f"{each.number}:\n{each.text}\n{each.error}"
        for each in failures(count, seed=1, start=start)
    ]
    assert not found, "\n\n".join(found)
