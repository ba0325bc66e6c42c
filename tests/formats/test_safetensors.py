"""The safetensors reader and writer, against the format and against its own library."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tinygrad import Tensor, dtypes

from archdsl.diagnostics import ArchError
from archdsl.formats import read_weights, write_safetensors

ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def file_of(header: object, data: bytes = bytes(8)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def complaint(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(ArchError) as raised:
        read_weights(path)
    (diagnostic,) = raised.value.diagnostics
    assert diagnostic.code == "checkpoint"
    return str(diagnostic.found)


def test_a_file_as_the_format_describes_it(tmp_path: Path) -> None:
    data = np.array([1.5, -2], np.float32).tobytes() + bytes([0x80, 0x3F]) + bytes([1])
    header = {
        "__metadata__": {"format": "pt"},
        "first": ENTRY,
        "half": {"dtype": "BF16", "shape": [1, 1], "data_offsets": [8, 10]},
        "none": {"dtype": "I64", "shape": [3, 0], "data_offsets": [10, 10]},
        "flag": {"dtype": "BOOL", "shape": [], "data_offsets": [10, 11]},
    }
    path = tmp_path / "a.safetensors"
    path.write_bytes(file_of(json.dumps(header).encode() + b"   ", data))
    tensors = read_weights(path)
    assert list(tensors) == ["first", "half", "none", "flag"]
    assert tensors["first"].numpy().tolist() == [1.5, -2]
    assert tensors["half"].dtype == dtypes.bfloat16
    assert tensors["half"].bitcast(dtypes.uint16).numpy().tolist() == [[0x3F80]]
    assert tensors["none"].shape == (3, 0)
    assert tensors["none"].dtype == dtypes.int64
    assert tensors["flag"].shape == ()
    assert tensors["flag"].numpy().item() is True


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"[]", "starts with b'[]', not with a brace"),
        (b' {"a": 1}', "not with a brace"),
        (b"{", "Expecting property name"),
        (b'{"a":' + b"[" * 100_000, "recursion"),
        (b'{"\xff": 1}', "utf-8"),
        (rb'{"\ud800": 1}', "surrogates not allowed"),
        (b'{"a":' + b"9" * 5000 + b"}", "integer string"),
        (b'{"a": 1, "a": 1}', "`a` appears twice"),
        ({"a": [ENTRY]}, "the entry of `a` must have dtype, shape and data_offsets"),
        ({"a": {**ENTRY, "extra": 1}}, "must have dtype, shape and data_offsets"),
        ({"a": {"dtype": "F32"}}, "must have dtype, shape and data_offsets"),
        ({"a": {**ENTRY, "dtype": "F4"}}, "`a` has the dtype 'F4'; supported are `BOOL`"),
        ({"a": {**ENTRY, "dtype": ["F32"]}}, "unhashable"),
        ({"a": {**ENTRY, "shape": 2}}, "must have a list of sizes and two offsets"),
        ({"a": {**ENTRY, "shape": [-2]}}, "[-2] is not a valid shape"),
        ({"a": {**ENTRY, "shape": [2.0]}}, "[2.0] is not a valid shape"),
        ({"a": {**ENTRY, "shape": [2, True]}}, "[2, True] is not a valid shape"),
        ({"a": {**ENTRY, "shape": [1] * 70 + [2]}}, "is not a valid shape"),
        (
            {"a": {**ENTRY, "shape": [0, 1 << 70], "data_offsets": [0, 0]}},
            "is not a valid shape",
        ),
        ({"a": {**ENTRY, "shape": [3]}}, "`a`, F32[3], has 12 bytes, but the range [0, 8]"),
        ({"a": {**ENTRY, "data_offsets": [0, 4]}}, "has 8 bytes, but the range [0, 4]"),
        ({"a": {**ENTRY, "data_offsets": [8, 0]}}, "has 8 bytes, but the range [8, 0]"),
        ({"a": {**ENTRY, "data_offsets": [0, 8, 9]}}, "two offsets"),
        ({"a": {**ENTRY, "data_offsets": [0.0, 8.0]}}, "two offsets"),
        ({"a": {**ENTRY, "data_offsets": [-8, 0]}}, "starts at byte -8 of the data, not at 0"),
        ({"a": {**ENTRY, "data_offsets": [8, 16]}}, "starts at byte 8 of the data, not at 0"),
        ({"a": ENTRY, "b": ENTRY}, "`b` starts at byte 0 of the data, not at 8"),
        ({}, "the header describes 0 bytes of data, but the file has 8"),
        ({"__metadata__": {"a": 1}}, "`__metadata__` does not map strings to strings"),
        ({"__metadata__": []}, "`__metadata__` does not map strings to strings"),
    ],
)
def test_a_header_that_breaks_the_format(tmp_path: Path, header: object, words: str) -> None:
    assert words in complaint(tmp_path / "a.safetensors", file_of(header))


def test_bytes_that_no_tensor_has(tmp_path: Path) -> None:
    content = file_of({"a": ENTRY}, bytes(9))
    words = "the header describes 8 bytes of data, but the file has 9"
    assert complaint(tmp_path / "a.safetensors", content) == words


def test_a_header_longer_than_the_file(tmp_path: Path) -> None:
    content = b"\xff" * 8 + b"{}"
    assert "a header of 18446744073709551615 bytes" in complaint(tmp_path / "a.pt", content)


def test_every_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "whole.safetensors"
    write_safetensors(path, {"a": np.ones((2, 3), np.float32), "b": np.arange(4)})
    content = path.read_bytes()
    for length in range(1, len(content)):
        complaint(tmp_path / "cut.safetensors", content[:length])


def test_no_damage_is_met_with_another_error(tmp_path: Path) -> None:
    path = tmp_path / "whole.safetensors"
    write_safetensors(path, {"a": np.ones((2, 3), np.float16)}, {"k": "v"})
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
    assert refused > 500


def test_the_writer_keeps_order_dtypes_and_alignment(tmp_path: Path) -> None:
    arrays: dict[str, NDArray[Any]] = {
        "z": np.array(2.5),
        "a": np.arange(6, dtype=np.int16).reshape(2, 3).T,
        "m": np.zeros((0, 4), np.uint8),
        "big-endian": np.arange(3, dtype=">f4"),
        "ünï": np.array([True, False]),
    }
    path = tmp_path / "a.safetensors"
    write_safetensors(path, arrays, {"made by": "a test"})
    header_length = int.from_bytes(path.read_bytes()[:8], "little")
    assert header_length % 8 == 0
    read = read_weights(path)
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name].numpy(), array)
        assert read[name].numpy().dtype == array.dtype.newbyteorder("=")


def test_a_number_of_numpy_is_a_tensor_without_axes(tmp_path: Path) -> None:
    scalar: Any = np.float32(2.5)
    write_safetensors(tmp_path / "a", {"w": scalar})
    assert read_weights(tmp_path / "a")["w"].numpy().tolist() == 2.5


def test_the_same_tensors_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_safetensors(tmp_path / name, {"w": np.ones(3)}, {"x": "y"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    "name", ["float16", "bfloat16", "fp8e4m3", "fp8e5m2", "float64", "bool", "uint64"]
)
def test_a_tensor_of_tinygrad_keeps_its_dtype(tmp_path: Path, name: str) -> None:
    dtype = getattr(dtypes, name)
    carrier = {1: dtypes.uint8, 2: dtypes.uint16, 8: dtypes.uint64}[dtype.itemsize]
    bits = np.array([[0, 1], [1, 0]])
    bits = bits.astype({1: np.uint8, 2: np.uint16, 8: np.uint64}[dtype.itemsize])
    tensor = Tensor(bits, device="NPY").bitcast(dtype)
    write_safetensors(tmp_path / "a", {"w": tensor})
    read = read_weights(tmp_path / "a")["w"]
    assert read.dtype == dtype
    np.testing.assert_array_equal(read.bitcast(carrier).numpy(), bits)


class Handed(Mapping[str, np.ndarray[Any, Any]]):
    """Tensors that are created on demand, and counted while they exist."""

    alive = 0
    most = 0

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        class Counted(np.ndarray[Any, Any]):
            def __del__(self) -> None:
                Handed.alive -= 1

        Handed.alive += 1
        Handed.most = max(Handed.most, Handed.alive)
        return np.ndarray.__new__(Counted, (3,), np.float32)

    def __iter__(self) -> Iterator[str]:
        return iter([f"w{i}" for i in range(50)])

    def __len__(self) -> int:
        return 50


def test_the_writer_holds_one_tensor_at_a_time(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a", Handed())
    assert Handed.most <= 4  # of one tensor: itself, and views of it


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("__metadata__", np.ones(1)),
        ("w", np.ones(1, np.complex64)),
        ("w", np.array(["text"])),
        ("w", Tensor(3)),  # a constant of tinygrad's that has no size of its own yet
    ],
)
def test_what_the_format_cannot_hold_leaves_no_file(
    tmp_path: Path, name: str, array: Any
) -> None:
    with pytest.raises(ArchError, match="safetensors does not support it"):
        write_safetensors(tmp_path / "a", {name: array})
    assert list(tmp_path.iterdir()) == []


def test_against_the_safetensors_library(tmp_path: Path) -> None:
    theirs = pytest.importorskip("safetensors", reason="the safetensors package is absent")
    numpy_io = pytest.importorskip("safetensors.numpy", reason="safetensors is absent")
    names = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
    names += ["float16", "float32", "float64"]
    rng = np.random.default_rng(0)
    arrays = {n: (rng.normal(size=(3, 5)) * 50).astype(n) for n in names if n[0] != "u"}
    arrays |= {n: rng.integers(0, 200, (2, 2, 2)).astype(n) for n in names if n[0] == "u"}
    arrays |= {"scalar": np.array(7, np.float32), "none": np.zeros((2, 0), np.int8)}

    write_safetensors(tmp_path / "ours", arrays, {"by": "archdsl"})
    numpy_io.save_file(arrays, tmp_path / "theirs", {"by": "them"})
    back, here = numpy_io.load_file(tmp_path / "ours"), read_weights(tmp_path / "theirs")
    assert here.keys() == back.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array, strict=True)
        np.testing.assert_array_equal(here[name].numpy(), array, strict=True)
    with theirs.safe_open(tmp_path / "ours", "numpy") as file:
        assert file.metadata() == {"by": "archdsl"}


def test_half_precisions_against_the_safetensors_library(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is absent")
    torch_io = pytest.importorskip("safetensors.torch", reason="safetensors is absent")
    kinds = [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2]
    tensors = {str(kind): torch.linspace(-3, 3, 12).view(3, 4).to(kind) for kind in kinds}
    torch_io.save_file(tensors, tmp_path / "theirs")
    read = read_weights(tmp_path / "theirs")
    write_safetensors(tmp_path / "ours", read)
    back = torch_io.load_file(tmp_path / "ours")
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name].view(torch.uint8), tensor.view(torch.uint8))
