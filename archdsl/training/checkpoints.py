"""Checkpoints of a run: `checkpoints/STEP/`, each with all that the run continues from.

- `model.safetensors`: the weights under the model's own names, or those of its adapter.
- `state.safetensors`: what the optimizer keeps, and float32 copies of half-precision weights.
  If `model.safetensors` has averages, it also has the weights that they are averages of.
- `position.json`: the step, and the hashes of both files.

A checkpoint is written to a temporary folder, and appears by one rename. So a process that is
killed, or a full disk, leaves the earlier checkpoints and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archdsl.diagnostics import ArchError, fail
from archdsl.files import open_file, read_bytes
from archdsl.formats.atomic import flush, replacing
from archdsl.formats.safetensors import read_safetensors, write_safetensors
from archdsl.formats.strict_json import parse_object
from archdsl.frozen import Frozen
from archdsl.training.trained import MODEL

if TYPE_CHECKING:  # imports numpy
    from archdsl.formats.host import LazyTensor, Value

STATE, POSITION = "state.safetensors", "position.json"
_PARTIAL = ".partial"
_RAW = "weight "  # before the path of a weight
_PART = 1 << 20  # bytes


class Position(Frozen):
    """Where a run is after a step. All else follows from the settings and the step number.

    - `scale` and `since_overflow` belong to the loss scale of float16.
    - `valid` is the validation loss at this step, if it was computed. `best_step` and
      `best_valid` are those of the best evaluation so far.
    - `seconds` is the time of the run so far.
    - `spec` and `data` are the hash of the spec and the fingerprint of the data.
    """

    step: int
    scale: float = 1.0
    since_overflow: int = 0
    valid: float | None = None
    best_step: int | None = None
    best_valid: float | None = None
    seconds: float = 0.0
    spec: str = ""
    data: str = ""


class Checkpoint(Frozen):
    """A complete checkpoint: its folder and its position."""

    folder: Path
    position: Position

    def weights(self) -> dict[str, LazyTensor]:
        return read_safetensors(self.folder / MODEL)

    def state(self) -> dict[str, LazyTensor]:
        """What `TrainStep.state` gave."""
        return {n: each for n, each in self._stored().items() if not n.startswith(_RAW)}

    def raw(self) -> dict[str, LazyTensor]:
        """The weights that are not those of `weights`, which are their averages."""
        found = self._stored().items()
        return {n.removeprefix(_RAW): each for n, each in found if n.startswith(_RAW)}

    def _stored(self) -> dict[str, LazyTensor]:
        return read_safetensors(self.folder / STATE)


def write(
    folder: Path,
    position: Position,
    weights: Mapping[str, Value],
    state: Mapping[str, Value],
    raw: Mapping[str, Value],
) -> Checkpoint:
    """Writes the checkpoint `folder`/STEP, and waits until it is on the disk.

    `raw` are the weights whose averages are in `weights`.

    An existing one of the same step is replaced: it was damaged. Raises `ArchError` (`file`) if
    the disk is full or cannot be written; then no part is left.
    """
    target = folder / str(position.step)
    with cleaning(target):
        folder.mkdir(exist_ok=True)
        temporary = _partial(folder)
        temporary.mkdir()
        try:
            write_safetensors(temporary / MODEL, weights)
            more = {_RAW + path: each for path, each in raw.items()}
            write_safetensors(temporary / STATE, {**state, **more})
            hashes = {name: _hash(temporary / name) for name in (MODEL, STATE)}
            entries = {**asdict(position), "sha256": hashes}
            with replacing(temporary / POSITION) as path:
                path.write_text(json.dumps(entries, indent=2) + "\n")
            _delete(target)
            os.replace(temporary, target)
            flush(folder)
        except ArchError as error:
            raise _renamed(error, temporary, target) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return Checkpoint(target, position)


def read(folder: Path) -> Checkpoint:
    """The checkpoint of a folder. Raises `ArchError` (`checkpoint` or `file`) if it is damaged
    or incomplete."""
    path = folder / POSITION
    try:
        entries = parse_object(read_bytes(path))
        hashes = entries.pop("sha256")
        position = _position(entries)
        found = {name: _hash(folder / name) for name in (MODEL, STATE)}
    except OSError as error:
        name = Path(error.filename or path).name
        fail(
            "checkpoint",
            f"{folder}: the checkpoint is incomplete",
            expected=f"the files {MODEL}, {STATE} and {POSITION}",
            found=f"{name}: {error.strerror or error}",
            cause=error,
        )
    except (ValueError, LookupError, TypeError) as error:
        fail(
            "checkpoint",
            f"{path}: not the position of a run",
            found=str(error) or repr(error),
            help="the file is damaged; an earlier checkpoint may be whole",
            cause=error,
        )
    for name, hash in found.items():
        if not isinstance(hashes, dict) or hashes.get(name) != hash:
            fail(
                "checkpoint",
                f"{folder / name}: the file has changed since it was written",
                expected=f"the SHA-256 of {POSITION}",
                found=hash,
                help="the file is damaged; an earlier checkpoint may be whole",
            )
    return Checkpoint(folder, position)


def _position(entries: Mapping[str, Any]) -> Position:
    """Raises ValueError or TypeError for entries that are no position."""
    names = {each.name for each in fields(Position)}
    if entries.keys() != names:
        odd = sorted(names ^ entries.keys())
        raise ValueError(f"the entries differ: {', '.join(odd)}")
    for name, value in entries.items():
        text = name in ("spec", "data")
        right = isinstance(value, str) if text else isinstance(value, int | float | None)
        if not right or isinstance(value, bool):
            raise ValueError(f"`{name}` is {value!r:.40}")
    if type(entries["step"]) is not int or entries["step"] < 0:
        raise ValueError(f"`step` is {entries['step']!r:.40}")
    return Position(**entries)


def steps(folder: Path) -> list[int]:
    """The steps of the checkpoints in a folder, in order; some may be damaged."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(int(each.name) for each in found if each.name.isdecimal())


def newest(folder: Path) -> tuple[Checkpoint | None, list[ArchError]]:
    """The last complete checkpoint of a folder, and the errors of the later ones."""
    errors: list[ArchError] = []
    for step in reversed(steps(folder)):
        try:
            return read(folder / str(step)), errors
        except ArchError as error:
            errors.append(error)
    return None, errors


def prune(folder: Path, now: int, keep: int, best: int | None) -> None:
    """Deletes the checkpoints of earlier steps than `now`, but the last `keep` with `now`, and
    the best. Those of later steps are damaged, and will be replaced."""
    found = [step for step in steps(folder) if step <= now]
    for step in found[:-keep]:
        if step != best:
            with cleaning(folder / str(step)):
                _delete(folder / str(step))


def delete_partial(folder: Path) -> None:
    """Deletes what killed processes left. No other process may be writing."""
    for each in folder.glob(f".*{_PARTIAL}"):
        shutil.rmtree(each, ignore_errors=True)


def _delete(folder: Path) -> None:
    """Deletes a checkpoint; it disappears by one rename."""
    if folder.exists():
        temporary = _partial(folder.parent)
        os.replace(folder, temporary)
        shutil.rmtree(temporary)


def _partial(folder: Path) -> Path:
    return folder / f".{secrets.token_hex(8)}{_PARTIAL}"


def _renamed(error: ArchError, temporary: Path, target: Path) -> ArchError:
    """An error that names the checkpoint, not its temporary folder."""
    names = str(temporary), str(target)
    return ArchError(
        [replace(each, message=each.message.replace(*names)) for each in error.diagnostics]
    )


def _hash(path: Path) -> str:
    found = hashlib.sha256()
    with open_file(path) as stream:
        while part := stream.read(_PART):
            found.update(part)
    return found.hexdigest()


@contextmanager
def cleaning(path: Path) -> Iterator[None]:
    """Turns an OSError into an ArchError (`file`): `path` cannot be written."""
    try:
        yield
    except OSError as error:
        fail(
            "file",
            f"{path}: cannot write: {error.strerror or error}",
            help="free space on this disk, and resume the run",
            cause=error,
        )
