"""Sound files in every encoding, other rates, and log-mel frames."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from archdsl.diagnostics import ArchError
from archdsl.tasks.sound import Spectrogram, read_spectrogram, read_wav, resample

WAVE = np.array([0.0, 0.5, -0.5, 0.25, -1.0, 0.75])


def wav(kind: int, bits: int, data: bytes, channels: int = 1, extra: bytes = b"") -> bytes:
    """A WAV file of these samples, after a chunk of odd size."""
    frame = channels * bits // 8
    head = struct.pack("<HHIIHH", kind, channels, 8000, 8000 * frame, frame, bits) + extra
    body = b"WAVEfmt " + struct.pack("<I", len(head)) + head
    body += b"LIST" + struct.pack("<I", 3) + b"abc\0"
    body += b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def whole(bits: int) -> bytes:
    numbers = [int(x * 2 ** (bits - 1)) for x in WAVE]
    if bits == 8:
        return bytes(number + 128 for number in numbers)
    return b"".join(number.to_bytes(bits // 8, "little", signed=True) for number in numbers)


@pytest.mark.parametrize(
    ("kind", "bits", "data"),
    [
        *((1, bits, whole(bits)) for bits in (8, 16, 24, 32)),
        *((3, bits, WAVE.astype(f"<f{bits // 8}").tobytes()) for bits in (32, 64)),
    ],
)
def test_every_encoding_is_read(kind: int, bits: int, data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(kind, bits, data))
    samples, rate = read_wav(path)
    assert (samples.tolist(), rate) == (WAVE.tolist(), 8000)
    # The same with the extensible header.
    extra = struct.pack("<HHIH", 22, bits, 4, kind) + bytes(14)
    path.write_bytes(wav(0xFFFE, bits, data, extra=extra))
    assert read_wav(path)[0].tolist() == WAVE.tolist()


def test_channels_are_averaged_and_an_incomplete_end_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(1, 16, whole(16), channels=2)[:-1])
    assert read_wav(path)[0].tolist() == [0.25, -0.125]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"OggS" + bytes(40), "not a WAV file"),
        (wav(1, 16, whole(16))[:12], "is damaged"),
        (wav(1, 16, b""), "has no samples"),
        (wav(1, 16, b"", channels=0), "0 channels"),
        (wav(6, 8, bytes(8)), "encoding"),
        (wav(3, 32, struct.pack("<f", float("nan"))), "NaN"),
    ],
)
def test_files_that_are_no_sound(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    with pytest.raises(ArchError, match=message):
        read_wav(path)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100, 48000])
def test_a_tone_stays_a_tone_at_another_rate(rate: int) -> None:
    tone, wanted = (np.sin(2 * np.pi * 440 * np.arange(r // 2) / r) for r in (rate, 16000))
    found = resample(tone.astype(np.float32), rate, 16000)
    assert abs(len(found) - 8000) <= 1
    inside = slice(200, 7800)
    np.testing.assert_allclose(found[inside], wanted[inside], atol=1e-5)


def test_frequencies_above_the_new_limit_are_removed() -> None:
    high = np.sin(2 * np.pi * 10000 * np.arange(24000) / 48000).astype(np.float32)
    assert np.abs(resample(high, 48000, 16000)[200:-200]).max() < 1e-4


def test_a_tone_is_loudest_in_its_own_bin() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000).astype(np.float32)
    frames = Spectrogram()(tone)
    assert frames.shape == (80, 100)
    # 1 kHz is 15 mels, of 45.2 at 8 kHz: 81 steps on that way.
    assert (frames[:, 10:90].argmax(0) == 26).all()
    assert frames.max() - frames.min() == pytest.approx(2)  # eight decades, by four


def test_the_preprocessor_config_is_used(tmp_path: Path) -> None:
    assert read_spectrogram(tmp_path, 80) == Spectrogram()
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({"feature_size": 128, "hop_length": 80, "dither": 0.0}))
    assert read_spectrogram(tmp_path, 128) == Spectrogram(bins=128, hop=80)
    with pytest.raises(ArchError, match="feature_size"):
        read_spectrogram(tmp_path, 80)
    path.write_text(json.dumps({"dither": 0.1}))
    with pytest.raises(ArchError, match="dither"):
        read_spectrogram(tmp_path, 80)
