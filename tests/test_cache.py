"""Cache entries, which several processes share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import archdsl
from archdsl.cache import Store, cache_folder


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return Store("things", 5000)


def test_an_entry_is_read_as_it_was_written(store: Store) -> None:
    assert store.read("a") is None
    store.write("a", [b"one ", memoryview(b"two")])
    content = store.read("a")
    assert content is not None
    assert bytes(content) == b"one two"
    assert store.folder == cache_folder() / "things"


def test_a_damaged_entry_is_ignored(store: Store) -> None:
    store.write("a", [b"content"])
    path = store.folder / "a"
    data = path.read_bytes()
    for place in range(len(data)):
        for bit in range(8):
            flipped = bytes([data[place] ^ 1 << bit])
            path.write_bytes(data[:place] + flipped + data[place + 1 :])
            assert store.read("a") is None
    for size in range(len(data)):
        path.write_bytes(data[:size])
        assert store.read("a") is None
    path.write_bytes(data)
    path.rename(store.folder / "b")
    assert store.read("b") is None


def test_the_least_recently_used_entry_is_evicted_first(store: Store) -> None:
    for number in range(6):
        store.write(str(number), [bytes(1000)])
        os.utime(store.folder / str(number), (number, number))
    store.read("2")
    store.write("6", [bytes(1000)])
    assert sorted(path.name for path in store.folder.iterdir()) == ["2", "4", "5", "6"]
    store.write("7", [bytes(2000)])  # one alone would take most of the room
    assert store.read("7") is None


def test_a_folder_that_cannot_be_written_is_ignored(store: Store) -> None:
    cache_folder().mkdir()
    store.folder.write_text("a file")
    store.write("a", [b"content"])
    assert store.read("a") is None


def test_processes_that_write_at_once_leave_complete_entries(store: Store) -> None:
    script = """
from archdsl.cache import Store
store = Store("things", 5000)
for number in range(300):
    key = str(number % 7)
    store.write(key, [key.encode() * 900])
    content = store.read(key)
    assert content is None or bytes(content) == key.encode() * 900
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(archdsl.__file__).parents[1])}
    running = [
        subprocess.Popen([sys.executable, "-c", script], env=environment) for _ in range(4)
    ]
    assert [process.wait() for process in running] == [0, 0, 0, 0]
    left = [path.name for path in store.folder.iterdir()]
    assert all(store.read(name) is not None for name in left)
    assert sum(path.stat().st_size for path in store.folder.iterdir()) <= 5000 + 4 * 1000
