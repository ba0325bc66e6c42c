"""Reads one file of weights; detects the format from the content.

Each format has its own reader. For any other file, the error says what the file is.
`checkpoint` reads folders with several files.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from archdsl.diagnostics import did_you_mean, fail, listing
from archdsl.files import open_file
from archdsl.formats.ctranslate2 import START, read_ctranslate2
from archdsl.formats.gguf import MAGIC, read_gguf
from archdsl.formats.host import LazyTensor, reading
from archdsl.formats.npz import read_npz
from archdsl.formats.safetensors import read_safetensors
from archdsl.formats.torch_pickle import read_torch

_KNOWN = "weights as .safetensors, .gguf, .npz, PyTorch's .pt, .pth or .bin, or CTranslate2's"

_Opened: TypeAlias = tuple[dict[str, LazyTensor], dict[str, object] | None]
_Reader: TypeAlias = Callable[[Path], _Opened]

_PAGE = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--")


def read_file(path: Path) -> _Opened:
    """The tensors of a file by name, in file order, and its metadata if the format has any.

    Raises ArchError: `file` if the file does not exist, `checkpoint` if it is damaged or not a
    file of weights. Code in a file is never run.
    """
    start = _start(path)
    _refuse_placeholder(path, start)
    return _reader(path, start)(path)


def _start(path: Path) -> bytes:
    """The first bytes of a file that exists and is not empty."""
    with reading(path, "a file"):
        if not path.exists():
            beside = path.parent.iterdir() if path.parent.is_dir() else ()
            guess = did_you_mean(path.name, [p.name for p in beside if p.is_file()])
            fail("file", f"{path}: file not found", help=guess)
        if path.is_dir():
            files = sorted(p.name for p in path.iterdir() if p.is_file())[:12]
            found = f"a folder with {listing(files, 'and') or 'no files'}"
            fail(
                "file",
                f"{path}: a file is needed, not a folder",
                found=found,
                help="give the path of one file",
            )
        if not path.is_file():
            fail("file", f"{path}: not a regular file")
        with open_file(path) as stream:
            start = stream.read(512)
    if not start:
        fail("checkpoint", f"{path}: the file is empty", help="copy or download it again")
    return start


def _refuse_placeholder(path: Path, start: bytes) -> None:
    """Raises ArchError for a file that a failed download left instead of weights."""
    if start.startswith(b"version https://git-lfs"):
        fail(
            "checkpoint",
            f"{path}: this is a Git LFS pointer, not the weights",
            expected=_KNOWN,
            help="run `git lfs pull` in the repository",
        )
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGE):
        fail(
            "checkpoint",
            f"{path}: this is a web page, not weights",
            expected=_KNOWN,
            found=repr(start[:40]),
            help="the URL was that of a web page; use the URL of its download link",
        )


def _reader(path: Path, start: bytes) -> _Reader:
    """The reader for the format that the first bytes show."""
    if start.startswith(MAGIC):
        return read_gguf
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        with (
            reading(path, "an archive of weights"),
            open_file(path) as file,
            zipfile.ZipFile(file) as archive,
        ):
            torch = any(name.endswith("/data.pkl") for name in archive.namelist())
        return read_torch if torch else _without_metadata(read_npz)
    if START.match(start):
        return read_ctranslate2
    if start[8:9] == b"{" or path.suffix == ".safetensors":
        return _without_metadata(read_safetensors)
    if start[:1] == b"\x80":  # the first instruction of a pickle
        return read_torch
    fail(
        "checkpoint",
        f"{path}: unknown format of weights",
        expected=_KNOWN,
        found=f"a file that starts with {start[:16]!r}",
        help="if the file is damaged or truncated, download it again and compare the sizes",
    )


def _without_metadata(read: Callable[[Path], dict[str, LazyTensor]]) -> _Reader:
    return lambda path: (read(path), None)
