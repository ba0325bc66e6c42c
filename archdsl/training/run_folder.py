"""The folder of a run.

| file | holds |
| --- | --- |
| `spec.arch` | the model, with all defaults and sizes written out |
| `settings.toml` | the settings |
| `environment.json` | the data, the dtype, and of each start the device, machine, versions |
| `tokenizer…`, `preprocessor_config.json` | how texts become tokens, and images pixels |
| `metrics.jsonl` | the metrics: see `metrics` |
| `checkpoints/STEP/` | see `checkpoints` |
| `adapter/` | at the end, what a run with `lora_rank` trained, in PEFT's format |
| `last`, `best` | links to the last checkpoint, and to the one with the least validation loss |
| `curves.svg`, `samples.txt` | what `metrics.jsonl` has, drawn, and the samples as text |
| `tensorboard/` | the metrics as event files, if they are wanted |

One process at a time uses a folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

from archdsl.diagnostics import ArchError, fail, listing
from archdsl.files import open_file, read_bytes
from archdsl.formats.atomic import replacing
from archdsl.formats.image import PREPROCESSOR
from archdsl.formats.strict_json import read_object
from archdsl.frozen import Frozen
from archdsl.training import checkpoints, metrics
from archdsl.training.checkpoints import Checkpoint, cleaning
from archdsl.training.run_lock import locked
from archdsl.training.settings import Settings, settings_from
from archdsl.training.trained import CHECKPOINTS, SETTINGS, SPEC

ENVIRONMENT = "environment.json"
_FILES = (SPEC, SETTINGS, ENVIRONMENT, CHECKPOINTS, metrics.NAME)  # of each start
_READERS = ("tokenizer", PREPROCESSOR, ".")  # how names of other files of a start begin

CHANGEABLE = (
    *("steps", "eval_every", "save_every", "keep"),
    *("sample_every", "sample_prompt", "tensorboard"),
)
"""The settings that may change when a run is resumed."""


class Identity(Frozen):
    """What a run must have again when it is resumed: the spec as text, settings, data, dtype.

    `data` describes the data for people; `fingerprint` changes when the data change. If the run
    trains an adapter of a published checkpoint, `source` is the path of the checkpoint, which
    may change, and `base` a hash of its weights; else both are empty.
    """

    spec: str
    settings: Settings
    data: str
    fingerprint: str
    dtype: str
    base: str = ""
    source: str = ""

    @property
    def spec_hash(self) -> str:
        return hashlib.sha256(self.spec.encode()).hexdigest()


class RunFolder(Frozen):
    """An open run: its folder, the checkpoint that it starts from, and remarks for people."""

    path: Path
    start: Checkpoint | None
    remarks: tuple[str, ...] = ()

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    def link(self, name: str, step: int) -> None:
        """Lets `last` or `best` point to a checkpoint."""
        temporary = self.path / f".{secrets.token_hex(8)}.partial"
        with cleaning(self.path / name):
            os.symlink(f"{CHECKPOINTS}/{step}", temporary)
            os.replace(temporary, self.path / name)


@contextmanager
def open_run(
    path: Path, identity: Identity, machine: Mapping[str, Any], resume: bool
) -> Iterator[RunFolder]:
    """Creates the folder of a run, or opens it to continue from its last complete checkpoint.

    `machine` describes the machine of this start. Metrics after the checkpoint are dropped,
    because they are computed again. Raises `ArchError`, and changes nothing, if

    - the folder exists, and `resume` is false; it is missing, and `resume` is true; another
      process uses it;
    - the spec, the data, the dtype or a setting is another one;
    - all checkpoints are damaged.
    """
    check_folder(path, resume)
    with cleaning(path):
        path.mkdir(parents=True, exist_ok=True)
    with locked(path):
        # Without a checkpoint nothing is lost when the run begins again.
        if _is_empty(path):
            yield _created(path, identity, machine)
        else:
            yield _continued(path, identity, machine)


def check_folder(path: Path, resume: bool) -> None:
    """Raises `ArchError` (`file`) if no run can begin or continue in a folder."""
    if resume and not path.is_dir():
        fail("file", f"{path}: there is no run to resume", help="start it without `resume`")
    if not resume and path.exists() and not _is_empty(path):
        fail(
            "file",
            f"{path}: the folder exists",
            expected="a new or empty folder",
            help="`resume` continues a run; or choose another folder",
        )
    if resume and not (path / SETTINGS).exists() and not _is_empty(path):
        fail(
            "file",
            f"{path}: the folder has no run",
            expected=listing((SPEC, ENVIRONMENT, SETTINGS), "and"),
            help="choose a new folder",
        )


def _is_empty(path: Path) -> bool:
    """Whether a folder has nothing, or only what a start without a checkpoint leaves."""
    if path.exists() and not path.is_dir():
        return False
    names = [each.name for each in path.iterdir()] if path.exists() else []
    others = [n for n in names if n not in _FILES and not n.startswith(_READERS)]
    return not others and not checkpoints.steps(path / CHECKPOINTS)


def _created(path: Path, identity: Identity, machine: Mapping[str, Any]) -> RunFolder:
    checkpoints.delete_partial(path / CHECKPOINTS)
    metrics.truncate(path / metrics.NAME, -1)
    _write(path / SPEC, identity.spec)
    _write_environment(path, identity, [_start(machine, 0)])
    _write(path / SETTINGS, settings_text(identity.settings))
    return RunFolder(path, None)


def _continued(path: Path, identity: Identity, machine: Mapping[str, Any]) -> RunFolder:
    before = read_environment(path)
    _check_same(path, identity, before)
    folder = path / CHECKPOINTS
    start, errors = checkpoints.newest(folder)
    remarks = [f"{each.diagnostics[0].message}; it is skipped" for each in errors]
    if start is None and errors:
        raise ArchError([each for error in errors for each in error.diagnostics])
    step = start.position.step if start else 0
    starts = before["starts"]
    remarks += _differences(starts[-1], machine)
    checkpoints.delete_partial(folder)
    checkpoints.delete_partial(path)
    metrics.truncate(path / metrics.NAME, step if start else -1)
    _write_environment(path, identity, [*starts, _start(machine, step)])
    _write(path / SETTINGS, settings_text(identity.settings))
    return RunFolder(path, start, tuple(remarks))


_ENTRIES = (
    ("other data", "fingerprint"),
    ("another dtype", "dtype"),
    ("another base model", "base"),
)


def _check_same(path: Path, identity: Identity, before: Mapping[str, Any]) -> None:
    """Raises `ArchError` if a run would continue as another one."""
    spec, settings = read_spec(path), read_settings(path)
    if spec != identity.spec:
        lines = zip_longest(spec.splitlines(), identity.spec.splitlines(), fillvalue="")
        was, now = next(((a, b) for a, b in lines if a != b), ("", ""))
        fail(
            "argument-value",
            f"{path}: the run has another spec",
            expected=was.strip(),
            found=now.strip(),
            help=f"`archdsl diff` compares {path / SPEC} with it; a changed model needs a new "
            "run, which can begin with the weights of this one",
        )
    for name, entry in _ENTRIES:
        if before.get(entry, "") != getattr(identity, entry):
            shown = "data" if entry == "fingerprint" else entry
            fail(
                "argument-value",
                f"{path}: the run has {name}",
                expected=f"{before.get(shown)}",
                found=f"{getattr(identity, shown)}",
                help="give what the run began with, or begin a new run",
            )
    for each in fields(Settings):
        was, now = getattr(settings, each.name), getattr(identity.settings, each.name)
        if was != now and each.name not in CHANGEABLE:
            fail(
                "argument-value",
                f"{path}: a resumed run cannot change `{each.name}`",
                expected=f"{each.name} = {toml_value(was)}",
                found=f"{each.name} = {toml_value(now)}",
                help=f"only {listing(CHANGEABLE, 'and')} may change; a new run can begin with "
                "the weights of this one",
            )


def _differences(before: Mapping[str, Any], machine: Mapping[str, Any]) -> list[str]:
    """Remarks if the numbers may differ from those of an uninterrupted run."""
    odd = [name for name in machine if before.get(name) != machine[name]]
    if not odd:
        return []
    return [
        f"the run continues with another {listing(odd, 'and')}, so its last digits may differ "
        "from those of an uninterrupted run"
    ]


# -- files --


def _start(machine: Mapping[str, Any], step: int) -> dict[str, Any]:
    return {"date": datetime.now(UTC).isoformat(timespec="seconds"), "step": step, **machine}


def _write_environment(path: Path, identity: Identity, starts: list[Any]) -> None:
    entries = {
        "data": identity.data,
        "fingerprint": identity.fingerprint,
        "dtype": identity.dtype,
        "base": identity.base,
        "source": identity.source,
        "starts": starts,
    }
    _write(path / ENVIRONMENT, json.dumps(entries, indent=2, ensure_ascii=False) + "\n")


def read_environment(path: Path) -> dict[str, Any]:
    """The content of `environment.json`."""
    found = read_object(path / ENVIRONMENT, "the environment of a run")
    starts = found.get("starts")
    if not isinstance(starts, list) or not all(isinstance(each, dict) for each in starts):
        fail("config", f"{path / ENVIRONMENT}: not the environment of a run")
    return found


def read_spec(path: Path) -> str:
    """The text of the run's model."""
    with _reading(path / SPEC):
        return read_bytes(path / SPEC).decode()


def read_settings(path: Path) -> Settings:
    """The settings of a run."""
    with _reading(path / SETTINGS), open_file(path / SETTINGS) as stream:
        given = tomllib.load(stream)
    return settings_from(given, f"`{{}}` in {path / SETTINGS}".format)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # tomllib's and UTF-8's errors are ValueErrors
        reason = getattr(error, "strerror", None) or str(error)
        fail("file", f"{path}: cannot read a file of the run: {reason}", cause=error)


def settings_text(settings: Settings) -> str:
    """All settings as TOML.

    >>> print(settings_text(Settings(clip=None, freeze=("embed*",))).splitlines()[0])
    steps = 1000
    """
    names = (each.name for each in fields(Settings))
    return "".join(f"{name} = {toml_value(getattr(settings, name))}\n" for name in names)


def toml_value(value: object) -> str:
    """A setting in TOML; None is "none".

    >>> [toml_value(each) for each in (None, True, 1e-05, "a", ("b",))]
    ['"none"', 'true', '1e-05', '"a"', '["b"]']
    """
    match value:
        case None:
            return '"none"'
        case bool():
            return str(value).lower()
        case str():
            # The strings of JSON are strings of TOML, but for one character.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case tuple():
            return f"[{', '.join(map(toml_value, value))}]"
        case dict():
            parts = (f"{name} = {toml_value(each)}" for name, each in value.items())
            return f"{{ {', '.join(parts)} }}"
    return repr(value)


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
