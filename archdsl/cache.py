"""The folder of what archdsl keeps between runs because it takes a while to make.

Nothing in it is needed: what is gone, damaged, or made by another version is made again.
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
    """`$XDG_CACHE_HOME/archdsl`, which may not be there yet."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "archdsl"


def digest(data: Iterable[Data]) -> bytes:
    """A checksum of bytes."""
    found = hashlib.blake2b(digest_size=_DIGEST)
    for each in data:
        found.update(each)
    return found.digest()


def key_of(*parts: object) -> str:
    """A key made of everything that an entry depends on, in text."""
    return digest([repr(parts).encode()]).hex()


class Store:
    """Entries of bytes by key, each a file under a checksum of its key and its content.

    A file that is damaged, cut short or of another key is no entry. Files are written under a
    temporary name and renamed, so several processes can share the folder; beyond
    `bytes_at_most` in all, those that were used longest ago are removed.
    """

    def __init__(self, name: str, bytes_at_most: int):
        self.name = name
        self.bytes_at_most = bytes_at_most

    @property
    def folder(self) -> Path:
        return cache_folder() / self.name

    def read(self, key: str) -> memoryview | None:
        """The content of an entry, or None where there is none or it is damaged."""
        path = self.folder / key
        try:
            data = path.read_bytes()
            os.utime(path)  # it was used
        except OSError:
            return None
        content = memoryview(data)[_DIGEST:]
        return content if digest([key.encode(), content]) == data[:_DIGEST] else None

    def write(self, key: str, content: Sequence[Data]) -> None:
        """Stores an entry, and makes room for it. What cannot be written is left out."""
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
            self._make_room()

    def _make_room(self) -> None:
        total = 0
        for _, size, path in sorted(self._entries(), reverse=True):  # the newest first
            total += size
            if total > self.bytes_at_most:
                with contextlib.suppress(OSError):  # another process may have been quicker
                    os.unlink(path)

    def _entries(self) -> Iterator[tuple[int, int, str]]:
        """Time of last use, size and path of each file."""
        with os.scandir(self.folder) as entries:
            for each in entries:
                with contextlib.suppress(FileNotFoundError):
                    stat = each.stat()
                    yield stat.st_mtime_ns, stat.st_size, each.path
