"""Sound files: reading WAV, resampling, and the log-mel spectrogram of speech models."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from archdsl.diagnostics import fail
from archdsl.files import read_bytes
from archdsl.formats.strict_json import read_object
from archdsl.limits import check_limit

Samples: TypeAlias = NDArray[np.float32]

_LOWEST_RATE = 1000  # Hz; a filter for lower ones would be very long
_EXTENSIBLE = 0xFFFE  # the encoding is in a later field
_CROSSINGS = 32  # zero crossings of the resampling filter on each side
_BETA = 9.0  # of its Kaiser window; aliases are attenuated by more than 90 dB


def read_wav(path: str | Path) -> tuple[Samples, int]:
    """Reads a WAV file: its samples, -1 to 1, with channels averaged, and its sampling rate.

    Supports integers of 8, 16, 24 and 32 bits, and floats of 32 and 64 bits. Raises
    `ArchError` "file" for other files, and "limit" for those that are too long.
    """
    try:
        data = read_bytes(path)
    except OSError as error:
        fail("file", f"cannot read `{path}`: {error.strerror or str(error)}", cause=error)
    if (data[:4], data[8:12]) != (b"RIFF", b"WAVE"):
        fail(
            "file",
            f"`{path}` is not a WAV file",
            help=f"convert it: `ffmpeg -i {path} -ar 16000 -ac 1 x.wav`",
        )
    chunks = _chunks(data)
    head = chunks.get(b"fmt ", b"")
    if len(head) < 16 or b"data" not in chunks:
        fail(
            "file",
            f"`{path}` is damaged: its format or its samples are missing",
        )
    kind, channels, rate, _, _, bits = struct.unpack("<HHIIHH", head[:16])
    if kind == _EXTENSIBLE and len(head) >= 26:
        (kind,) = struct.unpack("<H", head[24:26])
    if kind in (1, 3) and channels and bits >= 8:
        frames = len(chunks[b"data"]) // (channels * bits // 8)
        check_limit("sound_samples", frames, path)
    check_limit("sound_rate", rate, path)
    sound = _decode(chunks[b"data"], kind, bits)
    if sound is None or not channels or rate < _LOWEST_RATE:
        encoding = f"encoding {kind} of {bits} bits, {channels} channels, {rate} Hz"
        fail(
            "file",
            f"the encoding of `{path}` is not supported",
            expected="PCM of 8, 16, 24 or 32 bits, or floats of 32 or 64 bits, at "
            f"{_LOWEST_RATE} Hz or more",
            found=encoding,
            help="save the file as 16-bit PCM",
        )
    sound = sound[: len(sound) // channels * channels]
    if not len(sound) or not np.isfinite(sound).all():
        reason = "has samples that are NaN or infinite" if len(sound) else "has no samples"
        fail("file", f"`{path}` {reason}")
    return sound.reshape(-1, channels).mean(1).astype(np.float32), rate


def resample(samples: Samples, rate: int, wanted: int) -> Samples:
    """Resamples a sound; frequencies above half the new rate are filtered out.

    The filter is a sinc with a Kaiser window, one set of taps per phase (Smith, "Digital Audio
    Resampling", 2002). Raises `ArchError` "limit" if the result is too long.
    """
    check_limit("sound_samples", len(samples) * wanted // rate, "the resampled sound")
    common = math.gcd(rate, wanted)
    up, down = wanted // common, rate // common
    if up == down:
        return samples
    stretch = max(1.0, down / up)  # the filter is longer if the rate goes down
    half = math.ceil(_CROSSINGS * stretch)
    padded = np.pad(samples.astype(np.float64), half)
    frames = sliding_window_view(padded, 2 * half + 1)
    found = np.empty(-(-len(samples) * up // down), np.float32)
    for phase in range(min(up, len(found))):
        whole, part = divmod(phase * down, up)
        times = (np.arange(-half, half + 1) - part / up) / stretch
        inside = np.clip(1 - (times / _CROSSINGS) ** 2, 0, None)
        taps = np.sinc(times) * np.i0(_BETA * np.sqrt(inside)) / np.i0(_BETA) * (inside > 0)
        count = len(found[phase::up])
        found[phase::up] = frames[whole::down][:count] @ (taps / stretch)
    return found


@dataclass(frozen=True)
class Spectrogram:
    """The log-mel spectrogram of Whisper (Radford et al. 2022, section 2.2).

    `window` and `hop` are in samples, `rate` in samples per second.
    """

    bins: int = 80
    rate: int = 16000
    window: int = 400
    hop: int = 160

    def __call__(self, samples: Samples) -> NDArray[np.float32]:
        """Returns [bins, frames] of samples [frames * hop]: log10 of the power.

        Values more than eight decades below the maximum are clipped, then all are scaled to
        about -1 to 1.
        """
        padded = np.pad(samples.astype(np.float64), self.window // 2, mode="reflect")
        frames = sliding_window_view(padded, self.window)[: -1 : self.hop]
        hann = np.hanning(self.window + 1)[:-1]
        power = np.abs(np.fft.rfft(frames * hann)) ** 2  # [frames, 1 + window // 2]
        logs = np.log10(np.maximum(_mel(self) @ power.T, 1e-10))
        return np.asarray((np.maximum(logs, logs.max() - 8) + 4) / 4, np.float32)


def read_spectrogram(folder: Path, bins: int) -> Spectrogram:
    """Reads a folder's `preprocessor_config.json`; without it, Whisper's values are used.

    Raises `ArchError` "config" for values that are not supported, and "limit" for those that
    are too large.
    """
    path = folder / "preprocessor_config.json"
    default = Spectrogram(bins)
    if not path.is_file():
        return default
    found = read_object(path, "a preprocessor's config")
    supported = {
        "feature_size": bins,
        "padding_side": "right",
        "padding_value": 0,
        "dither": 0,
        "do_normalize": False,
    }
    for name, only in supported.items():
        if (found.get(name) or 0) != only and name in found:
            _fail_config(path, name, str(only), str(found[name]))
    numbers = []
    for name, limit, least, usual in (
        ("sampling_rate", "sound_rate", _LOWEST_RATE, default.rate),
        ("n_fft", "n_fft", 2, default.window),
        ("hop_length", "hop_length", 1, default.hop),
    ):
        number = found.get(name, usual)
        if type(number) is not int or number < least:
            _fail_config(path, name, f"a whole number of {least} or more", str(number)[:80])
        check_limit(limit, number, f"{path}: `{name}`")
        numbers.append(number)
    return Spectrogram(bins, *numbers)


def _mel(settings: Spectrogram) -> NDArray[np.float64]:
    """Returns the mel filters [bins, 1 + window // 2]: triangles of equal area.

    They are evenly spaced in mel, up to half the rate. The mel scale and the areas are those of
    Slaney's "Auditory Toolbox" (1998): linear up to 1 kHz with 200/3 Hz per mel, then
    logarithmic with 27 mels per factor of 6.4.
    """
    top = 15 + 27 * math.log(settings.rate / 2 / 1000) / math.log(6.4)
    mels = np.linspace(0, top, settings.bins + 2)
    corners = np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))
    frequencies = np.arange(1 + settings.window // 2) * settings.rate / settings.window
    low, middle, high = (corners[i : i + settings.bins, None] for i in range(3))
    rising, falling = (
        (frequencies - low) / (middle - low),
        (high - frequencies) / (high - middle),
    )
    return np.asarray(np.maximum(np.minimum(rising, falling), 0) * 2 / (high - low))


def _chunks(data: bytes) -> dict[bytes, bytes]:
    """Returns the chunks of a RIFF file by name; the last one may be incomplete."""
    found: dict[bytes, bytes] = {}
    place = 12
    while place + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, place)
        found.setdefault(name, data[place + 8 : place + 8 + size])
        place += 8 + size + size % 2
    return found


def _decode(data: bytes, kind: int, bits: int) -> NDArray[Any] | None:
    """Decodes the interleaved samples of all channels; None for an unknown encoding."""
    data = data[: len(data) // max(bits // 8, 1) * max(bits // 8, 1)]
    match kind, bits:
        case (1, 8):
            return np.frombuffer(data, np.uint8) / 128 - 1
        case (1, 16 | 32):
            return np.frombuffer(data, f"<i{bits // 8}") / 2.0 ** (bits - 1)
        case (1, 24):
            high = np.zeros((len(data) // 3, 4), np.uint8)
            high[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
            return high.view("<i4")[:, 0] / 2.0**31
        case (3, 32 | 64):
            return np.frombuffer(data, f"<f{bits // 8}")
    return None


def _fail_config(path: Path, name: str, expected: str, found: str) -> NoReturn:
    message = f"{path}: this value of `{name}` is not supported"
    fail("config", message, expected=expected, found=found)
