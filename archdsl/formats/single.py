"""One file of weights, whose format its content tells.

Each format has a reader of its own; this module finds the right one, and says what the file
is where it is none of them. Folders of several files are left to checkpoint.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

from archdsl.diagnostics import did_you_mean, fail, listing
from archdsl.formats.ctranslate2 import START, read_ctranslate2
from archdsl.formats.gguf import MAGIC, read_gguf
from archdsl.formats.host import LazyTensor, reading
from archdsl.formats.npz import read_npz
from archdsl.formats.safetensors import read_safetensors
from archdsl.formats.torch_pickle import read_torch

_KNOWN = "weights as .safetensors, .gguf, .npz, PyTorch's .pt, .pth or .bin, or CTranslate2's"

_PAGE = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--")


def read_file(path: Path) -> tuple[dict[str, LazyTensor], dict[str, object] | None]:
    """A file's tensors by name, in its order, and what it says of the model, if it does.

    Raises ArchError: `file` where there is no such file, `checkpoint` where it is not one of
    weights, or a damaged one. No code in a file is ever run.
    """
    start = _start(path)
    _refuse_stand_ins(path, start)
    if start.startswith(MAGIC):
        return read_gguf(path)
    return _reader(path, start)(path), None


def _start(path: Path) -> bytes:
    """The first bytes of a file that exists and is not empty."""
    with reading(path, "a file"):
        if not path.exists():
            beside = path.parent.iterdir() if path.parent.is_dir() else ()
            guess = did_you_mean(path.name, [p.name for p in beside if p.is_file()])
            fail("file", f"{path}: there is no such file", help=guess)
        if path.is_dir():
            files = sorted(p.name for p in path.iterdir() if p.is_file())[:12]
            found = f"a folder with {listing(files, 'and') or 'no files'}"
            fail("file", f"{path}: a folder is not a file", found=found, help="name one file")
        if not path.is_file():
            fail("file", f"{path}: this is not a regular file")
        with path.open("rb") as stream:
            start = stream.read(512)
    if not start:
        fail("checkpoint", f"{path}: the file is empty", help="copy or download it again")
    return start


def _refuse_stand_ins(path: Path, start: bytes) -> None:
    """Refuses what a failed download leaves in the place of weights."""
    if start.startswith(b"version https://git-lfs"):
        fail(
            "checkpoint",
            f"{path}: this is a pointer of Git LFS, which stands for the weights",
            expected=_KNOWN,
            help="in the repository it came from: git lfs pull",
        )
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGE):
        fail(
            "checkpoint",
            f"{path}: this is a web page, not weights",
            expected=_KNOWN,
            found=repr(start[:40]),
            help="the address was that of a page; use the one of the page's download link",
        )


def _reader(path: Path, start: bytes) -> Callable[[Path], dict[str, LazyTensor]]:
    """The reader of a file's format, which its first bytes tell."""
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        with reading(path, "an archive of weights"), zipfile.ZipFile(path) as archive:
            torch = any(name.endswith("/data.pkl") for name in archive.namelist())
        return read_torch if torch else read_npz
    if START.match(start):
        return read_ctranslate2
    if start[8:9] == b"{" or path.suffix == ".safetensors":
        return read_safetensors
    if start[:1] == b"\x80":  # the first instruction of a pickle
        return read_torch
    fail(
        "checkpoint",
        f"{path}: this is not a file of weights that can be read",
        expected=_KNOWN,
        found=f"a file that begins with {start[:16]!r}",
        help="if it is damaged or cut short, fetch it again and compare the sizes",
    )
