"""The cache folder of archdsl: results that are slow to compute, kept between runs.

A missing or damaged entry, or one of another version, is computed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

Data: TypeAlias = "bytes | memoryview"

_DIGEST = 16  # bytes


def cache_folder() -> Path:
    """Returns `$XDG_CACHE_HOME/archdsl`; the folder may not exist."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "archdsl"


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

    Damaged files are ignored. Files are written to a temporary name and renamed, so several
    processes can share the folder. Above `bytes_at_most` bytes in total, the least recently
    used files are deleted.
    """

    def __init__(self, name: str, bytes_at_most: int):
        self.name = name
        self.bytes_at_most = bytes_at_most

    @property
    def folder(self) -> Path:
        return cache_folder() / self.name

    def read(self, key: str) -> memoryview | None:
        """Returns the content of an entry, or None if it is missing or damaged."""
        path = self.folder / key
        try:
            data = path.read_bytes()
            os.utime(path)  # the time of last use
        except OSError:
            return None
        content = memoryview(data)[_DIGEST:]
        return content if digest([key.encode(), content]) == data[:_DIGEST] else None

    def write(self, key: str, content: Sequence[Data]) -> None:
        """Stores an entry and deletes old ones. Ignores errors of the file system."""
        if sum(map(len, content)) > self.bytes_at_most // 4:
            return
        temporary = self.folder / f".{secrets.token_hex(8)}.partial"
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                data = b"".join([digest([key.encode(), *content]), *content])
                temporary.write_bytes(data)
                os.replace(temporary, self.folder / key)
            finally:
                temporary.unlink(missing_ok=True)
            self._evict()

    def _evict(self) -> None:
        total = 0
        for _, size, path in sorted(self._entries(), reverse=True):  # the newest first
            total += size
            if total > self.bytes_at_most:
                with contextlib.suppress(OSError):  # another process may have deleted it
                    os.unlink(path)

    def _entries(self) -> Iterator[tuple[int, int, str]]:
        """Yields the time of last use, size and path of each file."""
        with os.scandir(self.folder) as entries:
            for each in entries:
                with contextlib.suppress(FileNotFoundError):
                    stat = each.stat()
                    yield stat.st_mtime_ns, stat.st_size, each.path
