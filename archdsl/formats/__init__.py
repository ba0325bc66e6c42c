"""Files of weights: tensors by name, in the formats in which people publish them.

`read_weights` recognises a format by the file's content and hands over to its reader, one
module each: safetensors, npz, torch_pickle (with state_pickle). `atomic` replaces files
whole, `package` finds files inside installed packages, `host` is the border to tinygrad. What
the names mean, and whether a model has all its weights, is left to the runtime.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from archdsl.diagnostics import did_you_mean, listing
from archdsl.formats.host import reading, refusal
from archdsl.formats.npz import read_npz, write_npz
from archdsl.formats.package import resolve
from archdsl.formats.safetensors import read_safetensors, write_safetensors
from archdsl.formats.torch_pickle import read_torch

if TYPE_CHECKING:
    from tinygrad import Tensor

__all__ = ["read_weights", "resolve", "write_npz", "write_safetensors"]

_Reader = Callable[[Path], "dict[str, Tensor]"]

_KNOWN = "weights as .safetensors, .npz, or PyTorch's .pt, .pth or .bin"

_PAGE = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file by name, in the file's order and dtypes (bfloat16 and float16 too).

    `path` is a file's, or `package:NAME/inner/file` for a file in an installed package. The
    tensors lie on tinygrad's NPY device, which computes nothing: `.to(device)` copies one to
    where it is used, and until then it takes no memory of its own where the format allows.

    Raises ArchError: `file` where there is no such file, `checkpoint` where it is not one of
    weights, or a damaged one. No code in a file is ever run.

    >>> import tempfile, numpy
    >>> path = Path(tempfile.mkdtemp()) / "a.safetensors"
    >>> write_safetensors(path, {"w": numpy.eye(2, dtype="float32")})
    >>> read_weights(path)["w"].numpy().tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    file = resolve(str(path))
    start = _start(file)
    _refuse_stand_ins(file, start)
    return _reader(file, start)(file)


def _start(path: Path) -> bytes:
    """The first bytes of a file that exists and is not empty."""
    with reading(path, "a file"):
        if not path.exists():
            beside = path.parent.iterdir() if path.parent.is_dir() else ()
            guess = did_you_mean(path.name, [p.name for p in beside if p.is_file()])
            raise refusal(path, "there is no such file", "file", help=guess)
        if path.is_dir():
            files = sorted(p.name for p in path.iterdir() if p.is_file())[:12]
            found = f"a folder with {listing(files, 'and') or 'no files'}"
            raise refusal(path, "a folder is not a file", "file", None, found, "name one file")
        if not path.is_file():
            raise refusal(path, "this is not a regular file", "file")
        with path.open("rb") as stream:
            start = stream.read(512)
    if not start:
        raise refusal(path, "the file is empty", help="copy or download it again")
    return start


def _refuse_stand_ins(path: Path, start: bytes) -> None:
    """Refuses what a failed download leaves in the place of weights."""
    if start.startswith(b"version https://git-lfs"):
        raise refusal(
            path,
            "this is a pointer of Git LFS, which stands for the weights",
            expected=_KNOWN,
            help="in the repository it came from: git lfs pull",
        )
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGE):
        raise refusal(
            path,
            "this is a web page, not weights",
            expected=_KNOWN,
            found=repr(start[:40]),
            help="the address was that of a page; use the one of the page's download link",
        )


def _reader(path: Path, start: bytes) -> _Reader:
    """The reader of a file's format, which its first bytes tell."""
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        with reading(path, "an archive of weights"), zipfile.ZipFile(path) as archive:
            torch = any(name.endswith("/data.pkl") for name in archive.namelist())
        return read_torch if torch else read_npz
    if start[8:9] == b"{" or path.suffix == ".safetensors":
        return read_safetensors
    if start[:1] == b"\x80":  # the first instruction of a pickle
        return read_torch
    raise refusal(
        path,
        "this is not a file of weights that can be read",
        expected=_KNOWN,
        found=f"a file that begins with {start[:16]!r}",
        help="if it is damaged or cut short, fetch it again and compare the sizes",
    )
