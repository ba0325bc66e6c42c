"""Runs in Pyodide when the page is built: compiles the modules that the page needs.

They are those that `browser.py` loads, and what these import anywhere, also inside functions.
Of the standard library, only what is then loaded is kept.
"""

from __future__ import annotations

import ast
import importlib
import marshal
import sys
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

_UNCHECKED = b"\x01\0\0\0" + bytes(
    8
)  # the flags of a .pyc that is never compared with a source
_ALWAYS = ("traceback", "encodings.idna", "encodings.latin_1")  # of messages about our mistakes


def bake(code: str, library: str) -> None:
    """Writes the compiled modules to two zips: ours with Lark, and the standard library."""
    importlib.import_module("archdsl.play.browser")
    for name in _ALWAYS:
        importlib.import_module(name)
    _import_all()
    stored = next(each for each in sys.path if each.endswith(".zip"))
    loaded = (getattr(module, "__file__", None) for module in sys.modules.values())
    files = {Path(file) for file in loaded if file}
    with ZipFile(library, "w", ZIP_DEFLATED, compresslevel=9) as out, ZipFile(stored) as given:
        for path in sorted(files):
            if path.is_relative_to(stored):
                name = str(path.relative_to(stored))
                _write(out, name, given.read(name), strip=True)
    with ZipFile(code, "w", ZIP_DEFLATED, compresslevel=9) as out:
        for path in sorted(files):
            if path.parts[1] in ("archdsl", "lark") and path != Path(__file__):
                _write(out, str(path.relative_to("/")), path.read_bytes())
        for pattern in ("archdsl/**/*.lark", "lark/grammars/*.lark", "specs/*.arch"):
            for path in sorted(Path("/").glob(pattern)):
                out.write(path, str(path.relative_to("/")))


def _import_all() -> None:
    """Imports what our modules import inside functions, as far as it is installed."""
    seen: set[str] = set()
    while names := {n for n in sys.modules if n.split(".")[0] in ("archdsl", "lark")} - seen:
        for name in names:
            file = getattr(sys.modules[name], "__file__", None)
            for each in _imports(Path(file).read_text("utf-8")) if file else ():
                try:
                    importlib.import_module(each)
                except ImportError:  # an extra, or a name that is no module
                    continue
        seen |= names


def _imports(text: str) -> set[str]:
    """The modules that a source imports, but for those that only type checkers see."""
    found: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(text)]
    while nodes:
        node = nodes.pop()
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                continue
            case ast.Import():
                found |= {each.name for each in node.names}
            case ast.ImportFrom(module=str(module), level=0):
                found |= {module, *(f"{module}.{each.name}" for each in node.names)}
        nodes += ast.iter_child_nodes(node)
    return found


def _write(out: ZipFile, name: str, source: bytes, strip: bool = False) -> None:
    """Adds a module without its source; with `strip`, also without its documentation."""
    code = compile(source, name, "exec", dont_inherit=True, optimize=2 if strip else 0)
    out.writestr(f"{name}c", MAGIC_NUMBER + _UNCHECKED + marshal.dumps(code))
