"""Folders that we write: complete or not at all, never over files, readable by transformers."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tinygrad import Tensor, dtypes

from archdsl.diagnostics import ArchError
from archdsl.formats import LazyTensor, read_checkpoint, write_checkpoint

CONFIG = {"model_type": "tiny", "sizes": [1, 2.5], "depth": 2, "bias": True, "name": "ünï"}


def weights(count: int = 5) -> dict[str, NDArray[Any]]:
    return {f"w{i}": np.arange(i, i + 6, dtype=np.float32).reshape(2, 3) for i in range(count)}


def test_a_folder_is_written_and_read(tmp_path: Path) -> None:
    bits = np.array([0x3F80, 0xC000, 1], np.uint16)
    tensors: dict[str, Any] = {
        "z": np.arange(6, dtype=np.float16).reshape(2, 3).T,
        "a": LazyTensor("bfloat16", (3, 1), lambda: bits),
        "t": Tensor(np.arange(4), device="NPY"),
        "scalar": np.array(2.5),
    }
    folder = tmp_path / "new" / "model"
    write_checkpoint(folder, tensors, CONFIG)
    assert sorted(os.listdir(folder)) == ["config.json", "model.safetensors"]
    expected = json.dumps(CONFIG, indent=2, ensure_ascii=False) + "\n"
    assert (folder / "config.json").read_text(encoding="utf-8") == expected
    checkpoint = read_checkpoint(folder)
    assert (checkpoint.path, checkpoint.config) == (folder, CONFIG)
    read = {name: (t.dtype, t.shape) for name, t in checkpoint.tensors.items()}
    assert read == {
        "z": ("float16", (3, 2)),
        "a": ("bfloat16", (3, 1)),
        "t": ("int64", (4,)),
        "scalar": ("float64", ()),
    }
    np.testing.assert_array_equal(checkpoint.tensors["z"].read(), tensors["z"])
    assert checkpoint.tensors["a"].read().ravel().tolist() == bits.tolist()
    assert checkpoint.tensors["a"].tensor().dtype == dtypes.bfloat16
    assert checkpoint.tensors["scalar"].read().tolist() == 2.5
    assert b'"format":"pt"' in (folder / "model.safetensors").read_bytes()


def test_shards_are_filled_in_order(tmp_path: Path) -> None:
    big = {"big": np.ones(100, np.float32)}
    write_checkpoint(tmp_path, {**weights(3), **big, "w9": np.ones(2)}, {}, shard_bytes=48)
    name = "model-0000{}-of-00004.safetensors".format
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index == {
        "metadata": {"total_size": 3 * 24 + 400 + 16},
        "weight_map": {
            "w0": name(1),
            "w1": name(1),
            "w2": name(2),
            "big": name(3),
            "w9": name(4),
        },
    }
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.config == {}
    assert list(checkpoint.tensors) == ["w0", "w1", "w2", "big", "w9"]
    for key, array in (weights(3) | big).items():
        np.testing.assert_array_equal(checkpoint.tensors[key].read(), array, strict=True)


def test_a_checkpoint_is_copied_bit_for_bit(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "a", weights(), CONFIG, shard_bytes=48)
    first = read_checkpoint(tmp_path / "a")
    write_checkpoint(tmp_path / "b", first.tensors, first.config or {}, shard_bytes=48)
    for name in os.listdir(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_writer_holds_one_tensor_at_a_time(tmp_path: Path) -> None:
    alive, most = 0, 0

    class Counted(np.ndarray[Any, Any]):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def load() -> NDArray[Any]:
        nonlocal alive, most
        alive += 1
        most = max(most, alive)
        return np.ndarray.__new__(Counted, (3,), np.float32)

    tensors = {f"w{i}": LazyTensor("float32", (3,), load) for i in range(50)}
    write_checkpoint(tmp_path, tensors, {}, shard_bytes=60)
    assert 1 <= most <= 4  # of one tensor: itself, and views of it


@pytest.mark.parametrize("name", ["config.json", "old.safetensors", "a.bin", "x.index.json"])
def test_nothing_is_written_over(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    (tmp_path / "tokenizer.json").touch()
    with pytest.raises(ArchError, match="already has files of a checkpoint") as raised:
        write_checkpoint(tmp_path, weights(), CONFIG)
    assert raised.value.diagnostics[0].found == f"`{name}`"
    assert sorted(os.listdir(tmp_path)) == sorted([name, "tokenizer.json"])
    assert (tmp_path / name).read_text() == "mine"


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fails() -> NDArray[Any]:
        assert (tmp_path / "model-00001-of-00002.safetensors").exists()
        raise KeyboardInterrupt

    (tmp_path / "tokenizer.json").touch()
    tensors = {"a": np.ones(6), "b": LazyTensor("float32", (6,), fails)}
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(tmp_path, tensors, CONFIG, shard_bytes=48)
    assert os.listdir(tmp_path) == ["tokenizer.json"]


@pytest.mark.parametrize(
    "tensors", [{"w": np.ones(2, np.complex64)}, {"__metadata__": np.ones(2)}]
)
def test_what_the_format_cannot_hold_makes_no_folder(
    tmp_path: Path, tensors: Mapping[str, Any]
) -> None:
    with pytest.raises(ArchError, match="safetensors does not support it"):
        write_checkpoint(tmp_path / "a", tensors, {})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_checkpoint(tmp_path / "a", {}, {"scale": float("nan")})
    assert not os.listdir(tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArchError, match="cannot create the folder") as raised:
        write_checkpoint(tmp_path / "file" / "model", weights(), CONFIG)
    assert raised.value.diagnostics[0].code == "file"


def test_a_stored_tensor_of_another_dtype_is_not_written(tmp_path: Path) -> None:
    wrong = LazyTensor("float32", (2,), lambda: np.ones(2))
    with pytest.raises(TypeError, match="loaded float64 for a tensor of float32"):
        write_checkpoint(tmp_path, {"w": wrong}, {})
    assert not os.listdir(tmp_path)


@pytest.mark.reference("transformers", "torch", "safetensors")
def test_against_transformers(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2Model  # type: ignore[import-untyped]

    small = GPT2Config(vocab_size=50, n_positions=8, n_embd=12, n_layer=3, n_head=3)
    model = GPT2Model(small).eval()
    model.save_pretrained(tmp_path / "theirs", max_shard_size="4KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 2
    theirs = read_checkpoint(tmp_path / "theirs")
    state = model.state_dict()
    assert set(theirs.tensors) == set(state)
    write_checkpoint(tmp_path / "ours", theirs.tensors, theirs.config or {}, shard_bytes=4000)
    assert len(list((tmp_path / "ours").glob("*.safetensors"))) > 2
    back, info = GPT2Model.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert back.config.to_dict() | {"_name_or_path": ""} == small.to_dict() | {
        "_name_or_path": "",
        "architectures": ["GPT2Model"],
        "dtype": back.config.to_dict()["dtype"],
    }
    for name, tensor in back.state_dict().items():
        assert np.array_equal(tensor.numpy(), state[name].numpy()), name
