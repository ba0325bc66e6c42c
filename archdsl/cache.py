"""The cache folder of archdsl: results that are slow to compute, kept between runs.

A missing or damaged entry, or one of another version, is computed again. Entries may be
programs, so a file that another user owns or may write is not read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

Data: TypeAlias = "bytes | memoryview"

_DIGEST = 16  # bytes
_ABANDONED = 3600  # seconds after which a temporary file has no writer: a write takes less


def cache_folder() -> Path:
    """Returns `$XDG_CACHE_HOME/archdsl`; the folder may not exist."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "archdsl"


def make_folder(path: Path) -> None:
    """Creates a folder of the cache, and those above it, for this user only."""
    if not path.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)


def is_ours(path: str | Path) -> bool:
    """Whether this user or root owns a file or folder, and no other user may write it."""
    if not hasattr(os, "geteuid"):
        return True  # there is one user: Windows, and Python in a browser
    found = os.stat(path)
    if found.st_uid not in (os.geteuid(), 0) or found.st_mode & stat.S_IWOTH:
        return False
    return not found.st_mode & stat.S_IWGRP or _is_private(found.st_gid, found.st_uid)


def _is_private(group: int, user: int) -> bool:
    """Whether a group is the user's own, with the same name and no other member.

    Debian creates such a group for each user, and lets it write all new files.
    """
    import grp  # most runs do not need them
    import pwd

    try:
        owner, found = pwd.getpwuid(user), grp.getgrgid(group)
    except KeyError:
        return False
    own = owner.pw_gid == group and found.gr_name == owner.pw_name
    others = {*found.gr_mem, *(u.pw_name for u in pwd.getpwall() if u.pw_gid == group)}
    return own and others <= {owner.pw_name}


def trusted(folder: Path) -> bool:
    """Whether a folder of the cache, if it exists, may be used; otherwise, a warning."""
    for each in (cache_folder(), folder):
        if each.is_dir() and not is_ours(each):
            warnings.warn(
                f"the cache {each} is not used, because other users may write to it; "
                f"`chmod go-w {each}`, or set XDG_CACHE_HOME to a folder of your own",
                stacklevel=2,
            )
            return False
    return True


def digest(data: Iterable[Data]) -> bytes:
    """Computes a checksum of bytes."""
    found = hashlib.blake2b(digest_size=_DIGEST)
    for each in data:
        found.update(each)
    return found.digest()


def key_of(*parts: object) -> str:
    """Computes the key of an entry from everything that it depends on."""
    return digest([repr(parts).encode()]).hex()


class Store:
    """A folder of cache entries: a file per key, with a checksum of key and content.

    Damaged files, and those that other users may write, are ignored. Files are written to a
    temporary name and renamed, so several processes can share the folder. Above `bytes_at_most`
    bytes in total, the least recently used files are deleted.
    """

    def __init__(self, name: str, bytes_at_most: int):
        self.name = name
        self.bytes_at_most = bytes_at_most
        # By folder, which the environment names.
        self._trusted: dict[Path, bool] = {}
        self._room: dict[Path, int] = {}  # bytes to write before entries are listed again

    @property
    def folder(self) -> Path:
        return cache_folder() / self.name

    def read(self, key: str) -> memoryview | None:
        """Returns the content of an entry, or None if it is missing or damaged."""
        path = self.folder / key
        try:
            if not self._is_trusted() or not is_ours(path):
                return None
            data = path.read_bytes()
            os.utime(path)  # the time of last use
        except OSError:
            return None
        content = memoryview(data)[_DIGEST:]
        return content if digest([key.encode(), content]) == data[:_DIGEST] else None

    def write(self, key: str, content: Sequence[Data]) -> None:
        """Stores an entry and deletes old ones. Ignores errors of the file system."""
        if sum(map(len, content)) > self.bytes_at_most // 4 or not self._is_trusted():
            return
        temporary = self.folder / f".{secrets.token_hex(8)}.partial"
        with contextlib.suppress(OSError):
            make_folder(cache_folder())
            make_folder(self.folder)
            try:
                data = b"".join([digest([key.encode(), *content]), *content])
                with open(os.open(temporary, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                    file.write(data)
                os.replace(temporary, self.folder / key)
            finally:
                temporary.unlink(missing_ok=True)
            room = self._room.get(self.folder, 0) - len(data)
            self._room[self.folder] = room if room > 0 else self._evict()

    def _is_trusted(self) -> bool:
        folder = self.folder
        if folder not in self._trusted:
            self._trusted[folder] = trusted(folder)
        return self._trusted[folder]

    def _evict(self) -> int:
        """Deletes old entries, and the temporary files of processes that were killed.

        Returns how many bytes to write before the next time; other processes write too.
        """
        total = kept = 0
        abandoned = time.time_ns() - _ABANDONED * 10**9
        for used, size, path in sorted(self._entries(), reverse=True):  # the newest first
            total += size
            left = path.endswith(".partial") and used < abandoned
            if left or total > self.bytes_at_most:
                with contextlib.suppress(OSError):  # another process may have deleted it
                    os.unlink(path)
            else:
                kept = total
        return (self.bytes_at_most - kept) // 4

    def _entries(self) -> Iterator[tuple[int, int, str]]:
        """Yields the time of last use, size and path of each file."""
        with os.scandir(self.folder) as entries:
            for each in entries:
                with contextlib.suppress(FileNotFoundError):
                    stat = each.stat()
                    yield stat.st_mtime_ns, stat.st_size, each.path
