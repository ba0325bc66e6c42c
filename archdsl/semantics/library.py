"""Loads spec files: `use`, the standard library, and the blocks of each file."""

from __future__ import annotations

import functools
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from archdsl.diagnostics import ArchError, Note, Source, Span, did_you_mean, fail
from archdsl.files import read_bytes
from archdsl.frozen import Frozen
from archdsl.graph.ops import OPS
from archdsl.semantics.report import Report
from archdsl.syntax import ast
from archdsl.syntax.stored import tree_of

_LONGEST = 1 << 24  # bytes of a spec: a hundred times more than any has


@dataclass
class Scope:
    """The blocks of a file by name, its own and those of the files that it uses.

    `unclear` are names of blocks that are defined twice or in a file with a mistake, and
    `incomplete`: a used file is missing. Both are reported, and calls of such blocks are not.
    """

    file: ast.File
    path: Path | None
    blocks: dict[str, Definition] = field(default_factory=dict)
    unclear: set[str] = field(default_factory=set)
    incomplete: bool = False

    def is_unclear(self, name: str) -> bool:
        """Whether a reported mistake decides which block a name means."""
        missing = name not in self.blocks and name not in OPS
        return name in self.unclear or (self.incomplete and missing)


class Definition(Frozen):
    """A block, and the file whose blocks its body can call."""

    block: ast.Block
    scope: Scope


@functools.cache
def standard_library() -> Path:
    """The folder of specs: inside the package, or next to it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "specs"
    return inside if inside.is_dir() else package.parent / "specs"


def find(path: str, beside: Path | None = None) -> Path | None:
    """A spec file: relative to the folder `beside`, or in the standard library."""
    places = [beside / path if beside else Path(path), standard_library() / path]
    # Path.is_file raises for a text that cannot be a path.
    return next((p for p in places if os.path.isfile(p)), None)


def read(path: str) -> Source:
    """The text of a spec file; raises `ArchError` if there is no such file."""
    found = find(path)
    if found is None:
        known = sorted(p.name for p in standard_library().glob("*.arch"))
        known += sorted(p.name for p in Path(path).parent.glob("*.arch"))
        help = did_you_mean(Path(path).name, known)
        if Path(path).is_dir():
            help = "this is a folder: give a file in it"
        elif os.path.exists(path):
            fail("file", f"`{path}` cannot be read: it is not a regular file")
        fail("file", f"there is no file `{path}`", help=help)
    return Source(str(found) if not Path(path).is_file() else path, read_text_file(found))


def read_text_file(path: Path) -> str:
    """The text of a file with its line endings; raises `ArchError` if it cannot be read."""
    try:
        return read_bytes(path, _LONGEST).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        fail("file", f"`{path}` cannot be read: {reason}", cause=error)


@functools.lru_cache(maxsize=64)
def tree(source: Source) -> ast.File:
    """The tree of a source; parsed once per run."""
    return tree_of(source)


def load(file: ast.File, path: Path | None, report: Report) -> Scope:
    """The scope of a file; also loads the files that it uses."""
    return _load(file, path, report, {}, ())


def _load(
    file: ast.File,
    path: Path | None,
    report: Report,
    loaded: dict[Path, Scope],
    around: tuple[tuple[Path, Span], ...],
) -> Scope:
    scope = Scope(file, path)
    if path:
        loaded[path.resolve()] = scope
    for use in file.items:
        if isinstance(use, ast.Use):
            used = _load_used(use, scope, report, loaded, around)
            scope.incomplete |= used.incomplete
            scope.unclear |= used.unclear
            for name, definition in used.blocks.items():
                _define(scope, name, definition, report)
    for block in file.items:
        if isinstance(block, ast.Block):
            if block.name.id in OPS:
                report.add(
                    "duplicate-name",
                    f"`{block.name.id}` is the name of an operator",
                    block.name.span,
                    help="choose another name for the block",
                )
                scope.unclear.add(block.name.id)
            _define(scope, block.name.id, Definition(block, scope), report)
    return scope


def _define(scope: Scope, name: str, definition: Definition, report: Report) -> None:
    before = scope.blocks.get(name)
    if before and before.block is not definition.block:
        report.add(
            "duplicate-name",
            f"there are two blocks `{name}`",
            definition.block.name.span,
            notes=(Note("the other one is here", before.block.name.span),),
        )
        scope.unclear.add(name)
    scope.blocks[name] = definition


def _load_used(
    use: ast.Use,
    scope: Scope,
    report: Report,
    loaded: dict[Path, Scope],
    around: tuple[tuple[Path, Span], ...],
) -> Scope:
    """The scope of a used file; reports if it cannot be loaded."""
    beside = scope.path.parent if scope.path else None
    found = find(use.path.value, beside)
    if found is None:
        folders = [p for p in (beside, standard_library()) if p]
        near = Path(use.path.value).parent
        files = (p for folder in folders for p in (folder / near).glob("*.arch"))
        known = {(near / p.name).as_posix() for p in files}
        report.add(
            "file",
            f"there is no file `{use.path.value}`",
            use.path.span,
            expected="a file next to this one, or in the standard library",
            help=did_you_mean(use.path.value, known),
        )
        return Scope(scope.file, None, incomplete=True)
    place = found.resolve()
    here = scope.path.resolve() if scope.path else None
    chain = (*around, (here, use.path.span)) if here else around
    if place in [p for p, _ in chain]:
        report.add(
            "cycle",
            f"this file and `{use.path.value}` use each other",
            use.path.span,
            notes=tuple(Note("through this file", span) for _, span in chain[:-1]),
        )
        return _unread_scope(scope.file, found)
    if place in loaded:
        return loaded[place]
    try:
        source = read(str(found))
        return _load(tree(source), found, report, loaded, chain)
    except ArchError as error:
        report.extend(error.diagnostics)
        return _unread_scope(scope.file, found)


def _unread_scope(file: ast.File, path: Path) -> Scope:
    """The scope of a file that cannot be loaded: the names of its blocks are known."""
    try:
        names = re.findall(r"\bblock\s+(\w+)", read_text_file(path))
    except ArchError:
        return Scope(file, path, incomplete=True)
    return Scope(file, path, unclear=set(names))
