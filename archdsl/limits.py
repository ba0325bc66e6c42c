"""Limits on what a file may claim: sizes that cost much time or memory.

Each is checked against a declared size, before anything is allocated. A user raises one by the
environment variable `ARCHDSL_LIMIT_NAME`, with the name in upper case.
"""

from __future__ import annotations

import os
from pathlib import Path

from archdsl.diagnostics import fail
from archdsl.frozen import Frozen


class Limit(Frozen):
    """The largest allowed number, its unit, and what it limits."""

    most: int
    unit: str
    about: str


LIMITS = {
    "header_bytes": Limit(1 << 23, "bytes", "the header of a safetensors file"),
    "json_bytes": Limit(1 << 25, "bytes", "a config or another JSON file"),
    "pickle_bytes": Limit(1 << 24, "bytes", "the pickle in a PyTorch file, without tensors"),
    "pickle_steps": Limit(1 << 19, "instructions", "the pickle in a PyTorch file"),
    "unpacked_bytes": Limit(1 << 29, "bytes", "the compressed files of an archive, unpacked"),
    "image_pixels": Limit(1 << 26, "pixels", "an image file"),
    "input_pixels": Limit(1 << 24, "pixels", "an image after resizing, and after cropping"),
    "sound_rate": Limit(384_000, "Hz", "the sampling rate of a sound, or of a model's input"),
    "sound_samples": Limit(1 << 28, "samples", "a sound, before and after resampling"),
    "n_fft": Limit(1 << 13, "samples", "the window of a spectrogram"),
    "hop_length": Limit(1 << 12, "samples", "the step between windows of a spectrogram"),
}


def check_limit(name: str, size: int, what: str | Path) -> None:
    """Raises ArchError (`limit`) if a size exceeds a limit; `what` has the size.

    >>> check_limit("image_pixels", 10**9, "cat.png")
    Traceback (most recent call last):
    archdsl.diagnostics.ArchError: error[limit]: cat.png: above the limit `image_pixels`
      = expected: at most 67,108,864 pixels
      = found: 1,000,000,000 pixels
      = help: if you trust the file, set ARCHDSL_LIMIT_IMAGE_PIXELS=1000000000
    """
    most, unit = most_of(name), LIMITS[name].unit
    if size > most:
        # Python refuses to print numbers of thousands of digits.
        digits = f"{size:,}" if size < 10**40 else f"more than {10**40:.0e}"
        help = f"if you trust the file, set {_variable(name)}"
        fail(
            "limit",
            f"{what}: above the limit `{name}`",
            expected=f"at most {most:,} {unit}",
            found=f"{digits} {unit}",
            help=f"{help}={size}" if size < 10**40 else help,
        )


def most_of(name: str) -> int:
    """The limit as it is set: the environment variable, or the default."""
    said = os.environ.get(_variable(name), "")
    if not said:
        return LIMITS[name].most
    if not said.isascii() or not said.isdigit() or len(said) > 40:
        fail(
            "limit",
            f"{_variable(name)} is not a limit",
            expected="a whole number",
            found=repr(said[:80]),
        )
    return int(said)


def _variable(name: str) -> str:
    return f"ARCHDSL_LIMIT_{name.upper()}"
