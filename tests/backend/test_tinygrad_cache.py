"""tinygrad's cache on disk: damaged entries and files are made again."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import tinygrad.helpers
from tinygrad import Device

from archdsl.backend.target import open_device
from archdsl.backend.tinygrad_cache import diskcache_get, diskcache_put
from archdsl.backend.tinygrad_seam import load_program


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "cache.db"
    close()
    monkeypatch.setattr(tinygrad.helpers, "CACHEDB", str(path))
    monkeypatch.setattr(tinygrad.helpers, "_db_connection", None)
    monkeypatch.setattr(tinygrad.helpers, "_db_tables", set())
    yield path
    close()


def close() -> None:
    if connection := vars(tinygrad.helpers)["_db_connection"]:
        connection.close()
    vars(tinygrad.helpers)["_db_connection"] = None
    vars(tinygrad.helpers)["_db_tables"].clear()


def flip(path: Path, seed: int) -> None:
    """Flips a bit in each entry."""
    close()
    numbers = random.Random(seed)
    with sqlite3.connect(path) as connection:
        tables = connection.execute("select name from sqlite_master where type = 'table'")
        for (table,) in tables.fetchall():
            entries = connection.execute(f"select rowid, val from '{table}'").fetchall()
            for row, value in entries:
                changed = bytearray(value)
                changed[numbers.randrange(len(changed))] ^= 1 << numbers.randrange(8)
                command = f"update '{table}' set val = ? where rowid = ?"
                connection.execute(command, (bytes(changed), row))
    connection.close()


def test_an_entry_is_read_as_it_was_written() -> None:
    assert diskcache_get("things", "a") is None
    assert diskcache_put("things", "a", [1, 2]) == [1, 2]
    diskcache_put("pairs", {"b": "c", "d": 3}, b"code")
    assert diskcache_get("things", "a") == [1, 2]
    assert diskcache_get("pairs", {"b": "c", "d": 3}) == b"code"
    assert diskcache_get("others", "a") is None


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_entry_is_missing(cache: Path, seed: int) -> None:
    diskcache_put("things", "a", b"content")
    flip(cache, seed)
    assert diskcache_get("things", "a") in (None, b"content")  # some bits have no meaning
    diskcache_put("things", "a", b"content")
    assert diskcache_get("things", "a") == b"content"


@pytest.mark.parametrize("start", [0, 20, 4096])
def test_a_damaged_file_is_made_again(cache: Path, start: int) -> None:
    for number in range(40):
        diskcache_put("things", str(number), bytes(500))
    close()
    data = bytearray(cache.read_bytes())
    data[start : start + 4000] = b"\xa5" * len(data[start : start + 4000])
    cache.write_bytes(data)
    for number in range(40):
        assert diskcache_get("things", str(number)) in (None, bytes(500))
        diskcache_put("things", str(number), bytes(500))
    assert diskcache_get("things", "7") == bytes(500)


def test_a_value_that_cannot_be_stored_is_returned(cache: Path) -> None:
    cache.mkdir()
    assert diskcache_put("things", "a", 7) == 7
    assert diskcache_get("things", "a") is None


def test_a_damaged_kernel_is_compiled_again(cache: Path) -> None:
    device = open_device("CPU")
    source = "void put_in_cache(int *to) { *to = 42; }"
    compiler = Device[device].compiler
    assert compiler is not None
    code = compiler.compile_cached(source)
    assert cache.exists()
    flip(cache, 1)
    assert compiler.compile_cached(source) == code
    load_program(source, "put_in_cache")
