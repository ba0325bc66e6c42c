"""Sound files as numbers: WAV, another sampling rate, and the log-mel frames of speech models.

What a model hears in them is left to `speech`.
"""

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
from archdsl.formats.strict_json import read_object

Samples: TypeAlias = NDArray[np.float32]

_EXTENSIBLE = 0xFFFE  # the encoding stands further on
_CROSSINGS = 32  # of the resampling filter, to each side
_BETA = 9.0  # of its window, which leaves less than 90 dB of what it should take away


def read_wav(path: str | Path) -> tuple[Samples, int]:
    """The samples of a WAV file, -1 to 1, its channels averaged, and how many are a second.

    Whole numbers of 8, 16, 24 and 32 bits, and floats of 32 and 64. Raises `ArchError` "file"
    where the file is not one of these.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        fail("file", f"`{path}` cannot be heard: {error.strerror or str(error)}", cause=error)
    if (data[:4], data[8:12]) != (b"RIFF", b"WAVE"):
        fail(
            "file",
            f"`{path}` cannot be heard: it is not a WAV file",
            help=f"ffmpeg -i {path} -ar 16000 -ac 1 x.wav",
        )
    chunks = _chunks(data)
    head = chunks.get(b"fmt ", b"")
    if len(head) < 16 or b"data" not in chunks:
        fail(
            "file",
            f"`{path}` cannot be heard: the file is damaged: it has no format, or no sound",
        )
    kind, channels, rate, _, _, bits = struct.unpack("<HHIIHH", head[:16])
    if kind == _EXTENSIBLE and len(head) >= 26:
        (kind,) = struct.unpack("<H", head[24:26])
    sound = _decoded(chunks[b"data"], kind, bits)
    if sound is None or not channels or not rate:
        encoding = f"encoding {kind} of {bits} bits, {channels} channels, {rate} Hz"
        fail(
            "file",
            f"`{path}` cannot be heard: {encoding} is not known",
            help="save it as 16-bit PCM",
        )
    sound = sound[: len(sound) // channels * channels]
    if not len(sound) or not np.isfinite(sound).all():
        reason = "it has NaNs" if len(sound) else "there is no sound in it"
        fail("file", f"`{path}` cannot be heard: {reason}")
    return sound.reshape(-1, channels).mean(1).astype(np.float32), rate


def resample(samples: Samples, rate: int, wanted: int) -> Samples:
    """The same sound at another rate, without what the new rate cannot carry.

    A sinc under Kaiser's window, one set of taps for each phase (Smith, "Digital Audio
    Resampling", 2002).
    """
    common = math.gcd(rate, wanted)
    up, down = wanted // common, rate // common
    if up == down:
        return samples
    slower = max(1.0, down / up)  # how much longer the filter is to cut at the lower rate
    half = math.ceil(_CROSSINGS * slower)
    around = np.pad(samples.astype(np.float64), half)
    frames = sliding_window_view(around, 2 * half + 1)
    found = np.empty(-(-len(samples) * up // down))
    for phase in range(min(up, len(found))):
        whole, part = divmod(phase * down, up)
        times = (np.arange(-half, half + 1) - part / up) / slower
        inside = np.clip(1 - (times / _CROSSINGS) ** 2, 0, None)
        taps = np.sinc(times) * np.i0(_BETA * np.sqrt(inside)) / np.i0(_BETA) * (inside > 0)
        count = len(found[phase::up])
        found[phase::up] = frames[whole::down][:count] @ (taps / slower)
    return found.astype(np.float32)


@dataclass(frozen=True)
class Spectrogram:
    """Log-mel frames as Whisper hears them (Radford et al. 2022, section 2.2).

    `window` and `hop` are in samples, of which `rate` are a second.
    """

    bins: int = 80
    rate: int = 16000
    window: int = 400
    hop: int = 160

    def __call__(self, samples: Samples) -> NDArray[np.float32]:
        """Samples [frames * hop] as [bins, frames]: log10 of the power, eight decades at most,
        moved and scaled to about -1 to 1."""
        around = np.pad(samples.astype(np.float64), self.window // 2, mode="reflect")
        frames = sliding_window_view(around, self.window)[: -1 : self.hop]
        hann = np.hanning(self.window + 1)[:-1]
        power = np.abs(np.fft.rfft(frames * hann)) ** 2  # [frames, 1 + window // 2]
        logs = np.log10(np.maximum(_mel(self) @ power.T, 1e-10))
        return np.asarray((np.maximum(logs, logs.max() - 8) + 4) / 4, np.float32)


def read_spectrogram(folder: Path, bins: int) -> Spectrogram:
    """What a folder's `preprocessor_config.json` says, and Whisper's own where there is none.

    Raises `ArchError` "config" where it asks for what is not computed here.
    """
    path = folder / "preprocessor_config.json"
    usual = Spectrogram(bins)
    if not path.is_file():
        return usual
    found = read_object(path, "a preprocessor's config")
    asked = {
        "feature_size": bins,
        "padding_side": "right",
        "padding_value": 0,
        "dither": 0,
        "do_normalize": False,
    }
    for name, only in asked.items():
        if (found.get(name) or 0) != only and name in found:
            _fail_config(path, name, str(only), str(found[name]))
    numbers = [
        found.get(name, each)
        for name, each in (
            ("sampling_rate", usual.rate),
            ("n_fft", usual.window),
            ("hop_length", usual.hop),
        )
    ]
    for number in numbers:
        if type(number) is not int or number < 1:
            _fail_config(path, "sampling_rate, n_fft or hop_length", "a number", str(number))
    return Spectrogram(bins, *numbers)


def _mel(settings: Spectrogram) -> NDArray[np.float64]:
    """Triangles [bins, 1 + window // 2] of equal area, evenly spaced in mel to half the rate.

    The mel scale and the areas are those of Slaney's "Auditory Toolbox" (1998): linear up to
    1 kHz, 200/3 Hz a mel, and from there 27 mels for a factor of 6.4.
    """
    top = 15 + 27 * math.log(settings.rate / 2 / 1000) / math.log(6.4)
    mels = np.linspace(0, top, settings.bins + 2)
    corners = np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))
    heard = np.arange(1 + settings.window // 2) * settings.rate / settings.window
    low, middle, high = (corners[i : i + settings.bins, None] for i in range(3))
    rising, falling = (heard - low) / (middle - low), (high - heard) / (high - middle)
    return np.asarray(np.maximum(np.minimum(rising, falling), 0) * 2 / (high - low))


def _chunks(data: bytes) -> dict[bytes, bytes]:
    """The parts of a RIFF file by name; the last may be short, where recording broke off."""
    found: dict[bytes, bytes] = {}
    place = 12
    while place + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, place)
        found.setdefault(name, data[place + 8 : place + 8 + size])
        place += 8 + size + size % 2
    return found


def _decoded(data: bytes, kind: int, bits: int) -> NDArray[Any] | None:
    """The samples of all channels, one after the other; None for an unknown encoding."""
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
    message = f"{path}: `{name}` is not what is computed here"
    fail("config", message, expected=expected, found=found)
