"""Finds files and folders inside installed Python packages: `package:NAME/inner/file`.

Some packages contain trained weights. The package is located, never imported.
"""

from __future__ import annotations

import errno
import os
from importlib.util import find_spec
from pathlib import Path

from archdsl.diagnostics import did_you_mean, fail, listing

_PREFIX = "package:"


def resolve(path: str) -> Path:
    """The file or folder of a path; an ordinary path is returned unchanged.

    Raises ArchError (`file`) if `package:NAME/inner/file` names a package that is not installed
    or a file that it does not have, and for a path or a folder that this user may not read.

    >>> resolve("weights.npz").name
    'weights.npz'
    >>> resolve("package:numpy/version.py").is_file()
    True
    """
    if not path.startswith(_PREFIX):
        _check_access(path)
        return Path(path)
    name, _, inner = path.removeprefix(_PREFIX).partition("/")
    if not name.isidentifier() or not inner:
        fail(
            "file",
            f"{path}: not a valid name of a file in a package",
            expected=_PREFIX + "NAME/inner/file",
        )
    folders = _folders(name)
    if ".." not in inner.split("/"):
        for folder in folders:
            file = folder / inner.lstrip("/")
            if file.exists():
                return file
    inside = sorted(_entries(folders))
    guess = did_you_mean(inner, inside) or f"the package has {listing(inside[:12], 'and')}"
    fail("file", f"{path}: the package `{name}` has no file `{inner}`", help=guess)


def _check_access(path: str) -> None:
    """Raises ArchError if this user may not look for a path, or for files in a folder.

    Files there would seem to be missing, and many are optional.
    """
    try:
        os.stat(path)
        denied = os.path.isdir(path) and not os.access(path, os.R_OK | os.X_OK)
    except PermissionError:
        denied = True
    except (OSError, ValueError):  # the reader of the path reports them
        return
    if denied:
        fail(
            "file",
            f"{path}: cannot read: {os.strerror(errno.EACCES)}",
            help="`ls -ld` of each folder in the path shows who may read it",
        )


def _folders(name: str) -> list[Path]:
    """The folders of an installed package; a namespace package can have several."""
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        help = f"pip install {name}"
        fail("file", f"the package `{name}` is not installed", help=help)
    folders = [Path(place) for place in spec.submodule_search_locations or ()]
    if not any(folder.is_dir() for folder in folders):
        fail("file", f"`{name}` is a single module, not a package with files")
    return folders


def _entries(folders: list[Path]) -> set[str]:
    return {
        entry.relative_to(folder).as_posix()
        for folder in folders
        for entry in folder.rglob("*")
        if entry.suffix != ".pyc" and entry.name != "__pycache__"
    }
