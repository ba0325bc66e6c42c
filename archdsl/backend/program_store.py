"""Stores captured programs on disk: a JSON header, followed by blocks of bytes.

`ARCHDSL_PROGRAMS=0` turns the store off.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from archdsl.backend.toolchain import Compiler
from archdsl.cache import Store, digest
from archdsl.frozen import Frozen

STORE = Store("programs", 2**28)

# The folders of archdsl that affect programs and their kernels.
_SOURCES = ("backend", "graph", "passes")
_SUFFIXES = (".py", ".c", ".h")


class Entry(Frozen):
    """A stored program: a header that can be JSON, and blocks of bytes."""

    header: Mapping[str, Any]
    blocks: Sequence[bytes | memoryview]


def enabled() -> bool:
    """Whether the store is turned on."""
    return os.environ.get("ARCHDSL_PROGRAMS", "1") != "0"


def read(key: str) -> Entry | None:
    """The entry of a key; None if it is missing or damaged."""
    content = STORE.read(key)
    if content is None:
        return None
    at = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(bytes(content[8:at]))
    blocks = []
    for length in header["blocks"]:
        blocks.append(content[at : at + length])
        at += length
    return Entry(header, blocks)


def write(key: str, entry: Entry) -> None:
    """Stores an entry. Does nothing if it cannot be written."""
    lengths = [len(block) for block in entry.blocks]
    header = json.dumps({**entry.header, "blocks": lengths}).encode()
    STORE.write(key, [len(header).to_bytes(8, "little"), header, *entry.blocks])


# -- what every program depends on --


def environment(compiler: Compiler, traced: str) -> tuple[object, ...]:
    """The dependencies of a program: archdsl's sources, the file `traced` with the traced
    function, tinygrad, the compiler and the processor."""
    stamp = os.stat(compiler.path).st_mtime_ns
    sources = (_sources(), digest([_content(traced)]).hex())
    return (*sources, _tinygrad(), compiler.path, compiler.version, stamp, processor())


@functools.cache
def _sources() -> str:
    """A checksum of archdsl's sources."""
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
    """The processor's model and features, for which kernels are compiled."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        # Only the first core, without values that change, such as the clock rate.
        lines = []
        for line in file:
            if not line.strip():
                break
            if not line.startswith(("cpu MHz", "bogomips", "processor", "core id", "apicid")):
                lines.append(line)
        return digest(line.encode() for line in lines).hex()
    return repr(platform.uname())
