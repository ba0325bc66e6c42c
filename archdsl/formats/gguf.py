"""GGUF, the format of llama.cpp: metadata and tensors, many of them quantized.

The layout is that of ggml's docs/gguf.md: a magic number, the version, the counts, then pairs
of key and value, then a name, shape, type and offset for each tensor, then the data. The
header is read here, since the reader of the `gguf` package does not end on some damaged files
and takes seconds over a vocabulary; how quantized blocks become float32 is left to that
package. `gguf_blocks.py` keeps blocks whole numbers.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from archdsl.diagnostics import fail, listing
from archdsl.formats.gguf_blocks import KINDS, groups
from archdsl.formats.host import (
    CARRIER,
    Bytes,
    Groups,
    LazyTensor,
    count,
    map_file,
    opened,
    reading,
    window,
)
from archdsl.formats.strict_json import distinct

MAGIC = b"GGUF"

_KIND = "a GGUF file"
_VERSIONS = (2, 3)

# The format's number of a type of metadata -> the letter that struct has for it.
_LETTERS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_TEXT, _ARRAY = 8, 9
_SIZE = struct.Struct("<Q")
_MOST_AXES = 4

# The format's name of a type -> its number and tinygrad's name, for tensors that are stored as
# they are.
_PLAIN = {
    "F32": (0, "float32"),
    "F16": (1, "float16"),
    "BF16": (30, "bfloat16"),
    "F64": (28, "float64"),
    "I8": (24, "int8"),
    "I16": (25, "int16"),
    "I32": (26, "int32"),
    "I64": (27, "int64"),
}
QUANTIZED = tuple(KINDS)  # the types whose blocks are decoded to float32


class _Kind(NamedTuple):
    """A type of tensors: how many numbers a block has, and how many bytes."""

    name: str
    block: int
    size: int


_KINDS = {
    number: _Kind(name, 1, CARRIER[dtype].itemsize) for name, (number, dtype) in _PLAIN.items()
} | {number: _Kind(name, block, size) for name, (number, block, size, _) in KINDS.items()}


def read_gguf(path: Path) -> tuple[dict[str, LazyTensor], dict[str, object]]:
    """A file's tensors by name, in its order, and its metadata.

    A shape is in row-major order, [out, in] for a matrix. A tensor of a plain type is a window
    onto the file; a quantized one becomes float32 whenever it is read, in new memory. The
    values of the metadata are numbers, texts, booleans and lists of these.

    Raises ArchError: `checkpoint` where the file is damaged, one part of several or has a
    tensor of a type that is not known, and when a quantized one is read, `file` where the
    package `gguf` is not installed.
    """
    with reading(path, _KIND):
        stat = path.stat()
        changed = (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    tensors, metadata = _read(path, changed)
    return dict(tensors), dict(metadata)


@functools.lru_cache(maxsize=1)  # a model's file is asked for its tokenizer and for its weights
def _read(
    path: Path, changed: tuple[int, ...]
) -> tuple[Mapping[str, LazyTensor], Mapping[str, object]]:
    with reading(path, _KIND):
        raw = map_file(path)
        header = _Header(raw)
        metadata, entries = header.read()
        _refuse_part(path, metadata)
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or alignment < 1 or alignment.bit_count() != 1:
            raise ValueError(f"an alignment of {alignment!r:.80}, which is no power of two")
        data = raw[header.at + -header.at % alignment :]
        tensors: dict[str, LazyTensor] = {}
        reached = 0
        for name, (shape, number, offset) in entries.items():
            if offset != reached:
                raise ValueError(f"`{name}` begins at byte {offset} of the data, not {reached}")
            kind = _kind(path, name, number)
            size = _size(name, shape, kind)
            if offset + size > len(data):
                raise ValueError(f"`{name}` ends at byte {offset + size} of {len(data)}")
            tensors[name] = _stored(path, shape, kind, data[offset : offset + size])
            reached += size + -size % alignment
        return tensors, metadata


class _Header:
    """A place in the bytes in front of the data, which moves on with all that is read."""

    def __init__(self, raw: Bytes) -> None:
        self._raw = raw.data
        self.at = 0

    def read(self) -> tuple[dict[str, object], dict[str, tuple[list[int], int, int]]]:
        """The metadata by key, and by name each tensor's shape, type and offset."""
        if self._take(4) != MAGIC:
            raise ValueError("it does not begin with `GGUF`")
        (version,) = self._numbers("I")
        if version not in _VERSIONS:
            raise ValueError(f"version {version}; read are {' and '.join(map(str, _VERSIONS))}")
        tensors, pairs = self._numbers("Q", 2)
        metadata = distinct((self._text(), self._value()) for _ in range(pairs))
        return metadata, distinct((self._text(), self._entry()) for _ in range(tensors))

    def _entry(self) -> tuple[list[int], int, int]:
        (axes,) = self._numbers("I")
        if axes > _MOST_AXES:
            raise ValueError(f"a tensor of {axes} axes, of {_MOST_AXES} at most")
        shape = self._numbers("Q", axes)[::-1]  # the format's first axis is the innermost
        (type_,), (offset,) = self._numbers("I"), self._numbers("Q")
        return list(shape), type_, offset

    def _value(self) -> object:
        (type_,) = self._numbers("I")
        return self._value_of(type_)

    def _value_of(self, type_: int) -> object:
        if type_ in _LETTERS:
            return self._numbers(_LETTERS[type_])[0]
        if type_ == _TEXT:
            return self._text()
        if type_ != _ARRAY:
            raise ValueError(f"a value of the type {type_}, which the format does not have")
        (of,), (length,) = self._numbers("I"), self._numbers("Q")
        if of in _LETTERS:
            return list(self._numbers(_LETTERS[of], length))
        if of == _TEXT:
            return self._texts(length)
        return [self._value_of(of) for _ in range(length)]

    def _text(self) -> str:
        (size,) = _SIZE.unpack(self._take(_SIZE.size))
        return str(self._take(size), "utf-8")

    def _texts(self, length: int) -> list[str]:
        """As many texts, without a call for each: a vocabulary has 100,000."""
        raw, at, unpack = self._raw, self.at, _SIZE.unpack_from
        found: list[str] = []
        add = found.append
        with contextlib.suppress(struct.error):  # the end of the file, of which `_text` tells
            for _ in range(length):
                start = at + _SIZE.size
                until = start + unpack(raw, at)[0]
                text = raw[start:until]
                if len(text) != until - start:
                    break
                add(str(text, "utf-8"))
                at = until
        self.at = at
        return found if len(found) == length else [*found, self._text()]

    def _numbers(self, letter: str, length: int = 1) -> tuple[Any, ...]:
        data = self._take(struct.calcsize(f"<{letter}") * length)
        return struct.unpack(f"<{length}{letter}", data)

    def _take(self, size: int) -> memoryview:
        start, self.at = self.at, self.at + size
        if self.at > len(self._raw):
            raise ValueError(
                f"{size} bytes from byte {start} on, in a file of {len(self._raw)}"
            )
        return self._raw[start : self.at]


def _kind(path: Path, name: str, number: int) -> _Kind:
    """The type that has a number."""
    if number in _KINDS:
        return _KINDS[number]
    fail(
        "checkpoint",
        f"{path}: `{name}` is of a type that cannot be read",
        expected=listing([*_PLAIN, *QUANTIZED]),
        found=f"`{_named(number)}`",
        help="take the same model in another quantization",
    )


def _named(number: int) -> str:
    """What a type that is not read is called, where the package `gguf` is there to say it."""
    with contextlib.suppress(ImportError, ValueError):
        return str(importlib.import_module("gguf").GGMLQuantizationType(number).name)
    return f"number {number}"


def _size(name: str, shape: Sequence[int], kind: _Kind) -> int:
    """How many bytes a tensor takes; each of its rows is a whole number of blocks."""
    if math.prod(shape[-1:]) % kind.block:
        raise ValueError(
            f"`{name}`, {kind.name}{shape}, has rows that are not blocks of {kind.block}"
        )
    return count(shape) // kind.block * kind.size


def _stored(path: Path, shape: Sequence[int], kind: _Kind, data: Bytes) -> LazyTensor:
    if kind.name in _PLAIN:
        return window(data, _PLAIN[kind.name][1], shape)
    rows = (*shape[:-1], shape[-1] // kind.block * kind.size)

    def load() -> NDArray[Any]:
        library = _library(path)
        with reading(path, _KIND):
            type_ = library.GGMLQuantizationType[kind.name]
            numbers: NDArray[Any] = library.quants.dequantize(opened(data).reshape(rows), type_)
            return numbers

    def grouped() -> Groups:
        return groups(kind.name, opened(data).reshape(rows))

    return LazyTensor("float32", tuple(shape), load, grouped if len(shape) == 2 else None)


def _refuse_part(path: Path, metadata: dict[str, object]) -> None:
    parts = metadata.get("split.count", 1)
    if type(parts) is int and parts > 1:
        fail(
            "checkpoint",
            f"{path}: the file is one of {parts} parts of a model",
            expected="a whole model in one file",
            help="join the parts: llama-gguf-split --merge FIRST-PART WHOLE",
        )


def _library(path: Path) -> Any:
    """The package `gguf`, which takes a moment to import and is not needed otherwise."""
    try:
        return importlib.import_module("gguf")
    except ImportError as error:
        fail(
            "file",
            f"{path}: the package `gguf`, which decodes such files, is not installed",
            help="pip install 'archdsl[gguf]'",
            cause=error,
        )
