"""SVG -> PNG and PDF, by cairosvg (the extra `figure`)."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from archdsl.diagnostics import fail

SCALE = 3  # pixels for each point: 216 pixels per inch


def png(svg: str) -> bytes:
    """A picture of three pixels for each point."""
    return bytes(_cairosvg().svg2png(bytestring=svg.encode(), scale=SCALE * 0.75))


def pdf(svg: str) -> bytes:
    """A page as large as the figure; texts stay texts."""
    return bytes(_cairosvg().svg2pdf(bytestring=svg.encode()))


def _cairosvg() -> ModuleType:
    try:
        return import_module("cairosvg")
    except (ImportError, OSError) as error:  # OSError: without the library cairo of the system
        fail(
            "file",
            f"PNG and PDF need cairosvg and the library cairo: {error}",
            help="pip install 'archdsl[figure]', and on Debian apt-get install libcairo2; "
            ".svg, .tex and .html need neither",
            cause=error,
        )
