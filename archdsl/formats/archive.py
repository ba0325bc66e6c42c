"""Opens zip archives of tensors, after a check of the sizes that they declare."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from archdsl.files import open_file
from archdsl.limits import check_limit


@contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """An archive whose entries fit into its file, and into the limit where compressed.

    Raises ArchError (`limit`) for compressed entries beyond the limit `unpacked_bytes`, and
    ValueError for others that overlap.
    """
    with open_file(path) as file, zipfile.ZipFile(file) as archive:
        stored = unpacked = 0
        for info in archive.infolist():
            if info.compress_type == zipfile.ZIP_STORED:
                stored += info.file_size
            else:
                unpacked += info.file_size
        check_limit("unpacked_bytes", unpacked, path)
        size = os.fstat(file.fileno()).st_size
        if stored > size:
            raise ValueError(f"entries of {stored} bytes in a file of {size} bytes")
        yield archive
