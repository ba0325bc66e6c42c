"""Reads images by Pillow, in the formats in which they are exchanged."""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from archdsl.diagnostics import fail, listing
from archdsl.files import open_file
from archdsl.limits import check_limit, most_of

PREPROCESSOR = "preprocessor_config.json"  # how a checkpoint's images become pixels

# Pillow reads other formats with far less tested code.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

_one_reader = threading.Lock()  # Pillow's limit belongs to the process


def read_image(path: str | Path | bytes) -> Any:
    """Reads a Pillow image in RGB, rotated by its EXIF orientation; transparent pixels become
    white. `path` is a file, or its content.

    Raises `ArchError`: "file" if it cannot be read or Pillow is missing, "limit" if it is too
    large.
    """
    pillow = _pillow()
    from PIL import ImageOps

    name = "the image" if isinstance(path, bytes) else f"`{path}`"

    try:
        content = io.BytesIO(path) if isinstance(path, bytes) else open_file(path)
        with content as file, _open_image(pillow, file, name.strip("`")) as opened:
            picture = ImageOps.exif_transpose(opened)
            if "A" in picture.getbands() or "transparency" in picture.info:
                white = pillow.new("RGBA", picture.size, "white")
                picture = pillow.alpha_composite(white, picture.convert("RGBA"))
            return picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, pillow.DecompressionBombError) as error:
        # Pillow's own messages are unclear; it reports some damage as SyntaxError.
        reason = getattr(error, "strerror", None) or "it is not an image that Pillow can read"
        expected = f"an image in one of the formats {listing(_FORMATS)}"
        fail("file", f"cannot read {name}: {reason}", expected=expected, cause=error)


@contextmanager
def _open_image(pillow: Any, file: BinaryIO, path: str | Path) -> Iterator[Any]:
    """Opens an image without decoding it. In the block, our limit replaces Pillow's."""
    with _one_reader:
        before = pillow.MAX_IMAGE_PIXELS
        try:
            pillow.MAX_IMAGE_PIXELS = None  # the size is not known yet
            with pillow.open(file, formats=_FORMATS) as opened:
                check_limit("image_pixels", math.prod(opened.size), path)
                pillow.MAX_IMAGE_PIXELS = most_of("image_pixels")  # for parts of a file
                yield opened
        finally:
            pillow.MAX_IMAGE_PIXELS = before


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        fail(
            "file",
            "reading images needs the package Pillow, which is not installed",
            help="pip install 'archdsl[images]'",
            cause=error,
        )
    return Image
