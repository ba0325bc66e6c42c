"""Checkpoints as they are published: tensors by name, and what a config says of them.

A folder of Hugging Face's holds `config.json` and either one file of weights or several
shards with an index, which names the shard of each tensor; the index is held to be exact.
Opening a checkpoint reads headers alone. What a config's fields mean is left to the caller.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from archdsl.diagnostics import did_you_mean, fail, listing
from archdsl.formats.atomic import replacing
from archdsl.formats.host import LazyTensor, Value, reading
from archdsl.formats.package import resolve
from archdsl.formats.safetensors import stored_size, write_safetensors
from archdsl.formats.single import read_file
from archdsl.formats.strict_json import read_object

_CONFIG = "config.json"
_INDEX = ".index.json"
# The names of weights in a folder; of two that are there, the first counts.
_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".npz", ".gguf", _INDEX)


@dataclass(frozen=True)
class Checkpoint:
    """What `read_checkpoint` opened.

    `tensors` are in the order of the file or the index. `config` is a folder's `config.json`
    or a GGUF file's metadata, and None where there is neither.
    """

    path: Path
    tensors: Mapping[str, LazyTensor]
    config: Mapping[str, object] | None


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Opens a folder or a file of weights; no tensor is read and tinygrad not needed.

    `path` is a folder's with `config.json` and weights (one file or shards, .safetensors
    before .bin), a file's in any format of `read_weights`, or `package:NAME/inner` for either
    in an installed package.

    Raises ArchError: `file` where something is not there, `checkpoint` where a file is damaged
    or the shards are not those of their index.
    """
    place = resolve(str(path))
    if not os.path.isdir(place):
        tensors, metadata = read_file(place)
        return Checkpoint(place, tensors, metadata)
    with reading(place, "a folder"):
        names = sorted(os.listdir(place))
    config = read_object(place / _CONFIG, "a config") if _CONFIG in names else None
    weights = place / _weights(place, names)
    if weights.name.endswith(_INDEX):
        return Checkpoint(place, _read_shards(weights), config)
    return Checkpoint(place, read_file(weights)[0], config)


def write_checkpoint(
    folder: str | Path,
    tensors: Mapping[str, Value],
    config: Mapping[str, object],
    shard_bytes: int = 5_000_000_000,
) -> None:
    """Writes `config.json` and the tensors, in files of `shard_bytes` at most, to a folder.

    One file is `model.safetensors`; several have an index beside them. A tensor larger than
    `shard_bytes` has a file of its own. Order and dtypes stay as given, and one tensor at a
    time is in memory. The config comes last: a folder that has one is complete. If writing
    fails, what was written is removed.

    Raises ArchError: `file` where the folder has a config or weights already, or cannot be
    written; `checkpoint` for a dtype that safetensors does not have. ValueError for a config
    that JSON does not have.

    >>> import tempfile, numpy
    >>> folder = Path(tempfile.mkdtemp()) / "tiny"
    >>> write_checkpoint(folder, {"w": numpy.ones((2, 3), "float16")}, {"depth": 1})
    >>> read_checkpoint(folder).tensors, read_checkpoint(folder).config
    ({'w': LazyTensor(dtype='float16', shape=(2, 3))}, {'depth': 1})
    """
    folder = Path(folder)
    text = json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    shards = _shards(folder, tensors, shard_bytes)
    _make_empty(folder)
    with _all_or_none(folder, [*shards, _NAMES[1], _CONFIG]):
        for name, names in shards.items():
            part = {tensor: tensors[tensor] for tensor in names}
            write_safetensors(folder / name, part, {"format": "pt"})
        if len(shards) > 1:
            _write_text(folder / _NAMES[1], _index(folder, tensors, shards))
        _write_text(folder / _CONFIG, text)


def _weights(folder: Path, names: list[str]) -> str:
    """The name of the file, in a folder with files of these names, that has the weights."""
    known = [name for name in _NAMES if name in names]
    others = [name for name in names if name.endswith(".safetensors")]
    if known or len(others) == 1:
        return (known or others)[0]
    problem = (
        "the folder does not say which file has the weights" if others else "no weights in it"
    )
    fail(
        "checkpoint",
        f"{folder}: {problem}",
        expected=listing(_NAMES),
        found=f"a folder with {listing(names[:12], 'and') or 'nothing in it'}",
        help="name one of its files" if names else "is the download complete?",
    )


def _read_shards(index: Path) -> dict[str, LazyTensor]:
    """The tensors that an index names, in its order, each from its shard."""
    kind = "an index of shards"
    named = read_object(index, kind).get("weight_map")
    with reading(index, kind):
        if type(named) is not dict or any(type(shard) is not str for shard in named.values()):
            raise ValueError("no `weight_map` from the tensors' names to those of files")
    shards = {shard: index.parent / shard for shard in named.values()}
    for shard, path in shards.items():
        _check_shard(index, shard, path)
    read = {shard: read_file(path)[0] for shard, path in shards.items()}
    _check_agreement(index, named, read)
    return {tensor: read[shard][tensor] for tensor, shard in named.items()}


def _check_agreement(
    index: Path, named: Mapping[str, str], read: Mapping[str, Mapping[str, LazyTensor]]
) -> None:
    """Refuses an index unless each tensor is in the one shard that it names, and no other."""
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
            f"{index}: the index and its shards do not agree",
            expected=f"`{tensor}` in `{named[tensor]}`"
            if tensor in named
            else "no tensor in a shard that the index does not name",
            found=f"`{tensor}` in {listing(held[tensor], 'and') or 'no shard'}{more}",
            help="fetch the index and the shards again, all of one version",
        )


def _check_shard(index: Path, shard: str, path: Path) -> None:
    if shard in ("", ".", "..") or "/" in shard or "\\" in shard or "\0" in shard:
        fail(
            "checkpoint",
            f"{index}: a shard stands beside its index, nowhere else",
            expected="the name of a file",
            found=repr(shard[:80]),
        )
    if not os.path.exists(path):
        beside = os.listdir(index.parent)
        fail(
            "file",
            f"{index}: the shard `{shard}` is not there",
            help=did_you_mean(shard, beside) or "fetch it into the folder of the index",
        )


def _shards(folder: Path, tensors: Mapping[str, Value], most: int) -> dict[str, list[str]]:
    """The tensors' names by the file that they go to, in order."""
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


def _make_empty(folder: Path) -> None:
    """Makes the folder, or accepts one that has no checkpoint in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = sorted(os.listdir(folder))
    except OSError as error:
        reason = error.strerror or str(error)
        fail("file", f"{folder}: the folder cannot be made: {reason}", cause=error)
    taken = [name for name in names if name == _CONFIG or name.endswith(_WEIGHTS)]
    if taken:
        fail(
            "file",
            f"{folder}: the folder has a checkpoint, or a part of one, in it",
            expected="a folder without config and weights, or none",
            found=listing(taken[:12], "and"),
            help="give another folder, or move these files away",
        )


@contextmanager
def _all_or_none(folder: Path, names: list[str]) -> Iterator[None]:
    """Removes these files if the block fails; none of them was there before."""
    try:
        yield
    except BaseException:
        for name in names:
            (folder / name).unlink(missing_ok=True)
        raise


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
