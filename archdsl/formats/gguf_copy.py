"""Writes a GGUF file with the metadata of another one, and with other numbers.

The metadata, such as the tokenizer, are copied as they are. Tensors have the names and the
order of the other file, and are not quantized.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from archdsl.diagnostics import fail, listing
from archdsl.formats.atomic import replacing
from archdsl.formats.gguf import PLAIN, metadata_pairs, read_gguf
from archdsl.formats.host import CARRIER, LazyTensor, bits_of, element_count
from archdsl.progress import each

_FILE_TYPE = "general.file_type"  # a number that says the type of most tensors
_FILE_TYPES = {"float32": 0, "float16": 1, "bfloat16": 32}
_UINT32 = 4


def copy_gguf(source: Path, target: str | Path, tensors: Mapping[str, LazyTensor]) -> None:
    """Writes `target` with the metadata of `source` and these tensors, which are all of its
    own. The file appears when it is complete.

    Raises ArchError: `checkpoint` if `source` is damaged or if the tensors are others, `file`
    if the file cannot be written.
    """
    own, metadata = read_gguf(source)
    if own.keys() != tensors.keys():
        odd = sorted(own.keys() ^ tensors.keys())
        fail(
            "checkpoint",
            f"{source}: the tensors to write are not those of this file",
            expected=f"{len(own)} tensors",
            found=f"{len(tensors)}; {listing(odd[:4], 'and')} only on one side",
        )
    align = metadata.get("general.alignment", 32)
    assert isinstance(align, int)
    ordered = {name: tensors[name] for name in own}
    largest = max(ordered.values(), key=lambda tensor: element_count(tensor.shape))
    header = _header(source, ordered, _FILE_TYPES.get(largest.dtype), align)
    with replacing(target) as temporary, temporary.open("wb") as stream:
        stream.write(header)
        for tensor in each(ordered.values(), "writing weights", "tensors", len(ordered)):
            data = bits_of(tensor).reshape(-1).view(np.uint8).data
            stream.write(data)
            stream.write(bytes(-len(data) % align))


def _header(
    source: Path, tensors: Mapping[str, LazyTensor], file_type: int | None, align: int
) -> bytes:
    version, pairs = metadata_pairs(source)
    if file_type is not None and _FILE_TYPE in pairs:
        pairs[_FILE_TYPE] = _text(_FILE_TYPE) + struct.pack("<II", _UINT32, file_type)
    parts = [b"GGUF", struct.pack("<IQQ", version, len(tensors), len(pairs)), *pairs.values()]
    offset = 0
    for name, tensor in tensors.items():
        shape, (number, _) = tensor.shape[::-1], _type(name, tensor)
        parts += [_text(name), struct.pack("<I", len(shape))]
        parts.append(struct.pack(f"<{len(shape)}QIQ", *shape, number, offset))
        size = element_count(tensor.shape) * CARRIER[tensor.dtype].itemsize
        offset += size + -size % align
    header = b"".join(parts)
    return header + bytes(-len(header) % align)


def _type(name: str, tensor: LazyTensor) -> tuple[int, str]:
    """The number and the name of a tensor's type."""
    found = next((row for row in PLAIN.values() if row[1] == tensor.dtype), None)
    if found is None:
        fail(
            "checkpoint",
            f"a GGUF file cannot have `{name}` in {tensor.dtype}",
            expected=listing(dtype for _, dtype in PLAIN.values()),
        )
    return found


def _text(value: str) -> bytes:
    encoded = value.encode()
    return struct.pack("<Q", len(encoded)) + encoded
