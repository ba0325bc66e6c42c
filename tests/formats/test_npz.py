"""NumPy archives: reading what `numpy.savez` writes, and the reverse."""

from __future__ import annotations

import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tinygrad import Tensor, dtypes

from archdsl.diagnostics import ArchError
from archdsl.formats import read_weights, write_npz


def complaint(path: Path) -> str:
    with pytest.raises(ArchError) as raised:
        read_weights(path)
    (diagnostic,) = raised.value.diagnostics
    assert diagnostic.code == "checkpoint"
    return str(diagnostic.found)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes(tmp_path: Path, save: Callable[..., None]) -> None:
    arrays: dict[str, Any] = {
        "h.0/w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "big-endian": np.arange(3, dtype=">f8"),
        "scalar": np.array(4, np.int16),
        "none": np.zeros((0, 3), np.float16),
        "flags": np.array([True, False]),
    }
    save(tmp_path / "a.npz", **arrays)
    read = read_weights(tmp_path / "a.npz")
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        found = read[name].numpy()
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype.newbyteorder("=")
        assert found.shape == array.shape


def test_what_numpy_reads(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {
        "file": np.arange(6, dtype=np.float32).reshape(2, 3).T,  # also a parameter of savez
        "scalar": np.array(4, np.uint8),
        "none": np.zeros((0, 3), np.float16),
    }
    tensors = {**arrays, "tensor": Tensor(np.arange(3), device="NPY")}
    write_npz(tmp_path / "a.npz", tensors)
    write_npz(tmp_path / "b.npz", tensors)
    with np.load(tmp_path / "a.npz") as back:
        assert back.files == list(tensors)
        for name, array in arrays.items():
            np.testing.assert_array_equal(back[name], array, strict=True)
        assert back["tensor"].tolist() == [0, 1, 2]
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


class Trap:
    """An object whose pickle makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (self.path,)


def test_a_pickle_in_an_array_is_not_run(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    np.savez(tmp_path / "a.npz", w=np.array([Trap(sprung)], dtype=object))
    with np.load(tmp_path / "a.npz", allow_pickle=True) as file:
        assert file["w"].shape == (1,)
    assert sprung.exists()  # the trap is one
    sprung.unlink()
    assert "Object arrays cannot be loaded" in complaint(tmp_path / "a.npz")
    assert not sprung.exists()


@pytest.mark.parametrize("dtype", ["complex64", "U3", "datetime64[s]"])
def test_arrays_that_are_no_weights(tmp_path: Path, dtype: str) -> None:
    np.savez(tmp_path / "a.npz", w=np.zeros(2, dtype))
    assert complaint(tmp_path / "a.npz").startswith("`w` has the dtype")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_arrays_of_one_name(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.ones(2))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.write(tmp_path / "w.npy", "w.npy")
        archive.write(tmp_path / "w.npy", "w.npy")
    assert complaint(tmp_path / "a.npz") == "two arrays have the same name"


def test_every_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    write_npz(tmp_path / "whole.npz", {"a": np.ones((2, 3), np.float32), "b": np.arange(4)})
    content = (tmp_path / "whole.npz").read_bytes()
    cut = tmp_path / "cut.npz"
    for length in range(1, len(content)):
        cut.write_bytes(content[:length])
        complaint(cut)


@pytest.mark.filterwarnings("ignore")  # numpy warns of some damaged headers
def test_no_damage_is_met_with_another_error(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.ones((2, 3), np.float32), b=np.arange(4))
    content = path.read_bytes()
    random_ = random.Random(0)
    refused = 0
    for _ in range(1000):
        damaged = bytearray(content)
        damaged[random_.randrange(len(content))] = random_.randrange(256)
        path.write_bytes(damaged)
        try:
            read_weights(path)
        except ArchError:
            refused += 1
    assert refused > 300


def test_a_dtype_that_numpy_lacks_leaves_no_file(tmp_path: Path) -> None:
    bits = Tensor(np.ones(2, np.uint16), device="NPY")
    with pytest.raises(ArchError, match="npz has no dtype `bfloat16`") as raised:
        write_npz(tmp_path / "a.npz", {"w": bits.bitcast(dtypes.bfloat16)})
    assert ".safetensors" in str(raised.value.diagnostics[0].help)
    assert list(tmp_path.iterdir()) == []
