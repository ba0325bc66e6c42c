"""JSON objects as checkpoints carry them, read strictly: headers, indexes and configs.

A name that stands twice has two meanings, and NaN is no JSON; both are refused. What the
names mean is left to the readers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from archdsl.formats.host import reading

_T = TypeVar("_T")

# In bytes. The index of a model of 700 billion weights has nine million.
_LONGEST = 1 << 25


def read_object(path: Path, kind: str) -> dict[str, Any]:
    """The object in a JSON file; `kind` is what a message calls the file.

    Raises ArchError: `file` where it cannot be read, `checkpoint` where it is no such object.
    """
    with reading(path, kind):
        if not path.is_file():
            raise ValueError("it is not a regular file")
        if path.stat().st_size > _LONGEST:
            raise ValueError(f"{path.stat().st_size} bytes, of {_LONGEST} at most")
        return parse_object(path.read_bytes())


def parse_object(text: bytes) -> dict[str, Any]:
    """The object that a JSON text is; ValueError where it is none.

    >>> parse_object(b'{"depth": 12}')
    {'depth': 12}
    >>> parse_object(b'{"depth": 12, "depth": 24}')
    Traceback (most recent call last):
    ValueError: `depth` stands twice
    """
    value = json.loads(
        text.decode(), object_pairs_hook=distinct, parse_float=_finite, parse_constant=_finite
    )
    if type(value) is not dict:
        raise ValueError(f"a {type(value).__name__} instead of an object in braces")
    return value


def distinct(pairs: Iterable[tuple[str, _T]]) -> dict[str, _T]:
    """The pairs as a dict, in which no name may stand twice and every name must be Unicode."""
    entries: dict[str, _T] = {}
    for name, value in pairs:
        name.encode()  # raises on half a surrogate pair, which no terminal could print
        if name in entries:
            raise ValueError(f"`{name:.80}` stands twice")
        entries[name] = value
    return entries


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text:.20} is not a finite number")
    return number
