"""A disk cache of syntax trees: an unchanged file is not parsed again.

Importing Lark takes longer than checking a file; a cached tree does not need it.
`ARCHDSL_TREES=0` turns the cache off.
"""

from __future__ import annotations

import functools
import os
import pickle
import sys
from pathlib import Path

from archdsl.cache import Store, digest, key_of
from archdsl.diagnostics import Source
from archdsl.syntax import ast

STORE = Store("trees", 2**25)
# The sources that a tree depends on, besides its text.
_SOURCES = ("frozen", "diagnostics", "syntax")


def tree_of(source: Source) -> ast.File:
    """Returns the tree of a source; raises `ArchError` like `parse`."""
    if os.environ.get("ARCHDSL_TREES") == "0":
        return _parse(source)
    key = key_of(_version(), source.path, source.text)
    content = STORE.read(key)
    if content is not None:
        stored: ast.File = pickle.loads(content)
        return stored
    file = _parse(source)
    STORE.write(key, [pickle.dumps(file, protocol=pickle.HIGHEST_PROTOCOL)])
    return file


def _parse(source: Source) -> ast.File:
    from archdsl.syntax.parser import parse  # imports Lark

    return parse(source.text, source.path)


@functools.cache
def _version() -> str:
    """Computes a checksum of the sources and the Python version."""
    root = Path(__file__).parents[1]
    paths = [path for name in _SOURCES for path in _files(root / name)]
    return digest([sys.version.encode(), *(path.read_bytes() for path in paths)]).hex()


def _files(path: Path) -> list[Path]:
    """The files of a module or a folder, which may be compiled without their sources."""
    suffixes = (".py", ".pyc", ".lark")
    files = path.iterdir() if path.is_dir() else path.parent.glob(f"{path.name}.py*")
    return sorted(each for each in files if each.suffix in suffixes)
