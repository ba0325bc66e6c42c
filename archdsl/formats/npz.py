"""Reads and writes NumPy archives: a zip with one `.npy` file per array (numpy.lib.format).

Arrays of Python objects are rejected, because reading them would run pickles. NumPy has no
bfloat16 and no 8-bit floats; safetensors supports them.
"""

from __future__ import annotations

import os
import tokenize
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from archdsl.diagnostics import fail, listing
from archdsl.files import open_file
from archdsl.formats.archive import open_archive
from archdsl.formats.atomic import replacing
from archdsl.formats.host import (
    CARRIER,
    LazyTensor,
    Value,
    bits_of,
    dtype_name,
    element_count,
    reading,
)

_HELD = [name for name, carrier in CARRIER.items() if carrier.name == name]


def read_npz(path: Path) -> dict[str, LazyTensor]:
    """The arrays of an archive by name, in file order. All are read into memory.

    Raises ArchError (`checkpoint`) if the archive is damaged, or holds anything other than
    arrays of numbers.
    """
    with (
        reading(path, "an npz archive"),
        open_archive(path),  # checks the declared sizes
        open_file(path) as opened,
        np.load(opened, allow_pickle=False) as file,
    ):
        if len(set(file.files)) < len(file.files):
            raise ValueError("two arrays have the same name")
        return {name: _stored(name, file[name]) for name in file.files}


def read_npy(path: str | Path) -> np.ndarray[Any, Any]:
    """The array of a `.npy` file; raises OSError, or ValueError if it is not one.

    The size that the header declares is compared with the file's before it is allocated.
    """
    with open_file(path) as file:
        start = file.read(8)
        if start[:4] == b"PK\x03\x04":
            raise ValueError("it is an archive; write each array with `np.save`")
        if start[:6] != np.lib.format.MAGIC_PREFIX:
            raise ValueError("it is not a .npy file, which `np.save` writes")
        readers = {
            b"\1\0": np.lib.format.read_array_header_1_0,
            b"\2\0": np.lib.format.read_array_header_2_0,
        }
        if start[6:] not in readers:
            raise ValueError("its version is not supported: write it again with `np.save`")
        try:
            shape, _, dtype = readers[start[6:]](file)
        except (SyntaxError, TypeError, RecursionError, tokenize.TokenError) as error:
            raise ValueError("its header is damaged") from error
        if dtype.hasobject:
            raise ValueError("it has Python objects instead of numbers")
        declared = element_count(shape) * dtype.itemsize
        stored = os.fstat(file.fileno()).st_size - file.tell()
        if declared != stored:
            raise ValueError(f"its header declares {declared:,} bytes, and it has {stored:,}")
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)


def write_npz(path: str | Path, tensors: Mapping[str, Value]) -> None:
    """Writes arrays to an uncompressed archive, which replaces `path` when it is complete.

    Order and dtypes are kept, only one array is in memory at a time, and equal arrays give
    equal bytes. Raises ArchError: `checkpoint` for a dtype that NumPy does not have, `file` if
    the file cannot be written.
    """
    for name, value in tensors.items():
        if dtype_name(value) not in _HELD:
            fail(
                "checkpoint",
                f"{Path(path)}: cannot write `{name}`: npz has no dtype `{dtype_name(value)}`",
                expected=listing(_HELD),
                help="write a .safetensors file, or cast the tensor to float32",
            )
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, value in tensors.items():
            # A new ZipInfo has a fixed date, so equal arrays give equal archives.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as stream:
                array = bits_of(value).reshape(value.shape)
                np.lib.format.write_array(stream, array, allow_pickle=False)


def _stored(name: str, value: Any) -> LazyTensor:
    if not isinstance(value, np.ndarray):
        raise ValueError(f"`{name}` is not an array")
    if value.dtype.name not in _HELD:
        raise ValueError(
            f"`{name}` has the dtype {value.dtype}; supported are {listing(_HELD, 'and')}"
        )
    bits = bits_of(value)
    return LazyTensor(value.dtype.name, value.shape, lambda: bits)
