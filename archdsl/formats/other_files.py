"""The other files of a published folder: config, tokenizer, generation and preprocessing.

An import carries them along unchanged: `my.safetensors` names the folder `my.files` beside it
in its metadata. An export writes them into the new folder. Weights are not among them, in any
format, except those of other modules (`modules.json` of sentence-transformers names these).
"""

from __future__ import annotations

import filecmp
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from archdsl.diagnostics import fail, listing
from archdsl.files import open_file, read_bytes
from archdsl.formats.atomic import replacing
from archdsl.formats.host import reading
from archdsl.formats.safetensors import read_metadata

_KEY = "archdsl.files"
_SUFFIX = ".files"
_MODULES = "modules.json"
# Weights, states of optimizers, and indexes of their shards.
_WEIGHTS = (
    *(
        ".safetensors",
        ".bin",
        ".pt",
        ".pth",
        ".npz",
        ".gguf",
        ".h5",
        ".msgpack",
        ".ot",
        ".ckpt",
    ),
    *(".onnx", ".onnx_data", ".tflite", ".mlmodel", ".pb", ".index.json"),
)


def other_files(folder: Path, used: Collection[str] = ()) -> tuple[dict[str, Path], list[str]]:
    """The other files by name (`1_Pooling/config.json`), and the names of files left out.

    `used` are the names of the files that hold the tensors. Hidden files, and those of Python's
    cache, are no part of a checkpoint.
    """
    found: dict[str, Path] = {}
    left_out = []
    with reading(folder, "a folder"):
        modules = _module_folders(folder)
        for name in _names(folder):
            is_weights = name.lower().endswith(_WEIGHTS) or ".ckpt" in name
            if not is_weights or name.split("/")[0] in modules:
                found[name] = folder / name
            elif name not in used:
                left_out.append(name)
    return found, left_out


def metadata(folder: Path) -> dict[str, str]:
    """The metadata of weights whose other files are in a folder beside them."""
    return {_KEY: folder.name}


def folder_for(weights: str | Path) -> Path:
    """Where an import carries the other files of the weights that it writes.

    >>> folder_for("a/my.safetensors").as_posix()
    'a/my.files'
    """
    return Path(weights).with_suffix(_SUFFIX)


def folder_of(weights: Path, way_out: str = "") -> Path | None:
    """The folder with the other files of weights: the weights' own, or the one they name.

    Raises ArchError (`file`) if it is missing; `way_out` ends the help.
    """
    if weights.is_dir():
        return weights
    name = read_metadata(weights).get(_KEY) if weights.suffix == ".safetensors" else None
    if name is None:
        return None
    is_beside = name == os.path.basename(name) and name.endswith(_SUFFIX)
    if not is_beside or not (weights.parent / name).is_dir():
        fail(
            "file",
            f"{weights}: the folder with the other files of the checkpoint is missing",
            expected=f"`{name}` beside `{weights.name}`, as the import wrote it",
            help=f"move it there{way_out}",
        )
    return weights.parent / name


def carry(files: Mapping[str, Path], folder: Path) -> None:
    """Copies files to a folder, which has these files alone then.

    Raises ArchError (`file`) if the folder has other files, or one with another content.
    """
    there = set(_names(folder)) if folder.is_dir() else set()
    different = [
        name
        for name in sorted(there)
        if name not in files or not filecmp.cmp(folder / name, files[name], shallow=False)
    ]
    if different:
        fail(
            "file",
            f"{folder}: the folder has files of another checkpoint",
            found=listing(different[:12], "and"),
            help="remove it, or choose another name for `--weights`",
        )
    copy({name: path for name, path in files.items() if name not in there}, folder)


def copy(files: Mapping[str, Path], folder: Path) -> None:
    """Copies files to a folder under their names; if one fails, none is left."""
    targets = {folder / name: path for name, path in files.items()}
    inner = {place for target in targets for place in target.parents if place > folder}
    places = [place for place in sorted({folder, *inner}) if not place.exists()]
    try:
        for target, path in targets.items():
            with reading(path, "a file"), open_file(path) as source:
                target.parent.mkdir(parents=True, exist_ok=True)
                with replacing(target) as temporary, temporary.open("wb") as written:
                    shutil.copyfileobj(source, written)
    except BaseException:
        for target in targets:
            target.unlink(missing_ok=True)
        for place in reversed(places):
            with suppress(OSError):
                place.rmdir()
        raise


def _names(folder: Path) -> Iterator[str]:
    """The names of all files that are not hidden, in order."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith((".", "__pycache__")))
        for file in sorted(files):
            if not file.startswith("."):
                yield (Path(place) / file).relative_to(folder).as_posix()


def _module_folders(folder: Path) -> set[str]:
    """The folders of sentence-transformers' modules."""
    if not (folder / _MODULES).is_file():
        return set()
    modules = json.loads(read_bytes(folder / _MODULES))
    return {str(each["path"]).split("/")[0] for each in modules} - {""}
