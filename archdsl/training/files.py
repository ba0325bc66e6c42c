"""The files of a data set: which there are, and which are for training and for validation."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from archdsl.cache import digest
from archdsl.diagnostics import fail, listing
from archdsl.files import open_file
from archdsl.formats import resolve
from archdsl.frozen import Frozen

# The names of validation files; those of the second kind if there are none of the first.
_HELD_OUT = tuple(
    re.compile(rf"({names})([-_. 0-9].*)?", re.IGNORECASE)
    for names in ("valid|validation|val|dev", "test|eval")
)
_CHARACTERS = 1 << 20  # that are tokenized at once
_LONGEST_LINE = 1 << 24


class Files(Frozen):
    """The files of a data set, each list sorted by path.

    Without files for validation, a part of the others is for validation. `unused` are test
    files beside files for validation.
    """

    train: tuple[Path, ...]
    valid: tuple[Path, ...] = ()
    unused: tuple[Path, ...] = ()

    @property
    def all(self) -> tuple[Path, ...]:
        return (*self.train, *self.valid)


def find(path: str | Path, suffixes: Iterable[str]) -> Files:
    """The files below a folder with one of these suffixes, or the file itself.

    Files that are named `valid…`, `val…` or `dev…`, or that are in a folder of such a name, are
    for validation; if there are none, those named `test…` or `eval…`. Hidden files are ignored.
    """
    place, known = existing(path), tuple(suffixes)
    if place.is_file():
        return Files((place,))
    found = []
    for each in sorted(place.rglob("*")):
        parts = each.relative_to(place).parts
        hidden = any(part.startswith(".") for part in parts)
        if each.name.lower().endswith(known) and not hidden and each.is_file():
            found.append((each, parts))
    return sorted_out(path, found)


def sorted_out(path: str | Path, found: Iterable[tuple[Path, Iterable[str]]]) -> Files:
    """The files by what they are for; each has the names that say it."""
    kinds: dict[int | None, list[Path]] = {None: [], 0: [], 1: []}
    for each, names in found:
        kinds[held_out(names)].append(each)
    train, valid, test = (tuple(kinds[kind]) for kind in (None, 0, 1))
    if (valid or test) and not train:
        fail(
            "file",
            f"all files of `{path}` are for validation, because of their names",
            found=listing([each.name for each in (*valid, *test)[:5]], "and"),
            help="name the files for training `train…`, or give one file",
        )
    return Files(train, valid, test) if valid else Files(train, test)


def held_out(names: Iterable[str]) -> int | None:
    """0 if a file or folder of one of these names is for validation, 1 for a test, else None.

    >>> [held_out([name]) for name in ("valid.txt", "test_1.jsonl", "testament.txt")]
    [0, 1, None]
    """
    found = (
        kind for name in names for kind, each in enumerate(_HELD_OUT) if each.fullmatch(name)
    )
    return next(found, None)


def existing(path: str | Path) -> Path:
    """The place of data, which may be in a package; `ArchError` (`file`) if there is none."""
    place = resolve(str(path))
    if not place.exists():
        fail("file", f"there are no data at `{path}`", help="--data takes a file or a folder")
    return place


def texts(path: Path) -> Iterator[str]:
    """The text of a UTF-8 file in parts of about a million characters, which end at a line.

    A byte order mark is dropped, and `\\r\\n` becomes `\\n`.
    """
    pending = ""
    with _decoding(path) as file:
        while part := file.read(_CHARACTERS):
            pending += part
            end = _last_line(pending)
            if end:
                yield pending[:end]
                pending = pending[end:]
    if pending:
        yield pending


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file that are not blank, with their numbers, which count from 1."""
    with _decoding(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE), ""), 1):
            if len(line) >= _LONGEST_LINE:
                fail(
                    "limit",
                    f"{path}:{number}: the line is too long",
                    expected=f"at most {_LONGEST_LINE:,} characters",
                )
            if line.strip():
                yield number, line.rstrip("\n")


def identity(paths: Sequence[Path]) -> str:
    """A text that changes if a file is replaced: paths, sizes and times of change."""
    stats = [(str(each.resolve()), each.stat()) for each in paths]
    parts = [repr((name, stat.st_size, stat.st_mtime_ns)) for name, stat in stats]
    return digest(part.encode() for part in parts).hex()


def _last_line(text: str) -> int:
    """Where the last line starts that follows a line break; 0 if the text must not be cut."""
    end = len(text)
    while (end := text.rfind("\n", 0, end)) >= 0:
        # White space after a line break may be one token with it.
        if end + 1 < len(text) and not text[end + 1].isspace():
            return end + 1
    return len(text) if len(text) > _LONGEST_LINE else 0


@contextmanager
def _decoding(path: Path) -> Iterator[TextIO]:
    """Opens a UTF-8 file; errors within the block become `ArchError` (`file`)."""
    try:
        with io.TextIOWrapper(open_file(path), "utf-8-sig") as file:
            yield file
    except UnicodeDecodeError as error:
        fail(
            "file",
            f"`{path}` is not UTF-8 text",
            found=f"{error.reason}: the bytes {error.object[error.start : error.end].hex(' ')}",
            help=f"convert it: iconv -f LATIN1 -t UTF-8 {path.name}",
            cause=error,
        )
    except OSError as error:
        fail("file", f"cannot read `{path}`: {error.strerror or error}", cause=error)
