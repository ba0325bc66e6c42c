"""Reads GGUF, the format of llama.cpp: metadata and tensors, many of them quantized.

The layout is that of ggml's docs/gguf.md: a magic number, the version, the counts, then key and
value pairs, then name, shape, type and offset of each tensor, then the data. The header is read
here: the reader of the `gguf` package hangs on some damaged files, and takes seconds for a
vocabulary. The package converts quantized blocks to float32; `gguf_blocks.py` reads them as
integers with scales where a format has them.
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
from archdsl.formats.gguf_blocks import CONVERTED, KINDS, groups
from archdsl.formats.host import (
    CARRIER,
    Bytes,
    Groups,
    LazyTensor,
    element_count,
    lazy_view,
    map_file,
    mapped_view,
    reading,
)
from archdsl.formats.strict_json import unique_names

MAGIC = b"GGUF"

_KIND = "a GGUF file"
_VERSIONS = (2, 3)

# The number of a metadata type -> its letter in struct.
_LETTERS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_TEXT, _ARRAY = 8, 9
_SIZE = struct.Struct("<Q")
_MOST_AXES = 4
_PART = 1 << 20  # bytes of a list of texts that are copied at once

# The name of an unquantized tensor type -> its number, and tinygrad's name.
PLAIN = {
    "F32": (0, "float32"),
    "F16": (1, "float16"),
    "BF16": (30, "bfloat16"),
    "F64": (28, "float64"),
    "I8": (24, "int8"),
    "I16": (25, "int16"),
    "I32": (26, "int32"),
    "I64": (27, "int64"),
}
QUANTIZED = (*KINDS, *CONVERTED)  # types whose blocks are converted to float32


class _Kind(NamedTuple):
    """A tensor type: the numbers and the bytes of a block."""

    name: str
    block: int
    size: int


_KINDS = {
    number: _Kind(name, 1, CARRIER[dtype].itemsize) for name, (number, dtype) in PLAIN.items()
} | {
    number: _Kind(name, block, size)
    for name, (number, block, size, *_) in (KINDS | CONVERTED).items()
}


def read_gguf(path: Path) -> tuple[dict[str, LazyTensor], dict[str, object]]:
    """The tensors of a file by name, in file order, and its metadata.

    Shapes are row-major; a matrix is [out, in]. An unquantized tensor is a view of the
    memory-mapped file. A quantized one is converted to float32 in new memory on each read.
    Metadata values are numbers, strings, booleans and lists of these.

    Raises ArchError: `checkpoint` if the file is damaged, is one part of several, or has a
    tensor of an unknown type; when a quantized tensor is read, `file` if the package `gguf` is
    not installed.
    """
    with reading(path, _KIND):
        stat = path.stat()
        changed = (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    tensors, metadata = _read(path, changed)
    return dict(tensors), dict(metadata)


@functools.lru_cache(maxsize=1)  # a model's file is read for its tokenizer and for its weights
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
            raise ValueError(f"the alignment {alignment!r:.80} is not a power of two")
        data = raw[header.at + -header.at % alignment :]
        tensors: dict[str, LazyTensor] = {}
        reached = 0
        for name, (shape, number, offset) in entries.items():
            if offset != reached:
                raise ValueError(
                    f"`{name}` starts at byte {offset} of the data, not at {reached}"
                )
            kind = _kind(path, name, number)
            size = _size(name, shape, kind)
            if offset + size > len(data):
                raise ValueError(
                    f"`{name}` ends at byte {offset + size}, but the data has {len(data)}"
                )
            tensors[name] = _lazy_tensor(path, shape, kind, data[offset : offset + size])
            reached += size + -size % alignment
        return tensors, metadata


def metadata_pairs(path: Path) -> tuple[int, dict[str, bytes]]:
    """The version of a file, and its metadata as they are written, by key: the key, the type
    and the value. Raises ArchError as `read_gguf` does."""
    with reading(path, _KIND):
        return _Header(map_file(path)).pairs()


class _Header:
    """A cursor over the header of a file."""

    def __init__(self, raw: Bytes) -> None:
        self._raw = raw.data
        self.at = 0

    def read(self) -> tuple[dict[str, object], dict[str, tuple[list[int], int, int]]]:
        """The metadata by key; the shape, type and offset of each tensor by name."""
        _, tensors, pairs = self._counts()
        metadata = unique_names((self._text(), self._value()) for _ in range(pairs))
        return metadata, unique_names((self._text(), self._entry()) for _ in range(tensors))

    def pairs(self) -> tuple[int, dict[str, bytes]]:
        """The version, and the bytes of each pair of the metadata by key."""
        version, _, pairs = self._counts()
        return version, unique_names(self._pair() for _ in range(pairs))

    def _pair(self) -> tuple[str, bytes]:
        start, key = self.at, self._text()
        self._value()
        return key, bytes(self._raw[start : self.at])

    def _counts(self) -> tuple[int, int, int]:
        """The version, and the numbers of tensors and of pairs of metadata."""
        if self._take(4) != MAGIC:
            raise ValueError("the file does not start with `GGUF`")
        (version,) = self._numbers("I")
        if version not in _VERSIONS:
            known = listing(map(str, _VERSIONS), "and")
            raise ValueError(f"format version {version} is not supported; {known} are")
        tensors, pairs = self._numbers("Q", 2)
        return version, tensors, pairs

    def _entry(self) -> tuple[list[int], int, int]:
        (axes,) = self._numbers("I")
        if axes > _MOST_AXES:
            raise ValueError(f"a tensor with {axes} axes; at most {_MOST_AXES} are allowed")
        shape = self._numbers("Q", axes)[::-1]  # the innermost axis comes first
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
            raise ValueError(f"unknown type {type_} of a metadata value")
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
        """Reads `length` texts in one loop: a vocabulary has 100,000."""
        unpack = _SIZE.unpack_from
        found: list[str] = []
        while len(found) < length:
            part = bytes(self._raw[self.at : self.at + _PART])  # faster than a view of the file
            at = 0
            with contextlib.suppress(struct.error):  # a size crosses the end of the part
                for _ in range(length - len(found)):
                    start = at + _SIZE.size
                    until = start + unpack(part, at)[0]
                    if until > len(part):
                        break
                    found.append(part[start:until].decode())
                    at = until
            self.at += at
            if not at:  # a long text, or the end of the file, which `_take` reports
                found.append(self._text())
        return found

    def _numbers(self, letter: str, length: int = 1) -> tuple[Any, ...]:
        data = self._take(struct.calcsize(f"<{letter}") * length)
        return struct.unpack(f"<{length}{letter}", data)

    def _take(self, size: int) -> memoryview:
        start, self.at = self.at, self.at + size
        if self.at > len(self._raw):
            raise ValueError(
                f"{size} bytes at offset {start} exceed the file of {len(self._raw)} bytes"
            )
        return self._raw[start : self.at]


def _kind(path: Path, name: str, number: int) -> _Kind:
    """The tensor type with a number."""
    if number in _KINDS:
        return _KINDS[number]
    fail(
        "checkpoint",
        f"{path}: the type of `{name}` is not supported",
        expected=listing([*PLAIN, *QUANTIZED]),
        found=f"`{_named(number)}`",
        help="use another quantization of the same model",
    )


def _named(number: int) -> str:
    """The name of an unsupported type, if the package `gguf` is installed; else its number."""
    with contextlib.suppress(ImportError, ValueError):
        return str(importlib.import_module("gguf").GGMLQuantizationType(number).name)
    return f"number {number}"


def _size(name: str, shape: Sequence[int], kind: _Kind) -> int:
    """The bytes of a tensor. Each of its rows is a whole number of blocks."""
    if math.prod(shape[-1:]) % kind.block:
        raise ValueError(
            f"a row of `{name}`, {kind.name}{shape}, is not a multiple of {kind.block} numbers"
        )
    return element_count(shape) // kind.block * kind.size


def _lazy_tensor(path: Path, shape: Sequence[int], kind: _Kind, data: Bytes) -> LazyTensor:
    if kind.name in PLAIN:
        return lazy_view(data, PLAIN[kind.name][1], shape)
    rows = (*shape[:-1], shape[-1] // kind.block * kind.size)

    def load() -> NDArray[Any]:
        library = _library(path)
        type_ = getattr(library.GGMLQuantizationType, kind.name, None)
        if type_ is None:
            fail(
                "file",
                f"{path}: the installed package `gguf` cannot convert {kind.name} tensors",
                help="pip install --upgrade gguf",
            )
        with reading(path, _KIND):
            numbers: NDArray[Any] = library.quants.dequantize(
                mapped_view(data).reshape(rows), type_
            )
            return numbers

    def grouped() -> Groups:
        return groups(kind.name, mapped_view(data).reshape(rows))

    whole = len(shape) in (2, 3) and kind.name in KINDS
    return LazyTensor("float32", tuple(shape), load, grouped if whole else None)


def _refuse_part(path: Path, metadata: dict[str, object]) -> None:
    parts = metadata.get("split.count", 1)
    if type(parts) is int and parts > 1:
        fail(
            "checkpoint",
            f"{path}: this file is one of {parts} parts of a model",
            expected="a model in one file",
            help="join the parts: llama-gguf-split --merge FIRST-PART WHOLE",
        )


def _library(path: Path) -> Any:
    """Imports the package `gguf`. It is slow to import, and only quantized tensors need it."""
    try:
        return importlib.import_module("gguf")
    except ImportError as error:
        fail(
            "file",
            f"{path}: the package `gguf`, which reads quantized tensors, is not installed",
            help="pip install 'archdsl[gguf]'",
            cause=error,
        )
