"""Files and what they bring in: `use`, the standard library, and the blocks in sight."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, field
from pathlib import Path

from archdsl.diagnostics import ArchError, Note, Source, Span, did_you_mean, fail
from archdsl.frozen import Frozen
from archdsl.graph.ops import OPS
from archdsl.semantics.report import Report
from archdsl.syntax import ast
from archdsl.syntax.stored import tree_of


@dataclass
class Scope:
    """A file's blocks by name, its own and those it uses."""

    file: ast.File
    path: Path | None
    blocks: dict[str, Definition] = field(default_factory=dict)


class Definition(Frozen):
    """A block and the file whose names its body sees."""

    block: ast.Block
    scope: Scope


@functools.cache
def standard_library() -> Path:
    """The folder of specs that comes with archdsl: in the package, or beside a checkout's."""
    package = Path(__file__).parents[1]
    inside = package / "specs"
    return inside if inside.is_dir() else package.parent / "specs"


def find(path: str, beside: Path | None = None) -> Path | None:
    """A spec file: as named, relative to another file's folder, or of the standard library."""
    places = [beside / path if beside else Path(path), standard_library() / path]
    # Unlike Path.is_file this answers also for what can be no path.
    return next((p for p in places if os.path.isfile(p)), None)


def read(path: str) -> Source:
    """The text of a spec file; raises `ArchError` where there is none."""
    found = find(path)
    if found is None:
        known = sorted(p.name for p in standard_library().glob("*.arch"))
        known += sorted(p.name for p in Path(path).parent.glob("*.arch"))
        help = did_you_mean(Path(path).name, known)
        if Path(path).is_dir():
            help = "this is a folder; name a file in it"
        fail("file", f"there is no file `{path}`", help=help)
    return Source(str(found) if not Path(path).is_file() else path, text_of(found))


def text_of(path: Path) -> str:
    """A file's text as it stands, its ends of lines too; raises `ArchError` for none."""
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        fail("file", f"`{path}` cannot be read: {reason}", cause=error)


@functools.lru_cache(maxsize=64)
def tree(source: Source) -> ast.File:
    """The tree of a source, read once however often a run asks for it."""
    return tree_of(source)


def load(file: ast.File, path: Path | None, report: Report) -> Scope:
    """The scope of a file, all that it uses read as well."""
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
            used = _used(use, scope, report, loaded, around)
            for name, definition in used.blocks.items() if used else ():
                _define(scope, name, definition, report)
    for block in file.items:
        if isinstance(block, ast.Block):
            if block.name.id in OPS:
                report.add(
                    "duplicate-name",
                    f"`{block.name.id}` is an operator already",
                    block.name.span,
                    help="give the block another name",
                )
            _define(scope, block.name.id, Definition(block, scope), report)
    return scope


def _define(scope: Scope, name: str, definition: Definition, report: Report) -> None:
    before = scope.blocks.get(name)
    if before and before.block is not definition.block:
        report.add(
            "duplicate-name",
            f"there are two blocks `{name}`",
            definition.block.name.span,
            notes=(Note("the other is here", before.block.name.span),),
        )
    scope.blocks[name] = definition


def _used(
    use: ast.Use,
    scope: Scope,
    report: Report,
    loaded: dict[Path, Scope],
    around: tuple[tuple[Path, Span], ...],
) -> Scope | None:
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
            expected="a file beside this one, or of the standard library",
            help=did_you_mean(use.path.value, known),
        )
        return None
    place = found.resolve()
    here = scope.path.resolve() if scope.path else None
    chain = (*around, (here, use.path.span)) if here else around
    if place in [p for p, _ in chain]:
        report.add(
            "cycle",
            f"`{use.path.value}` uses this file, and this file uses it",
            use.path.span,
            notes=tuple(Note("by way of", span) for _, span in chain[:-1]),
        )
        return None
    if place in loaded:
        return loaded[place]
    try:
        source = read(str(found))
        return _load(tree(source), found, report, loaded, chain)
    except ArchError as error:
        report.take(error.diagnostics)
        return None
