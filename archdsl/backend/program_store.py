"""Captured programs on the disk, beside the compiled kernels: entries by key, nothing more.

An entry is a header of JSON and blocks of bytes behind it, under a checksum of both. A file
that is damaged, cut short or of another key is no entry: the program is captured again and
the file replaced. Files are written under a temporary name and renamed, so several processes
can share the folder, and the least recently used ones are removed beyond a total size.

`ARCHDSL_PROGRAMS=0` turns the store off.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archdsl.backend.toolchain import Compiler
from archdsl.cache import cache_folder

_MAGIC = b"archdsl program 1\n"
_DIGEST = 16  # bytes
_BYTES_AT_MOST = 2**28  # of the folder
# Our own folders that have a say in what a traced program is, and in what its kernels do.
_SOURCES = ("backend", "graph", "passes")
_SUFFIXES = (".py", ".c", ".h")


@dataclass(frozen=True)
class Entry:
    """What is stored of a program: a description that JSON holds, and blocks of bytes."""

    header: Mapping[str, Any]
    blocks: Sequence[bytes | memoryview]


def enabled() -> bool:
    """Whether programs are stored at all."""
    return os.environ.get("ARCHDSL_PROGRAMS", "1") != "0"


def folder() -> Path:
    """Where the entries are."""
    return cache_folder() / "programs"


def digest(data: Iterable[bytes | memoryview]) -> bytes:
    """A checksum of bytes; also what an entry's key is made with."""
    found = hashlib.blake2b(digest_size=_DIGEST)
    for each in data:
        found.update(each)
    return found.digest()


def key_of(*parts: object) -> str:
    """The key of a program: of everything that it depends on, in text."""
    return digest([repr(parts).encode()]).hex()


def read(key: str) -> Entry | None:
    """The entry of a key, or None where there is none or it is damaged."""
    path = folder() / key
    try:
        data = path.read_bytes()
        os.utime(path)  # it was used
    except OSError:
        return None
    start = len(_MAGIC) + _DIGEST
    body = memoryview(data)[start:]
    if data[: len(_MAGIC)] != _MAGIC or digest([body]) != data[len(_MAGIC) : start]:
        return None
    size = int.from_bytes(body[:8], "little")
    header = json.loads(bytes(body[8 : 8 + size]))
    if header["key"] != key:
        return None
    blocks, at = [], 8 + size
    for length in header["blocks"]:
        blocks.append(body[at : at + length])
        at += length
    return Entry(header, blocks)


def write(key: str, entry: Entry) -> None:
    """Stores an entry, and makes room for it. What cannot be written is left out."""
    lengths = [len(block) for block in entry.blocks]
    header = json.dumps({**entry.header, "key": key, "blocks": lengths}).encode()
    body = [len(header).to_bytes(8, "little"), header, *entry.blocks]
    data = b"".join([_MAGIC, digest(body), *body])
    if len(data) > _BYTES_AT_MOST // 4:
        return
    place = folder()
    temporary = place / f".{secrets.token_hex(8)}.partial"
    with contextlib.suppress(OSError):
        place.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(data)
            os.replace(temporary, place / key)
        finally:
            temporary.unlink(missing_ok=True)
        _make_room(place)


def _make_room(place: Path) -> None:
    """Removes the entries that were used longest ago, beyond the folder's size."""
    found = sorted(_entries(place), reverse=True)  # the newest first
    total = 0
    for _, size, path in found:
        total += size
        if total > _BYTES_AT_MOST:
            with contextlib.suppress(OSError):  # another process may have been quicker
                os.unlink(path)


def _entries(place: Path) -> Iterator[tuple[int, int, str]]:
    """Time of last use, size and path of each file of the folder."""
    with os.scandir(place) as entries:
        for each in entries:
            with contextlib.suppress(FileNotFoundError):
                stat = each.stat()
                yield stat.st_mtime_ns, stat.st_size, each.path


# -- what every program depends on --


def environment(compiler: Compiler, traced: str) -> tuple[object, ...]:
    """What a program depends on beside its function: our sources, that file among them which
    has the traced function, tinygrad's, the compiler and the processor."""
    stamp = os.stat(compiler.path).st_mtime_ns
    sources = (_sources(), digest([_content(traced)]).hex())
    return (*sources, _tinygrad(), compiler.path, compiler.version, stamp, processor())


@functools.cache
def _sources() -> str:
    """A checksum of our own files."""
    root = Path(__file__).parents[1]
    paths = [path for name in _SOURCES for path in _files(root / name, _SUFFIXES)]
    names = (path.removeprefix(str(root)) for path in paths)
    parts = zip(names, map(_content, paths), strict=True)
    return digest(part for name, content in parts for part in (name.encode(), content)).hex()


@functools.cache
def _tinygrad() -> str:
    """A checksum of the names, sizes and times of tinygrad's files."""
    import tinygrad

    root = Path(tinygrad.__file__).parent
    names = ("codegen", "engine", "mixin", "renderer", "schedule", "uop")
    paths = [*_files(root, (".py",), deep=False)]
    paths += [path for name in names for path in _files(root / name, (".py",))]
    stats = [
        (path, stat.st_size, stat.st_mtime_ns) for path in paths if (stat := os.stat(path))
    ]
    return digest([repr(stats).encode()]).hex()


def _files(folder: Path, suffixes: tuple[str, ...], deep: bool = True) -> list[str]:
    """The files of a folder with one of these suffixes, in order."""
    found: list[str] = []
    with os.scandir(folder) as entries:
        for each in entries:
            if each.name.endswith(suffixes):
                found.append(each.path)
            elif deep and each.is_dir() and each.name != "__pycache__":
                found += _files(Path(each.path), suffixes)
    return sorted(found)


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


@functools.cache
def processor() -> str:
    """The processor's model and features: kernels are compiled for no other."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        # Of the first of its cores; what is measured at the moment is no feature.
        lines = []
        for line in file:
            if not line.strip():
                break
            if not line.startswith(("cpu MHz", "bogomips", "processor", "core id", "apicid")):
                lines.append(line)
        return digest(line.encode() for line in lines).hex()
    return repr(platform.uname())
