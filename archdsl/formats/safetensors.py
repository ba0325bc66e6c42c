"""The safetensors format, read strictly and written conformingly.

A file is eight bytes (the header's length N, little-endian), N bytes of JSON that begin with
`{` and may end in spaces, and the tensors' bytes; see "Format" in the README of
https://github.com/huggingface/safetensors. The header gives for each tensor its dtype, shape
and span of bytes; the spans cover the data without a hole or an overlap.
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
    count,
    dtype_name,
    map_file,
    reading,
    window,
)
from archdsl.formats.strict_json import parse_object
from archdsl.progress import each

# The format's name of a dtype -> tinygrad's.
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
# The bound of the reference implementation, in bytes.
_LONGEST_HEADER = 100_000_000


def read_safetensors(path: Path) -> dict[str, LazyTensor]:
    """The tensors of a file by name, in the order of its header.

    Nothing is read before a tensor is used; the file must not be cut meanwhile. Raises
    ArchError (`checkpoint`) where the file breaks the format in any way.
    """
    with reading(path, "a safetensors file"):
        raw = map_file(path)
        header, data = _split(raw)
        entries = {name: _entry(name, value) for name, value in header.items()}
        _check_spans(entries, len(data))
        return {
            name: window(data[start:end], dtype, shape)
            for name, (dtype, shape, start, end) in entries.items()
        }


def write_safetensors(
    path: str | Path,
    tensors: Mapping[str, Value],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes tensors to a file that takes the place of `path` when it is whole.

    The order and every dtype stay as given, one tensor at a time is in memory, and the same
    tensors give the same bytes. Raises ArchError: `checkpoint` for a dtype or a name that the
    format does not have, `file` where the file cannot be written.

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
    """How many bytes a tensor takes; ArchError where the format has no such tensor."""
    dtype = dtype_name(value)
    if name == _METADATA or dtype not in _NAMES:
        fail(
            "checkpoint",
            f"{path}: `{name}` cannot be written: safetensors has no such tensor",
            expected=f"a name other than `{_METADATA}`, of {listing(_NAMES)}",
            found=f"`{name}` of `{dtype}`",
        )
    return count(value.shape) * CARRIER[dtype].itemsize


def _split(raw: Bytes) -> tuple[dict[str, Any], Bytes]:
    """The header's entries, without the metadata, and the bytes after it."""
    length = int.from_bytes(raw[:8].tobytes(), "little")
    if len(raw) < 8 or length > len(raw) - 8 or length > _LONGEST_HEADER:
        raise ValueError(f"a header of {length} bytes in a file of {len(raw)}")
    text = raw[8 : 8 + length].tobytes()
    if not text.startswith(b"{"):
        raise ValueError(f"a header that begins with {text[:8]!r} instead of a brace")
    header = parse_object(text)
    metadata = header.pop(_METADATA, {})
    if type(metadata) is not dict or any(type(v) is not str for v in metadata.values()):
        raise ValueError(f"`{_METADATA}` is not a map from text to text")
    return header, raw[8 + length :]


def _entry(name: str, value: Any) -> tuple[str, list[int], int, int]:
    """A tensor's dtype (tinygrad's name), shape, and span of bytes in the data."""
    if type(value) is not dict or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"the entry of `{name}` is not dtype, shape and data_offsets")
    dtype, shape, span = value["dtype"], value["shape"], value["data_offsets"]
    if dtype not in DTYPES:
        raise ValueError(
            f"`{name}` is of dtype {dtype!r:.20}; read are {listing(DTYPES, 'and')}"
        )
    if (
        type(shape) is not list
        or type(span) is not list
        or [type(n) for n in span] != [int] * 2
    ):
        raise ValueError(f"the entry of `{name}` has no list of sizes and pair of offsets")
    size = count(shape) * CARRIER[DTYPES[dtype]].itemsize
    if span[1] - span[0] != size:
        raise ValueError(f"`{name}`, {dtype}{shape}, takes {size} bytes, not {span}")
    return DTYPES[dtype], shape, span[0], span[1]


def _check_spans(entries: Mapping[str, tuple[str, list[int], int, int]], size: int) -> None:
    """Raises ValueError unless the spans cover the data from its start to its end, once."""
    reached = 0
    for start, end, name in sorted((e[2], e[3], name) for name, e in entries.items()):
        if start != reached:
            raise ValueError(f"`{name}` begins at byte {start} of the data, not at {reached}")
        reached = end
    if reached != size:
        raise ValueError(f"the header tells of {reached} bytes of data; the file has {size}")
