"""A thousand mutated specs are answered by diagnostics; `python -m tests.fuzz` runs more."""

from __future__ import annotations

from tests.fuzz import failures


def test_mutated_specs_get_diagnostics() -> None:
    found = [f"{each.number}:\n{each.text}\n{each.error}" for each in failures(1_000, seed=1)]
    assert not found, "\n\n".join(found)
