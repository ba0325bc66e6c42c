"""Cache entries, which several processes share."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any

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


def test_temporary_files_of_killed_processes_are_deleted(store: Store) -> None:
    store.write("a", [b"content"])
    killed, running = (store.folder / f".{name}.partial" for name in ("killed", "running"))
    for path in (killed, running):
        path.write_bytes(b"half")
    os.utime(killed, (0, 0))
    Store("things", 5000).write("b", [b"content"])  # as another process does
    assert sorted(path.name for path in store.folder.iterdir()) == [running.name, "a", "b"]


def user(name: str, group: int) -> pwd.struct_passwd:
    return pwd.struct_passwd((name, "", os.geteuid(), group, "", "", ""))


OWN = os.getgid()


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The user `me` and the group of the same name; a test changes them."""
    known = {"name": "me", "members": [], "users": [user("me", OWN)], "owner": user("me", OWN)}
    monkeypatch.setattr(pwd, "getpwuid", lambda number: known["owner"])
    monkeypatch.setattr(pwd, "getpwall", lambda: known["users"])
    monkeypatch.setattr(
        grp,
        "getgrgid",
        lambda number: grp.struct_group((known["name"], "", number, known["members"])),
    )
    return known


def test_a_folder_that_only_the_users_own_group_may_write_is_used(
    store: Store, groups: dict[str, Any]
) -> None:
    """As `umask 002` makes it on Debian."""
    store.write("a", [b"content"])
    for path in (cache_folder(), store.folder, store.folder / "a"):
        path.chmod(path.stat().st_mode | 0o070)
    assert Store("things", 5000).read("a") is not None


@pytest.mark.parametrize(
    "change",
    [
        {"name": "staff"},
        {"members": ["me", "you"]},
        {"users": [user("me", OWN), user("you", OWN)]},
        {"owner": user("me", OWN + 1)},
    ],
)
def test_a_folder_that_a_group_with_others_may_write_is_not_used(
    change: dict[str, Any], store: Store, groups: dict[str, Any]
) -> None:
    store.write("a", [b"content"])
    store.folder.chmod(0o770)
    groups |= change
    with pytest.warns(UserWarning, match="not used, because other users may write to it"):
        assert Store("things", 5000).read("a") is None


def test_an_unknown_group_is_not_trusted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write("a", [b"content"])
    store.folder.chmod(0o770)

    def missing(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr(grp, "getgrgid", missing)
    with pytest.warns(UserWarning, match="not used"):
        assert Store("things", 5000).read("a") is None


@pytest.mark.parametrize("mode", [0o666, 0o602])
def test_an_entry_that_others_may_write_is_ignored(store: Store, mode: int) -> None:
    store.write("a", [b"content"])
    (store.folder / "a").chmod(mode)
    assert store.read("a") is None
    store.write("a", [b"content"])
    assert store.read("a") is not None


@pytest.mark.parametrize("inner", ["", "things"])
def test_a_folder_that_others_may_write_is_not_used(store: Store, inner: str) -> None:
    store.write("a", [b"content"])
    (cache_folder() / inner).chmod(0o777)
    other = Store("things", 5000)
    with pytest.warns(UserWarning, match="not used, because other users may write to it"):
        assert other.read("a") is None
    other.write("b", [b"content"])
    assert not (store.folder / "b").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_an_entry_of_another_user_is_ignored(store: Store) -> None:
    store.write("a", [b"content"])
    os.chown(store.folder / "a", 12345, 12345)
    assert store.read("a") is None
    os.chown(store.folder, 12345, 12345)
    with pytest.warns(UserWarning, match="not used"):
        assert Store("things", 5000).read("a") is None


def test_folders_are_for_this_user_only(store: Store) -> None:
    store.write("a", [b"content"])
    assert store.folder.stat().st_mode & 0o777 == 0o700
    assert (store.folder / "a").stat().st_mode & 0o777 == 0o600
