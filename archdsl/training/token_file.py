"""Numbers on disk, written once as a stream and then memory-mapped: they may exceed memory.

A file has a header of 4 KiB, JSON padded with spaces, and the numbers. The header has their
count, their type and a checksum of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from archdsl.cache import cache_folder, make_folder
from archdsl.diagnostics import fail
from archdsl.formats.atomic import replacing
from archdsl.frozen import Frozen

_HEADER = 4096  # bytes
_UNUSED = 30 * 24 * 3600  # seconds after which a file that no run has opened is deleted


class Stored(Frozen):
    """The numbers of a file [n], memory-mapped, and their checksum."""

    numbers: NDArray[Any]
    checksum: str


def place_of(key: str) -> Path:
    """The file of a key in the cache folder, whose folder exists."""
    folder = cache_folder() / "tokens"
    try:
        make_folder(cache_folder())
        make_folder(folder)
    except OSError as error:
        fail(
            "file",
            f"cannot create the folder `{folder}`, which holds the tokens of data",
            found=error.strerror or str(error),
            help="set XDG_CACHE_HOME to a folder that you can write",
            cause=error,
        )
    path = folder / key
    if not path.exists():
        _delete_unused(folder)
    return path


def _delete_unused(folder: Path) -> None:
    """Deletes files of the folder that were not opened for a month; a run keeps what it has
    opened."""
    for each in folder.iterdir():
        with suppress(OSError):  # another process may have deleted it
            if time.time() - each.stat().st_mtime > _UNUSED:
                each.unlink()


def write(path: Path, dtype: DTypeLike, parts: Iterable[NDArray[Any]]) -> Stored:
    """Writes the numbers of all parts, each [any number], to a file."""
    with writing(path, dtype) as add:
        for part in parts:
            add(part)
    return written(path)


@contextmanager
def writing(path: Path, dtype: DTypeLike) -> Iterator[Callable[[NDArray[Any]], None]]:
    """A function that appends numbers [any number] to a file, which is complete after the
    block. Raises `ArchError` (`file`) if the disk is full."""
    kind, count, checksum = np.dtype(dtype), 0, hashlib.blake2b(digest_size=16)

    def add(part: NDArray[Any]) -> None:
        nonlocal count
        data = np.ascontiguousarray(part, kind).tobytes()
        checksum.update(data)
        file.write(data)
        count += len(part)

    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(b" " * _HEADER)
        yield add
        header = {"count": count, "dtype": kind.name, "checksum": checksum.hexdigest()}
        file.seek(0)
        file.write(json.dumps(header).encode())


def written(path: Path) -> Stored:
    """The numbers of a file that was just written."""
    found = read(path)
    if found is None:
        fail("file", f"`{path}` changed while it was written", help="try again")
    return found


def read(path: Path) -> Stored | None:
    """The numbers of a file; None if it is missing, damaged or incomplete."""
    try:
        with open(path, "rb") as file:
            header = json.loads(file.read(_HEADER))
            size = os.fstat(file.fileno()).st_size
        count, kind = int(header["count"]), np.dtype(header["dtype"])
        if size != _HEADER + count * kind.itemsize or count < 0:
            return None
        if count == 0:  # which cannot be mapped
            return Stored(np.zeros(0, kind), str(header["checksum"]))
        with suppress(OSError):  # the folder may not be writable
            os.utime(path)  # the time of last use
        numbers = np.memmap(path, kind, "r", _HEADER, (count,))
        return Stored(numbers, str(header["checksum"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
