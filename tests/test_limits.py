"""Limits on the sizes that files declare: checked before anything is allocated."""

from __future__ import annotations

import json
import pickle
import re
import struct
import tracemalloc
import wave
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from archdsl.diagnostics import ArchError
from archdsl.formats.checkpoint import read_checkpoint
from archdsl.limits import LIMITS, check_limit, most_of
from archdsl.tasks.classify import read_preprocessor
from archdsl.tasks.sound import read_spectrogram, read_wav, resample

PAGE = Path(__file__).parents[1] / "docs" / "errors" / "limit.md"


def refused(read: Callable[[], object]) -> str:
    """The message of a reader, which allocates little before."""
    tracemalloc.start()
    try:
        with pytest.raises(ArchError) as caught:
            read()
        assert tracemalloc.get_traced_memory()[1] < 5e7
    finally:
        tracemalloc.stop()
    return str(caught.value)


def test_the_page_has_every_limit() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    assert rows == [
        (name, f"{each.most:,} {each.unit}", each.about) for name, each in LIMITS.items()
    ]


def test_a_limit_is_raised_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, each in LIMITS.items():
        check_limit(name, each.most, "a file")
        message = refused(lambda name=name, most=each.most: check_limit(name, most + 1, "a"))
        setting = re.search(r"set (\w+)=(\d+)$", message)
        assert setting
        monkeypatch.setenv(setting[1], setting[2])
        check_limit(name, each.most + 1, "a file")
    monkeypatch.setenv("ARCHDSL_LIMIT_N_FFT", "many")
    assert "ARCHDSL_LIMIT_N_FFT is not a limit" in refused(lambda: most_of("n_fft"))
    assert "found: more than 1e+40 Hz" in refused(
        lambda: check_limit("sound_rate", 10**5000, "a")
    )


# -- weights --


def test_a_header_with_room_for_a_million_tensors(tmp_path: Path) -> None:
    header = b'{"a":' + b"x" * (1 << 24)
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    assert "a.safetensors: above the limit `header_bytes`" in refused(
        lambda: read_checkpoint(path)
    )


def inflating(path: Path, name: str, start: bytes, megabytes: int = 600) -> Path:
    zeros = bytes(1 << 20)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(name, "w", force_zip64=True) as file,
    ):
        file.write(start)
        for _ in range(megabytes):
            file.write(zeros)
    return path


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "start"),
    [("a/data.pkl", b"\x80\x02B" + struct.pack("<I", 2**31 - 1)), ("w.npy", b"\x93NUMPY")],
)
def test_archives_that_inflate(name: str, start: bytes, tmp_path: Path) -> None:
    path = inflating(tmp_path / "a.zip", name, start)
    assert "a.zip: above the limit `unpacked_bytes`" in refused(lambda: read_checkpoint(path))


def test_a_pickle_that_inflates(tmp_path: Path) -> None:
    path = inflating(tmp_path / "a.pt", "a/data.pkl", b"\x80\x02", 20)
    assert "a.pt: above the limit `pickle_bytes`" in refused(lambda: read_checkpoint(path))


def test_a_stream_that_declares_a_huge_text(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with path.open("wb") as file:
        file.write(b"\x80\x02B" + struct.pack("<I", 2**31 - 1))
        file.truncate(2**31 + 100)  # a hole, without blocks on the disk
    assert "a.pt: above the limit `pickle_bytes`" in refused(lambda: read_checkpoint(path))


def test_a_pickle_of_many_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHDSL_LIMIT_PICKLE_STEPS", "4000")
    path = tmp_path / "a.pt"
    path.write_bytes(pickle.dumps(list(range(10_000)), protocol=2))
    assert "a.pt: above the limit `pickle_steps`" in refused(lambda: read_checkpoint(path))


def test_entries_of_an_archive_that_overlap(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **{f"a{number}": np.zeros(1000) for number in range(3)})
    data = path.read_bytes()
    headers = [each.start() for each in re.finditer(b"PK\x01\x02", data)]
    changed = bytearray(data)
    for start in headers:  # all entries are the first, declared to be ten times as long
        changed[start + 20 : start + 28] = struct.pack("<II", 80_000, 80_000)
    path.write_bytes(changed)
    assert "entries of 240000 bytes in a file of" in refused(lambda: read_checkpoint(path))


# -- sound --


def test_sounds_of_absurd_rates_and_lengths(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    for rate, message in (
        (1, "the encoding of `.*` is not supported"),
        (2**32 - 5, "a.wav: above the limit `sound_rate`"),
    ):
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(bytes(200_000))
        data = bytearray(path.read_bytes())
        data[24:28] = struct.pack("<I", rate)
        path.write_bytes(data)
        assert re.search(message, refused(lambda: read_wav(path)))
    long = np.zeros(1_000_000, np.float32)
    message = refused(lambda: resample(long, 1000, 384_000))
    assert "the resampled sound: above the limit `sound_samples`" in message


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("n_fft", 10**9, "`n_fft`: above the limit `n_fft`"),
        ("n_fft", 10**30, "`n_fft`: above the limit `n_fft`"),
        ("hop_length", 10**9, "`hop_length`: above the limit `hop_length`"),
        ("sampling_rate", 10**9, "`sampling_rate`: above the limit `sound_rate`"),
        ("sampling_rate", 1, "this value of `sampling_rate` is not supported"),
    ],
)
def test_a_spectrogram_of_absurd_sizes(
    field: str, value: int, message: str, tmp_path: Path
) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({field: value}))
    assert message in refused(lambda: read_spectrogram(tmp_path, 80))


# -- images --

STEPS = {"do_resize": True, "size": {"height": 8, "width": 8}, "resample": 2}


def images(folder: Path, **changes: object) -> Path:
    (folder / "preprocessor_config.json").write_text(json.dumps({**STEPS, **changes}))
    return folder


@pytest.mark.parametrize("side", [20_000, 10**9, 10**30])
@pytest.mark.parametrize("name", ["size", "crop_size"])
def test_absurd_sizes_of_images(name: str, side: int, tmp_path: Path) -> None:
    changes = {name: {"height": side, "width": side}, "do_center_crop": True}
    folder = images(tmp_path, **{"crop_size": {"height": 8, "width": 8}, **changes})
    message = refused(lambda: read_preprocessor(folder))
    assert f"`{name}`: above the limit `input_pixels`" in message


def png(width: int, height: int) -> bytes:
    """A PNG without pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        end = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + end

    head = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )


@pytest.mark.reference("PIL")
@pytest.mark.parametrize("side", [9_000, 13_300, 20_000, 2**31 - 1])
def test_images_that_inflate(side: int, tmp_path: Path) -> None:
    from PIL import Image

    before = Image.MAX_IMAGE_PIXELS
    path = tmp_path / "a.png"
    path.write_bytes(png(side, side))
    read = read_preprocessor(images(tmp_path))
    assert "a.png: above the limit `image_pixels`" in refused(lambda: read(path))
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.reference("PIL")
def test_a_long_image_by_its_shorter_side(tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "a.png"
    Image.new("RGB", (20_000, 1)).save(path)
    read = read_preprocessor(images(tmp_path, size={"shortest_edge": 300}))
    assert "above the limit `input_pixels`" in refused(lambda: read(path))


@pytest.mark.reference("PIL")
def test_only_usual_formats_are_opened(tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "a.pcx"
    Image.new("RGB", (8, 8)).save(path)
    message = refused(lambda: read_preprocessor(images(tmp_path))(path))
    assert "expected: an image in one of the formats `PNG`, `JPEG`" in message


@pytest.mark.reference("PIL")
@pytest.mark.parametrize("field", [{"rescale_factor": 1e308}, {"image_std": [1e-320] * 3}])
def test_pixels_that_are_not_finite(field: dict[str, object], tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8), "white").save(path)
    changes = {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, **field}
    message = refused(lambda: read_preprocessor(images(tmp_path, **changes))(path))
    assert "become NaN or infinite" in message
