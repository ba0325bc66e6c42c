"""Reads and writes whole checkpoints: tensors by name, and the config.

A Hugging Face folder holds `config.json` and either one file of weights or several shards. An
index names the shard of each tensor, and must be exact. Opening a checkpoint reads only
headers. The caller interprets the fields of the config.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from archdsl.diagnostics import did_you_mean, fail, listing
from archdsl.formats.atomic import replacing
from archdsl.formats.host import LazyTensor, Value, reading
from archdsl.formats.other_files import copy
from archdsl.formats.package import resolve
from archdsl.formats.safetensors import stored_size, write_safetensors
from archdsl.formats.single import read_file
from archdsl.formats.strict_json import read_object
from archdsl.frozen import Frozen

CONFIG = "config.json"
_INDEX = ".index.json"
_WRAPPER = "_orig_mod."
_CTRANSLATE2 = "model.bin"
# The file names of weights in a folder; the first that exists is read.
_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    _CTRANSLATE2,
)
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".npz", ".gguf", _INDEX)


class Checkpoint(Frozen):
    """An opened checkpoint.

    `tensors` are in the order of the file or the index, under their names without those of
    wrappers. `config` is the content of `config.json`, the metadata of a GGUF file, or the
    settings in a file of PyTorch or CTranslate2; None if there is none of these. `used` are the
    names of the files of a folder that hold the tensors.
    """

    path: Path
    tensors: Mapping[str, LazyTensor]
    config: Mapping[str, object] | None
    used: tuple[str, ...] = ()


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Opens a folder or a file of weights, without reading a tensor or importing tinygrad.

    `path` is a folder with `config.json` and weights (one file or shards; .safetensors is
    preferred to .bin), a file in any format of `read_weights`, or `package:NAME/inner` for
    either in an installed package.

    Raises ArchError: `file` if a file is missing, `checkpoint` if a file is damaged or the
    shards do not match their index.
    """
    place = resolve(str(path))
    if not os.path.isdir(place):
        tensors, metadata = read_file(place)
        return Checkpoint(place, _without_wrapper(tensors), metadata)
    with reading(place, "a folder"):
        names = sorted(os.listdir(place))
    config = read_object(place / CONFIG, "a config") if CONFIG in names else None
    weights = place / _weights(place, names)
    if weights.name.endswith(_INDEX):
        tensors, shards = _read_shards(weights)
        return Checkpoint(place, _without_wrapper(tensors), config, (weights.name, *shards))
    tensors, settings = read_file(weights)
    if weights.name == _CTRANSLATE2 and settings:
        config = {**settings, **(config or {})}  # which has the names of tokens alone
    return Checkpoint(place, _without_wrapper(tensors), config, (weights.name,))


def _without_wrapper(tensors: dict[str, LazyTensor]) -> dict[str, LazyTensor]:
    """The tensors without the part of their names that `torch.compile` adds.

    >>> _without_wrapper({"_orig_mod.h.0._orig_mod.w": LazyTensor("int8", (1,), lambda: None)})
    {'h.0.w': LazyTensor(dtype='int8', shape=(1,))}
    """
    bare = {name.replace(_WRAPPER, ""): tensor for name, tensor in tensors.items()}
    return bare if len(bare) == len(tensors) else tensors


def write_checkpoint(
    folder: str | Path,
    tensors: Mapping[str, Value],
    config: Mapping[str, object],
    shard_bytes: int = 5_000_000_000,
    others: Mapping[str, Path] | None = None,
) -> None:
    """Writes `config.json` and the tensors to a folder, in files of at most `shard_bytes`.

    `others` are other files, which are copied under these names.

    A single file is named `model.safetensors`; several shards get an index. A tensor larger
    than `shard_bytes` gets its own file. Order and dtypes are kept. Only one tensor is in
    memory at a time. The config is written last: a folder with a config is complete. If writing
    fails, all files that were written are removed.

    Raises ArchError: `file` if the folder already has a config, weights, or one of the other
    files, or cannot be written; `checkpoint` for a dtype that safetensors does not support.
    Raises ValueError for a config that cannot be written as JSON.

    >>> import tempfile, numpy
    >>> folder = Path(tempfile.mkdtemp()) / "tiny"
    >>> write_checkpoint(folder, {"w": numpy.ones((2, 3), "float16")}, {"depth": 1})
    >>> read_checkpoint(folder).tensors, read_checkpoint(folder).config
    ({'w': LazyTensor(dtype='float16', shape=(2, 3))}, {'depth': 1})
    """
    folder = Path(folder)
    text = json.dumps(_finite(config), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    shards = _shards(folder, tensors, shard_bytes)
    others = {name: path for name, path in (others or {}).items() if name != CONFIG}
    _make_empty(folder, others)
    with _all_or_none(folder, [*shards, _NAMES[1], CONFIG, *others]):
        copy(others, folder)
        for name, names in shards.items():
            part = {tensor: tensors[tensor] for tensor in names}
            write_safetensors(folder / name, part, {"format": "pt"})
        if len(shards) > 1:
            _write_text(folder / _NAMES[1], _index(folder, tensors, shards))
        _write_text(folder / CONFIG, text)


def _finite(value: object) -> object:
    """A config with `{"__float__": "Infinity"}` for infinity, which JSON lacks."""
    match value:
        case dict():
            return {name: _finite(each) for name, each in value.items()}
        case list():
            return [_finite(each) for each in value]
        case float() if math.isinf(value):
            return {"__float__": "Infinity" if value > 0 else "-Infinity"}
        case _:
            return value


def unread_files(opened: Checkpoint) -> list[str]:
    """The files of a folder that look like weights and that `read_checkpoint` did not read."""
    with reading(opened.path, "a folder"):
        names = sorted(os.listdir(opened.path))
    return [name for name in names if name.endswith(_WEIGHTS) and name not in opened.used]


def _weights(folder: Path, names: list[str]) -> str:
    """The name of the file that has the weights, among the files of a folder."""
    known = [name for name in _NAMES if name in names]
    others = [name for name in names if name.endswith(".safetensors")]
    if known or len(others) == 1:
        return (known or others)[0]
    problem = (
        "it is unclear which file has the weights" if others else "no weights in this folder"
    )
    fail(
        "checkpoint",
        f"{folder}: {problem}",
        expected=listing(_NAMES),
        found=listing(names[:12], "and") or "an empty folder",
        help="give the path of one file" if names else "is the download complete?",
    )


def _read_shards(index: Path) -> tuple[dict[str, LazyTensor], list[str]]:
    """The tensors of all shards, in the order of the index, and the names of the shards."""
    kind = "an index of shards"
    named = read_object(index, kind).get("weight_map")
    with reading(index, kind):
        if type(named) is not dict or any(type(shard) is not str for shard in named.values()):
            raise ValueError("`weight_map`, from tensor names to file names, is missing")
    shards = {shard: index.parent / shard for shard in named.values()}
    for shard, path in shards.items():
        _check_shard(index, shard, path)
    read = {shard: read_file(path)[0] for shard, path in shards.items()}
    _check_agreement(index, named, read)
    return {tensor: read[shard][tensor] for tensor, shard in named.items()}, list(shards)


def _check_agreement(
    index: Path, named: Mapping[str, str], read: Mapping[str, Mapping[str, LazyTensor]]
) -> None:
    """Raises ArchError unless each tensor is in exactly the shard that the index names."""
    held: dict[str, list[str]] = {tensor: [] for tensor in named}
    for shard, tensors in read.items():
        for tensor in tensors:
            held.setdefault(tensor, []).append(shard)
    wrong = [tensor for tensor, where in held.items() if where != [named.get(tensor)]]
    if wrong:
        tensor = wrong[0]
        more = f"; {len(wrong) - 1} more like it" if len(wrong) > 1 else ""
        fail(
            "checkpoint",
            f"{index}: the index does not match its shards",
            expected=f"`{tensor}` in `{named[tensor]}`"
            if tensor in named
            else "no tensor that the index does not list",
            found=f"`{tensor}` in {listing(held[tensor], 'and') or 'no shard'}{more}",
            help="download the index and all shards again, from the same revision",
        )


def _check_shard(index: Path, shard: str, path: Path) -> None:
    if shard in ("", ".", "..") or "/" in shard or "\\" in shard or "\0" in shard:
        fail(
            "checkpoint",
            f"{index}: a shard must be in the folder of its index",
            expected="a file name without a path",
            found=repr(shard[:80]),
        )
    if not os.path.exists(path):
        beside = os.listdir(index.parent)
        fail(
            "file",
            f"{index}: the shard `{shard}` is missing",
            help=did_you_mean(shard, beside) or "download it into the folder of the index",
        )


def _shards(folder: Path, tensors: Mapping[str, Value], most: int) -> dict[str, list[str]]:
    """The names of the tensors of each file, in order."""
    parts: list[list[str]] = [[]]
    filled = 0
    for name, value in tensors.items():
        size = stored_size(folder, name, value)
        if parts[-1] and filled + size > most:
            parts.append([])
            filled = 0
        parts[-1].append(name)
        filled += size
    if len(parts) == 1:
        return {_NAMES[0]: parts[0]}
    n = len(parts)
    return {f"model-{i:05}-of-{n:05}.safetensors": part for i, part in enumerate(parts, 1)}


def _index(folder: Path, tensors: Mapping[str, Value], shards: Mapping[str, list[str]]) -> str:
    total = sum(stored_size(folder, name, value) for name, value in tensors.items())
    where = {tensor: shard for shard, names in shards.items() for tensor in names}
    index = {"metadata": {"total_size": total}, "weight_map": where}
    return json.dumps(index, indent=2, ensure_ascii=False) + "\n"


def _make_empty(folder: Path, others: Collection[str]) -> None:
    """Creates the folder, or accepts an existing one without a checkpoint and other files."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = sorted(os.listdir(folder))
    except OSError as error:
        reason = error.strerror or str(error)
        fail("file", f"{folder}: cannot create the folder: {reason}", cause=error)
    taken = [name for name in names if name == CONFIG or name.endswith(_WEIGHTS)]
    taken += [name for name in others if (folder / name).exists()]
    if taken:
        fail(
            "file",
            f"{folder}: the folder already has files of a checkpoint",
            expected="a new folder, or one without these files",
            found=listing(taken[:12], "and"),
            help="give another folder, or move these files",
        )


@contextmanager
def _all_or_none(folder: Path, names: list[str]) -> Iterator[None]:
    """Removes these files, all of them new, if the block fails."""
    try:
        yield
    except BaseException:
        for name in names:
            (folder / name).unlink(missing_ok=True)
        raise


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
