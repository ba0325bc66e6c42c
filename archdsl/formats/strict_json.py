"""Reads JSON objects strictly: headers, indexes and configs of checkpoints, and records.

A repeated name is ambiguous and NaN is not JSON: both are errors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from archdsl.files import read_bytes
from archdsl.formats.host import reading
from archdsl.limits import check_limit, most_of

_T = TypeVar("_T")


def read_object(path: Path, kind: str) -> dict[str, Any]:
    """The object in a JSON file; error messages call the file `kind`.

    Raises ArchError: `file` if it cannot be read, `limit` if it is too large, `checkpoint` if
    it is not a valid object.
    """
    with reading(path, kind):
        check_limit("json_bytes", path.stat().st_size, path)
        return parse_object(read_bytes(path, most_of("json_bytes")))


def parse_object(text: bytes) -> dict[str, Any]:
    """Parses a JSON object; raises ValueError if the text is not one.

    >>> parse_object(b'{"depth": 12}')
    {'depth': 12}
    >>> parse_object(b'{"depth": 12, "depth": 24}')
    Traceback (most recent call last):
    ValueError: `depth` appears twice
    """
    value = json.loads(
        text.decode(),
        object_pairs_hook=unique_names,
        parse_float=_finite,
        parse_constant=_finite,
    )
    if type(value) is not dict:
        raise ValueError(f"a {type(value).__name__} instead of an object")
    return value


def unique_names(pairs: Iterable[tuple[str, _T]]) -> dict[str, _T]:
    """The pairs as a dict; raises ValueError if a name is repeated or not Unicode."""
    entries: dict[str, _T] = {}
    for name, value in pairs:
        name.encode()  # raises for half a surrogate pair, which cannot be printed
        if name in entries:
            raise ValueError(f"`{name:.80}` appears twice")
        entries[name] = value
    return entries


def finite(value: Any) -> Any:
    """A value for JSON, which has no NaN and no infinity: they become null.

    >>> finite({"loss": math.nan, "terms": (1.5, math.inf)})
    {'loss': None, 'terms': [1.5, None]}
    """
    match value:
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {name: finite(each) for name, each in value.items()}
        case list() | tuple():
            return [finite(each) for each in value]
    return value


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text:.20} is not a finite number")
    return number
