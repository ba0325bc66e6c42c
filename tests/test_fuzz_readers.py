"""Damaged files are answered by diagnostics; `python -m tests.fuzz_readers` makes more."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.fuzz_readers.check import Bench
from tests.fuzz_readers.mutations import mutate
from tests.fuzz_readers.readers import READERS


def complaints(name: str, count: int) -> list[str]:
    with Bench(READERS[name]) as bench:
        found = []
        for number in range(count):
            rng = random.Random(f"{name} {number}")
            content = mutate(rng, rng.choice(bench.seeds), bench.seeds, bench.reader.kind)
            if (complaint := bench.complaint(content)) is not None:
                found.append(f"{number}: {content!r:.2000}\n{complaint}")
        return found


@pytest.mark.parametrize("name", ["safetensors", "npy", "index", "sound"])
def test_some_damaged_files(name: str) -> None:
    assert complaints(name, 20) == []


@pytest.mark.long
@pytest.mark.reference("PIL", "gguf", "jinja2", "tokenizers")
@pytest.mark.parametrize("name", READERS)
def test_damaged_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert complaints(name, 300 if READERS[name].quick else 40) == []
