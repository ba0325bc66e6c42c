"""Disks without space: a save fails whole, and a cache is left out."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import archdsl
from archdsl.backend.tinygrad_cache import diskcache_put
from archdsl.cache import Store
from archdsl.cli import main
from archdsl.diagnostics import ArchError
from archdsl.formats import write_checkpoint, write_npz, write_safetensors
from tests.backend.test_tinygrad_cache import close
from tests.cli.tiny import gpt2

ARRAYS: dict[str, Any] = {"w": np.zeros(40_000, np.float32)}


class Full(NamedTuple):
    """A folder, and a context in which no large file can be written there."""

    folder: Path
    writing: Callable[[], AbstractContextManager[None]]
    reason: str


@contextmanager
def small_files(most: int = 8192) -> Iterator[None]:
    """A limit of this process for the size of files, which needs no other disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def small_disk(folder: Path, size: str = "40k") -> Iterator[None]:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root mounts a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(params=["limit", pytest.param("disk", marks=pytest.mark.long)])
def full(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Full]:
    if request.param == "limit":
        yield Full(tmp_path, small_files, "File too large")
        return
    with small_disk(tmp_path / "small"):
        yield Full(tmp_path / "small", nullcontext, "No space left on device")


WRITERS: dict[str, Callable[[Path], object]] = {
    "a.safetensors": lambda path: write_safetensors(path, ARRAYS),
    "a.npz": lambda path: write_npz(path, ARRAYS),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_save_leaves_the_old_file_and_nothing_else(name: str, full: Full) -> None:
    path = full.folder / name
    path.write_text("old")
    with full.writing(), pytest.raises(ArchError) as error:
        WRITERS[name](path)
    (found,) = error.value.diagnostics
    assert (found.code, found.message) == ("file", f"{path}: cannot write: {full.reason}")
    assert found.help == "free space on this disk, or give a path on another one"
    assert [each.name for each in full.folder.iterdir()] == [name]
    assert path.read_text() == "old"


def test_an_export_leaves_no_part(full: Full) -> None:
    parts = {"first": np.zeros(100, np.float32), **ARRAYS, "last": np.zeros(100, np.float32)}
    with full.writing(), pytest.raises(ArchError, match=f"cannot write: {full.reason}"):
        write_checkpoint(full.folder / "out", parts, {"depth": 1}, shard_bytes=1000)
    assert [*(full.folder / "out").iterdir()] == []


@pytest.mark.long
def test_an_import_leaves_no_part(full: Full, tmp_path_factory: pytest.TempPathFactory) -> None:
    checkpoint = gpt2(tmp_path_factory.mktemp("checkpoint"), context=512)
    out = full.folder / "a.arch"
    out.write_text("old")
    weights = f"--weights={full.folder / 'a.safetensors'}"
    with full.writing():
        assert main(["import", checkpoint, "-o", str(out), weights]) == 1
    assert {each.suffix for each in full.folder.iterdir()} <= {".arch", ".files"}
    assert out.read_text() == "old"


def test_an_entry_of_a_cache_is_left_out(full: Full, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(full.folder))
    store = Store("things", 10**6)
    with full.writing():
        store.write("a", [bytes(100_000)])
        assert store.read("a") is None
    assert [*store.folder.iterdir()] == []
    store.write("b", [b"small"])
    assert store.read("b") is not None


def test_a_kernel_is_left_out(full: Full, monkeypatch: pytest.MonkeyPatch) -> None:
    close()
    helpers = "tinygrad.helpers"
    monkeypatch.setattr(f"{helpers}.CACHEDB", str(full.folder / "cache.db"))
    monkeypatch.setattr(f"{helpers}._db_connection", None)
    monkeypatch.setattr(f"{helpers}._db_tables", set())
    with full.writing():
        for number in range(3):
            assert diskcache_put("things", number, bytes(200_000)) == bytes(200_000)
    close()


COMPUTE = """
import archdsl
model = archdsl.compile("gpt.arch", device="CPU", vocab=9, context=8, D=8, heads=1, depth=1)
print(repr(model(tokens=[[1, 2, 3]])["logits"].tolist()))
"""


def computed(cache: Path) -> Any:
    path = Path(archdsl.__file__).parents[1]
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(path)}
    command = [sys.executable, "-W", "ignore", "-c", COMPUTE]
    done = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
    return done.stdout


@pytest.mark.long
def test_a_model_computes_although_nothing_can_be_cached(tmp_path: Path) -> None:
    right = computed(tmp_path / "cache")
    assert computed(Path("/dev/null")) == right
    with small_disk(tmp_path / "small", "4k"):
        assert computed(tmp_path / "small") == right
