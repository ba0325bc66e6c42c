"""Loads spec files: `use`, the standard library, and the blocks of each file."""

from __future__ import annotations

import errno
import functools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from archdsl.diagnostics import ArchError, Note, Source, did_you_mean, fail
from archdsl.files import read_bytes
from archdsl.frozen import Frozen
from archdsl.graph.ops import CALLED
from archdsl.semantics.report import Report
from archdsl.syntax import ast
from archdsl.syntax.stored import tree_of

_MOST_FILES = 1000
_LONGEST = 1 << 24  # bytes of a spec: a hundred times more than any has


@dataclass
class Scope:
    """The blocks of a file by name, its own and those of the files that it uses.

    `lines` are the items `weights "title" { … }` by title, in the same way.
    `unclear` are names of blocks that are defined twice or in a file with a mistake, and
    `incomplete`: a used file is missing. Both are reported, and calls of such blocks are not.
    `uses` are the scopes of the files that it names.
    """

    file: ast.File
    path: Path | None
    blocks: dict[str, Definition] = field(default_factory=dict)
    lines: dict[str, ast.SharedLines] = field(default_factory=dict)
    unclear: set[str] = field(default_factory=set)
    incomplete: bool = False
    uses: list[tuple[ast.Use, Scope]] = field(default_factory=list)

    def is_unclear(self, name: str) -> bool:
        """Whether a reported mistake decides which block a name means."""
        missing = name not in self.blocks and name not in CALLED
        return name in self.unclear or (self.incomplete and missing)


def all_used(scope: Scope) -> list[Scope]:
    """A scope and those of all files that it uses, directly or through others."""
    found = [scope]
    for each in found:
        found += [used for _, used in each.uses if all(used is not other for other in found)]
    return found


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


def library_specs() -> list[Path]:
    """The specs of the standard library, by name."""
    return sorted(standard_library().glob("*.arch"))


def first_comment(text: str) -> list[str]:
    """The lines of the comment at the start of a spec, without their `#`.

    >>> first_comment("# GPT: a stack\\n#\\n# of blocks.\\nuse …")
    ['GPT: a stack', '', 'of blocks.']
    """
    lines = takewhile(lambda line: line.startswith("#"), text.splitlines())
    return [line.removeprefix("#").strip() for line in lines]


def find(path: str, beside: Path | None = None) -> Path | None:
    """A spec file: relative to the folder `beside`, or in the standard library."""
    places = [beside / path if beside else Path(path), standard_library() / path]
    # Path.is_file raises for a text that cannot be a path.
    return next((p for p in places if os.path.isfile(p)), None)


def read(path: str) -> Source:
    """The text of a spec file; raises `ArchError` if there is no such file."""
    found = find(path)
    if found is None:
        if _is_denied(path):
            fail("file", f"`{path}` cannot be read: {os.strerror(errno.EACCES)}")
        known = [each.name for each in library_specs()]
        known += sorted(p.name for p in Path(path).parent.glob("*.arch"))
        help = did_you_mean(Path(path).name, known)
        if os.path.isdir(path):
            help = "this is a folder: give a file in it"
        elif os.path.exists(path):
            fail("file", f"`{path}` cannot be read: it is not a regular file")
        fail("file", f"there is no file `{path}`", help=help)
    return Source(str(found) if not os.path.isfile(path) else path, read_text_file(found))


def _is_denied(path: str) -> bool:
    """Whether this user may not search the folder of a path."""
    try:
        os.stat(path)
    except (OSError, ValueError) as error:
        return isinstance(error, PermissionError)
    return False


def read_text_file(path: Path) -> str:
    """The text of a file with its line endings; raises `ArchError` if it cannot be read."""
    try:
        return read_bytes(path, _LONGEST).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        fail("file", f"`{path}` cannot be read: {reason}", cause=error)


@functools.lru_cache(maxsize=1024)  # more than the library has: a scan of it would drop each
def tree(source: Source) -> ast.File:
    """The tree of a source; parsed once per run."""
    return tree_of(source)


def load(file: ast.File, path: Path | None, report: Report) -> Scope:
    """The scope of a file; also loads the files that it uses.

    These are in the folder of the spec (for a text, the current folder) or below it, or in the
    standard library. A file elsewhere is not read: a message about it would show its text.
    """
    return _Loader(path, report).load(file, path)


class _Open(NamedTuple):
    """A file whose `use`s are being loaded."""

    scope: Scope
    place: Path | None  # resolved
    uses: Iterator[ast.Use]


class _Loader:
    """Loads files with an explicit stack, so that a long chain of `use`s is not too deep."""

    def __init__(self, path: Path | None, report: Report):
        self.report = report
        folder = path.parent if path else Path()
        self.folders = (folder.resolve(), standard_library().resolve())
        self.loaded: dict[Path, Scope] = {}
        self.open: list[_Open] = []
        self.through: list[ast.Use] = []  # the `use`s of the open files that are being loaded

    def load(self, file: ast.File, path: Path | None) -> Scope:
        root = self.enter(file, path)
        while self.open:
            current = self.open[-1]
            use = next(current.uses, None)
            if use is not None:
                self.through.append(use)
                used = self.used(use, current.scope)
                if used is not None:
                    self.leave(used)
                continue
            for block in current.scope.file.items:
                if isinstance(block, ast.Block):
                    self.define_own(current.scope, block)
                elif isinstance(block, ast.SharedLines):
                    self.define_lines(current.scope, block)
            self.open.pop()
            if self.open:
                self.leave(current.scope)
        return root

    def enter(self, file: ast.File, path: Path | None) -> Scope:
        scope, place = Scope(file, path), path.resolve() if path else None
        if place:
            self.loaded[place] = scope
        uses = (item for item in file.items if isinstance(item, ast.Use))
        self.open.append(_Open(scope, place, uses))
        return scope

    def leave(self, used: Scope) -> None:
        """Adds the blocks of a used file to the file that uses it."""
        scope = self.open[-1].scope
        scope.uses.append((self.through.pop(), used))
        scope.incomplete |= used.incomplete
        scope.unclear |= used.unclear
        for name, definition in used.blocks.items():
            self.define(scope, name, definition)
        for lines in used.lines.values():
            self.define_lines(scope, lines)

    def define_lines(self, scope: Scope, lines: ast.SharedLines) -> None:
        before = scope.lines.setdefault(lines.title.value, lines)
        if before is not lines:
            self.report.add(
                "duplicate-name",
                f'there are two items `weights "{lines.title.value}"` without a model',
                lines.title.span,
                notes=(Note("the other one is here", before.title.span),),
            )

    def define_own(self, scope: Scope, block: ast.Block) -> None:
        if block.name.id in CALLED:
            self.report.add(
                "duplicate-name",
                f"`{block.name.id}` is the name of an operator",
                block.name.span,
                help="choose another name for the block",
            )
            scope.unclear.add(block.name.id)
        self.define(scope, block.name.id, Definition(block, scope))

    def define(self, scope: Scope, name: str, definition: Definition) -> None:
        before = scope.blocks.get(name)
        if before and before.block is not definition.block:
            self.report.add(
                "duplicate-name",
                f"there are two blocks `{name}`",
                definition.block.name.span,
                notes=(Note("the other one is here", before.block.name.span),),
            )
            scope.unclear.add(name)
        scope.blocks[name] = definition

    def used(self, use: ast.Use, scope: Scope) -> Scope | None:
        """The scope of a used file, or None if its own `use`s come first; reports mistakes."""
        beside = scope.path.parent if scope.path else None
        found = find(use.path.value, beside)
        place = found.resolve() if found else None
        if found is None or place is None:
            self.report_missing(use, beside)
            return Scope(scope.file, None, incomplete=True)
        if not any(place.is_relative_to(folder) for folder in self.folders):
            self.report.add(
                "file",
                f"`{use.path.value}` is outside of the folder of the spec",
                use.path.span,
                expected="a file in the folder of the spec or below, or in the library",
                help="copy the file there",
            )
            return Scope(scope.file, None, incomplete=True)
        around = [each.place for each in self.open]
        if place in around:
            self.report.add(
                "cycle",
                f"this file and `{use.path.value}` use each other",
                use.path.span,
                notes=tuple(
                    Note("through this file", each.path.span) for each in self.through[:-1]
                ),
            )
            return _unread_scope(scope.file, found)
        if place in self.loaded:
            return self.loaded[place]
        if len(self.loaded) >= _MOST_FILES:
            what = f"the spec uses more than {_MOST_FILES} files"
            self.report.add("file", what, use.path.span, help="join some of them")
            return Scope(scope.file, None, incomplete=True)
        try:
            source = read(str(found))
            self.enter(tree(source), found)
        except ArchError as error:
            self.report.extend(error.diagnostics)
            return _unread_scope(scope.file, found)
        return None

    def report_missing(self, use: ast.Use, beside: Path | None) -> None:
        near = Path(use.path.value).parent
        folders = [] if near.is_absolute() or ".." in near.parts else [beside, self.folders[1]]
        files = (p for folder in folders if folder for p in (folder / near).glob("*.arch"))
        known = {(near / p.name).as_posix() for p in files}
        self.report.add(
            "file",
            f"there is no file `{use.path.value}`",
            use.path.span,
            expected="a file next to this one, or in the standard library",
            help=did_you_mean(use.path.value, known),
        )


def _unread_scope(file: ast.File, path: Path) -> Scope:
    """The scope of a file that cannot be loaded: the names of its blocks are known."""
    try:
        names = re.findall(r"\bblock\s+(\w+)", read_text_file(path))
    except ArchError:
        return Scope(file, path, incomplete=True)
    return Scope(file, path, unclear=set(names))
