"""Reads PyTorch files of tensors (`.pt`, `.bin`, `.pth`).

Two layouts are supported: the zip archive of PyTorch 1.6 and later (`NAME/data.pkl`, and the
bytes of each storage in `NAME/data/KEY`), and the older stream (five pickles, then the
storages); see `_save` and `_legacy_save` in torch/serialization.py. state_pickle reads the
pickles, and calls nothing that they name. tinygrad's reader does call what a file names, and
ignores the strides of sliced tensors.
"""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from archdsl.diagnostics import fail, listing
from archdsl.files import open_file
from archdsl.formats.archive import open_archive
from archdsl.formats.host import (
    CARRIER,
    Bytes,
    LazyTensor,
    element_count,
    map_file,
    mapped_view,
    reading,
)
from archdsl.formats.state_pickle import Machine, View, expect
from archdsl.limits import check_limit

_KIND = "a PyTorch state dict"
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001


def read_torch(path: Path) -> tuple[dict[str, LazyTensor], dict[str, object] | None]:
    """The tensors of a state dict by name, in file order, and the settings beside it.

    A row-major tensor is a view of the memory-mapped file. Any other tensor (transposed,
    expanded or sliced) is copied when it is read. A compressed archive is read at once. Tensors
    may share a storage. If the file is a dict in which exactly one key, such as `state_dict`,
    holds tensors by name, these are the weights, and a warning names the key. Numbers, texts,
    and dicts and lists of these under other keys are the settings, None if there is no dict.

    Raises ArchError (`checkpoint`) if the file is damaged, contains anything other than
    tensors, or if it is unclear which of its tensors are the weights.
    """
    with reading(path, _KIND):
        raw = map_file(path)
        layout = _read_archive if raw[:2].tobytes() == b"PK" else _read_stream
        root, storages = layout(path, raw)
        views = _weights(path, root)
        tensors = {name: _lazy_tensor(path, view, storages) for name, view in views.items()}
        return tensors, _settings(root)


def _read_archive(path: Path, raw: Bytes) -> tuple[Any, Mapping[str, Bytes]]:
    """The object in a zip archive's pickle, and its storages by key."""
    with open_archive(path) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        if len(entries) < len(archive.infolist()):
            raise ValueError("two entries of the archive have the same name")
        pickles = [name for name in entries if name.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise ValueError(f"the archive has {len(pickles)} entries `NAME/data.pkl`, not one")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}constants.pkl" in entries:
            raise ValueError("a program written by torch.jit.save, not a state dict")
        order = f"{folder}byteorder"
        if order in entries and archive.read(order) != b"little":
            raise ValueError("big-endian byte order is not supported")
        check_limit("pickle_bytes", entries[pickles[0]].file_size, path)
        machine = Machine(path)
        root = machine.run(io.BytesIO(archive.read(pickles[0])))
        names = {key: f"{folder}data/{key}" for key in machine.storages}
        if missing := [name for name in names.values() if name not in entries]:
            raise ValueError(f"the archive has no entry {listing(missing[:3])}")
        return root, {k: _member(archive, entries[name], raw) for k, name in names.items()}


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, raw: Bytes) -> Bytes:
    """The bytes of an archive's entry; not copied unless they are compressed."""
    if info.compress_type != zipfile.ZIP_STORED:
        return np.frombuffer(bytearray(archive.read(info)), np.uint8)
    archive.open(info).close()  # checks the local header before the bytes
    name, extra = struct.unpack_from("<HH", raw.data, info.header_offset + 26)
    start = info.header_offset + 30 + name + extra
    return _slice(raw, start, info.file_size)


def _read_stream(path: Path, raw: Bytes) -> tuple[Any, Mapping[str, Bytes]]:
    """The object in a stream's fourth pickle, and the storages after the fifth."""
    machine = Machine(path)
    with open_file(path) as stream:
        if machine.run(stream) != _MAGIC or machine.run(stream) != _PROTOCOL:
            raise ValueError("a pickle that was not written by torch.save")
        if expect(dict, machine.run(stream)).get("little_endian") is not True:
            raise ValueError("big-endian byte order is not supported")
        root, keys = machine.run(stream), expect(list, machine.run(stream))
        start = stream.tell()
    storages = {}
    for key in keys:
        (length,) = struct.unpack_from("<Q", raw.data, start)
        size = length * CARRIER[machine.storages[key].dtype].itemsize
        storages[key] = _slice(raw, start + 8, size)
        start += 8 + size
    return root, storages


def _slice(raw: Bytes, start: int, size: int) -> Bytes:
    if start + size > len(raw):
        raise ValueError(f"{size} bytes at offset {start} exceed the file of {len(raw)} bytes")
    return raw[start : start + size]


def _lazy_tensor(path: Path, view: View, storages: Mapping[str, Bytes]) -> LazyTensor:
    storage, carrier = storages[view.storage.key], CARRIER[view.dtype]
    _elements(storage.view(carrier), view)  # reports a view outside its storage at once

    def load() -> NDArray[Any]:
        with reading(path, _KIND):  # an expanded tensor may exceed the memory
            return np.ascontiguousarray(_elements(mapped_view(storage).view(carrier), view))

    return LazyTensor(view.dtype, tuple(view.shape), load)


def _elements(storage: NDArray[Any], view: View) -> NDArray[Any]:
    """The elements of a tensor as a view of its storage."""
    if not all(type(n) is int and n >= 0 for n in (view.offset, *view.stride)):
        raise ValueError("an offset or stride is not a non-negative integer")
    if element_count(view.shape) == 0:
        return storage[:0].reshape(view.shape)
    steps = zip(view.shape, view.stride, strict=True)
    last = view.offset + sum((size - 1) * step for size, step in steps)
    if last >= len(storage):
        raise ValueError(
            f"a tensor uses element {last} of a storage of {len(storage)} elements"
        )
    strides = [step * storage.itemsize for step in view.stride]
    return np.lib.stride_tricks.as_strided(storage[view.offset :], view.shape, strides)


def _weights(path: Path, root: object) -> dict[str, View]:
    """Finds the weights among the objects of a file: tensors by name."""
    if _is_state_dict(root):
        return dict(root)
    held = root if isinstance(root, dict) else {}
    inner = [key for key, value in held.items() if value and _is_state_dict(value)]
    kinds = [f"{key}: {_kind(value)}" for key, value in held.items()]
    # A loss may be saved as a tensor, which is a single number.
    loose = any(isinstance(value, View) and value.shape for value in held.values())
    if len(inner) != 1 or loose:
        fail(
            "checkpoint",
            f"{path}: it is unclear which tensors of the file are the weights",
            expected="tensors by name, or exactly one key that holds them",
            found=listing(kinds[:12], "and") or f"a {_kind(root)}",
            help="save the weights alone: torch.save(model.state_dict(), path)",
        )
    others = [kind for key, kind in zip(held, kinds, strict=True) if key != inner[0]]
    also = f"; the file also has {listing(others[:12], 'and')}" if others else ""
    warnings.warn(f"{path}: reading the weights under `{inner[0]}`{also}", stacklevel=2)
    return dict(held[inner[0]])


def _settings(root: object) -> dict[str, object] | None:
    """The plain values of a file beside its weights; None without a dict among them."""
    held = root if isinstance(root, dict) else {}
    found = {k: v for k, v in held.items() if isinstance(k, str) and _is_plain(v)}
    return found if any(isinstance(value, dict) and value for value in found.values()) else None


def _is_plain(value: object) -> bool:
    """Whether a value has no tensors, and no objects that were not read."""
    match value:
        case dict():
            return all(isinstance(k, str) and _is_plain(v) for k, v in value.items())
        case list() | tuple():
            return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _is_state_dict(value: object) -> TypeGuard[dict[str, View]]:
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(view, View) for name, view in value.items()
    )


def _kind(value: object) -> str:
    match value:
        case View():
            return "tensor"
        case dict():
            return f"dict of {len(value)} tensors" if _is_state_dict(value) else "dict"
    return type(value).__name__
