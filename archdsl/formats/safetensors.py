"""Reads and writes safetensors; the reader checks every rule of the format.

A file has eight bytes (the header's length N, little-endian), N bytes of JSON that start with
`{` and may end with spaces, and the bytes of the tensors; see "Format" in the README of
https://github.com/huggingface/safetensors. The header has the dtype, shape and byte range of
each tensor. The ranges cover the data without gaps or overlaps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from archdsl.diagnostics import fail, listing
from archdsl.formats.atomic import replacing
from archdsl.formats.host import (
    CARRIER,
    Bytes,
    LazyTensor,
    Value,
    bits_of,
    dtype_name,
    element_count,
    lazy_view,
    map_file,
    reading,
)
from archdsl.formats.strict_json import parse_object
from archdsl.limits import check_limit
from archdsl.progress import each

# The name of a dtype in the format -> its name in tinygrad.
DTYPES = {
    "BOOL": "bool",
    "I8": "int8",
    "U8": "uint8",
    "I16": "int16",
    "U16": "uint16",
    "I32": "int32",
    "U32": "uint32",
    "I64": "int64",
    "U64": "uint64",
    "F8_E4M3": "fp8e4m3",
    "F8_E5M2": "fp8e5m2",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
}
_NAMES = {ours: theirs for theirs, ours in DTYPES.items()}

_METADATA = "__metadata__"


def read_safetensors(path: Path) -> dict[str, LazyTensor]:
    """The tensors of a file by name, in the order of its header.

    Data is read when a tensor is used; until then the file must not be truncated. Raises
    ArchError (`checkpoint`) if the file breaks any rule of the format.
    """
    with reading(path, "a safetensors file"):
        raw = map_file(path)
        header, _, data = _split(path, raw)
        entries = {name: _entry(name, value) for name, value in header.items()}
        _check_spans(entries, len(data))
        return {
            name: lazy_view(data[start:end], dtype, shape)
            for name, (dtype, shape, start, end) in entries.items()
        }


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata in the header of a file; raises ArchError as `read_safetensors` does."""
    with reading(path, "a safetensors file"):
        _, metadata, _ = _split(path, map_file(path))
        return metadata


def write_safetensors(
    path: str | Path,
    tensors: Mapping[str, Value],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes tensors to a file, which replaces `path` when it is complete.

    Order and dtypes are kept, only one tensor is in memory at a time, and equal tensors give
    equal bytes. Raises ArchError: `checkpoint` for a dtype or name that the format does not
    support, `file` if the file cannot be written.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.safetensors"
    >>> write_safetensors(path, {"b": np.ones(2, np.float16)}, {"made by": "hand"})
    >>> path.read_bytes()[8:-4].decode().rstrip()
    '{"__metadata__":{"made by":"hand"},"b":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}'
    """
    header: dict[str, object] = {}
    if metadata is not None:
        header[_METADATA] = dict(metadata)
    end = 0
    for name, value in tensors.items():
        start, end = end, end + stored_size(Path(path), name, value)
        dtype = _NAMES[dtype_name(value)]
        header[name] = {"dtype": dtype, "shape": value.shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as temporary, temporary.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for value in each(tensors.values(), "writing weights", "tensors", len(tensors)):
            stream.write(bits_of(value).reshape(-1).view(np.uint8).data)


def stored_size(path: Path, name: str, value: Value) -> int:
    """The bytes of a tensor; raises ArchError if the format does not support it."""
    dtype = dtype_name(value)
    if name == _METADATA or dtype not in _NAMES:
        fail(
            "checkpoint",
            f"{path}: cannot write `{name}`: safetensors does not support it",
            expected=f"a name other than `{_METADATA}`, and one of {listing(_NAMES)}",
            found=f"`{name}` of dtype `{dtype}`",
        )
    return element_count(value.shape) * CARRIER[dtype].itemsize


def _split(path: Path, raw: Bytes) -> tuple[dict[str, Any], dict[str, str], Bytes]:
    """The entries of the header without the metadata, the metadata, and the data after it."""
    length = int.from_bytes(raw[:8].tobytes(), "little")
    if len(raw) < 8 or length > len(raw) - 8:
        raise ValueError(f"a header of {length} bytes in a file of {len(raw)} bytes")
    check_limit("header_bytes", length, path)
    text = raw[8 : 8 + length].tobytes()
    if not text.startswith(b"{"):
        raise ValueError(f"the header starts with {text[:8]!r}, not with a brace")
    header = parse_object(text)
    metadata = header.pop(_METADATA, {})
    if type(metadata) is not dict or any(type(v) is not str for v in metadata.values()):
        raise ValueError(f"`{_METADATA}` does not map strings to strings")
    return header, metadata, raw[8 + length :]


def _entry(name: str, value: Any) -> tuple[str, list[int], int, int]:
    """The dtype (tinygrad's name), shape, and byte range of a tensor in the data."""
    if type(value) is not dict or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"the entry of `{name}` must have dtype, shape and data_offsets")
    dtype, shape, span = value["dtype"], value["shape"], value["data_offsets"]
    if dtype not in DTYPES:
        raise ValueError(
            f"`{name}` has the dtype {dtype!r:.20}; supported are {listing(DTYPES, 'and')}"
        )
    if (
        type(shape) is not list
        or type(span) is not list
        or [type(n) for n in span] != [int] * 2
    ):
        raise ValueError(f"the entry of `{name}` must have a list of sizes and two offsets")
    size = element_count(shape) * CARRIER[DTYPES[dtype]].itemsize
    if span[1] - span[0] != size:
        raise ValueError(f"`{name}`, {dtype}{shape}, has {size} bytes, but the range {span}")
    return DTYPES[dtype], shape, span[0], span[1]


def _check_spans(entries: Mapping[str, tuple[str, list[int], int, int]], size: int) -> None:
    """Raises ValueError unless the byte ranges cover the data without gaps or overlaps."""
    reached = 0
    for start, end, name in sorted((e[2], e[3], name) for name, e in entries.items()):
        if start != reached:
            raise ValueError(f"`{name}` starts at byte {start} of the data, not at {reached}")
        reached = end
    if reached != size:
        raise ValueError(
            f"the header describes {reached} bytes of data, but the file has {size}"
        )
