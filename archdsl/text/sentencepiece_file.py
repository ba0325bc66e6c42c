"""Reads the models of SentencePiece: `.spm` files, which are messages of protocol buffers.

The fields are those of its `sentencepiece_model.proto`: pieces with scores and types, the kind
of model, and how a text is normalised.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from archdsl.diagnostics import fail
from archdsl.files import read_bytes
from archdsl.frozen import Frozen
from archdsl.text.subword_models import reading

NORMAL, UNKNOWN = 1, 2  # types of pieces

_UNIGRAM = 1
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5  # how a field is encoded


class SentencePieces(Frozen):
    """The pieces of a unigram model by id: (text, score, type), and its map of characters."""

    pieces: tuple[tuple[str, float, int], ...]
    charsmap: bytes


def read_sentencepiece(path: Path) -> SentencePieces:
    """Reads a unigram model. Raises `ArchError`: "file", or "tokenizer" for a damaged file, for
    a model of another kind, and for settings that are not the default."""
    with reading(path):
        top = list(_fields(read_bytes(path)))
        pieces = tuple(_piece(data) for number, data in top if number == 1)
        trainer, normalizer = (
            dict(_fields(b"".join(_bytes(data) for n, data in top if n == number)))
            for number in (2, 3)
        )
        if not pieces or pieces[0][0] is None:
            raise ValueError("it has no pieces")
    kind = trainer.get(3, _UNIGRAM)
    flags = {
        name: normalizer.get(number, 1)
        for number, name in (
            (3, "add_dummy_prefix"),
            (4, "remove_extra_whitespaces"),
            (5, "escape_whitespaces"),
        )
    }
    if kind != _UNIGRAM or not all(flags.values()) or trainer.get(24):
        off = [name for name, value in flags.items() if not value]
        off += ["treat_whitespace_as_suffix"] if trainer.get(24) else []
        fail(
            "tokenizer",
            f"{path}: this kind of SentencePiece model is not supported",
            expected="a unigram model with the usual spaces",
            found=f"model type {kind!r}" if kind != _UNIGRAM else ", ".join(off),
            help="use the `tokenizer.json` that is published with the model",
        )
    return SentencePieces(pieces, _bytes(normalizer.get(2, b"")))


def _piece(data: int | bytes) -> tuple[str, float, int]:
    found = dict(_fields(_bytes(data)))
    (score,) = struct.unpack("<f", _bytes(found.get(2, bytes(4))))
    kind = found.get(3, NORMAL)
    if not isinstance(kind, int):
        raise TypeError("the type of a piece is not a number")
    return str(_bytes(found[1]), "utf-8"), float(score), kind


def _bytes(data: int | bytes) -> bytes:
    if isinstance(data, int):
        raise TypeError("a field is a number, not bytes")
    return data


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message: numbers, and values as numbers or bytes."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            if at >= len(data) or shift > 63:
                raise ValueError("a number is not complete")
            byte = data[at]
            at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        number, how = key >> 3, key & 7
        if how == _VARINT:
            yield number, varint()
            continue
        size = {_EIGHT: 8, _FOUR: 4}.get(how, 0) if how != _BYTES else varint()
        if how not in (_EIGHT, _BYTES, _FOUR) or at + size > len(data):
            raise ValueError(f"field {number} is not complete")
        yield number, data[at : at + size]
        at += size
