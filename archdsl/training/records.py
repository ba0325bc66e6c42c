"""Examples as records, from field to value: JSON lines, TSV, and saved `datasets` folders."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from archdsl.diagnostics import fail, listing
from archdsl.formats.strict_json import parse_object, read_object
from archdsl.frozen import Frozen
from archdsl.training import files

LINES, TABLES = (".jsonl", ".ndjson"), (".tsv",)
_SAVED, _SPLITS = "dataset_info.json", "dataset_dict.json"


class Record(Frozen):
    """The values of an example by field, and its place for messages: a file and a line."""

    place: str
    values: dict[str, Any]


def read_records(paths: Iterable[Path], names: Sequence[str]) -> Iterator[Record]:
    """The records of files and `datasets` folders, in their order.

    A line of a TSV has a cell for each of `names`, in their order; if the first line has these
    names, the cells have the order of that line, and others are ignored.
    """
    for path in paths:
        if path.is_dir():
            yield from _saved(path)
        elif path.name.lower().endswith(TABLES):
            yield from _table(path, names)
        else:
            yield from _json_lines(path)


def find_records(path: str | Path) -> files.Files:
    """The files of records below a folder, or the parts of a saved `datasets` folder; empty if
    there are none."""
    place = files.existing(path)
    if (place / _SPLITS).is_file():
        parts = sorted(each.parent for each in place.glob(f"*/{_SAVED}"))
        return files.sorted_out(path, [(part, [part.name]) for part in parts])
    if (place / _SAVED).is_file():
        return files.Files((place,))
    if place.is_file() and not place.name.lower().endswith((*LINES, *TABLES)):
        return files.Files(())
    return files.find(path, (*LINES, *TABLES))


def identity(paths: Sequence[Path]) -> str:
    """A text that changes if a file is replaced."""
    inner = (sorted(p.rglob("*.arrow")) if p.is_dir() else [p] for p in paths)
    return files.identity([each for part in inner for each in part])


def _json_lines(path: Path) -> Iterator[Record]:
    for number, line in files.lines(path):
        place = f"{path}:{number}"
        try:
            values = parse_object(line.encode())
        except (ValueError, RecursionError) as error:
            fail(
                "input",
                f"{place}: the line is not an object in JSON",
                expected='a line such as {"text": "…"}',
                found=str(error),
                cause=error,
            )
        yield Record(place, values)


def _table(path: Path, names: Sequence[str]) -> Iterator[Record]:
    header: list[str] | None = None
    for number, line in files.lines(path):
        cells = line.split("\t")
        if header is None:
            named = set(names) <= {*cells}
            header = cells if named else list(names)
            if named:
                continue
        if len(cells) != len(header):
            fail(
                "input",
                f"{path}:{number}: the line has {len(cells)} cells",
                expected=f"{len(header)}, separated by tabs: {listing(header, 'and')}",
                found=repr(line)[:80],
            )
        yield Record(f"{path}:{number}", dict(zip(header, cells, strict=True)))


def _saved(path: Path) -> Iterator[Record]:
    """The rows of a folder that `datasets` saved with `save_to_disk`: Arrow streams, which
    `state.json` lists."""
    try:
        arrow = importlib.import_module("pyarrow")
        library = importlib.import_module("pyarrow.ipc")
    except ImportError as error:
        fail(
            "file",
            f"`{path}` needs the package `pyarrow`, which is not installed",
            help="pip install 'archdsl[datasets]'",
            cause=error,
        )
    state = read_object(path / "state.json", "the state of a saved dataset")
    names = [each.get("filename") for each in state.get("_data_files") or []]
    if not names or not all(isinstance(name, str) for name in names):
        fail("file", f"`{path}` is not a saved dataset: its `state.json` lists no files")
    number = 0
    for each in (path / Path(name).name for name in names):
        try:
            with arrow.memory_map(str(each)) as file:
                for part in library.open_stream(file):
                    for values in part.to_pylist():
                        yield Record(f"{path}: row {number}", values)
                        number += 1
        except (OSError, arrow.ArrowException) as error:
            reason = str(error)[:200]
            fail("file", f"cannot read `{each}`", found=reason, cause=error)
