"""Replacing a file whole: whoever reads it finds the old content or the new, never a half."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from archdsl.diagnostics import fail


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path in the folder of `path`, which takes the place of `path` at the end.

    The file at the temporary path exists and is empty. When the block ends it is flushed to
    the disk and renamed; when the block raises, it is removed and `path` is as before. A link
    is followed, and a file that is replaced keeps its permissions.

    Raises ArchError (`file`) where the file cannot be written.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "a.txt"
    >>> with replacing(target) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".archdsl-{secrets.token_hex(8)}.partial")
    try:
        if target.exists() and not target.is_file():
            fail(
                "file",
                f"{path}: cannot be written: it is not a regular file",
                help="give the path of a file",
            )
        temporary.touch(exist_ok=False)
        try:
            yield temporary
            if target.exists():
                shutil.copymode(target, temporary)
            _flush(temporary)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        if os.name == "posix":
            _flush(target.parent)  # where the new name stands
    except OSError as error:
        # Not every OSError of the block is about this file: one of another file goes on.
        if error.filename not in (None, str(temporary), str(target)):
            raise
        missing = isinstance(error, FileNotFoundError) and not target.parent.exists()
        help = f"mkdir -p {target.parent}" if missing else "give a path that can be written"
        fail(
            "file",
            f"{path}: cannot be written: {error.strerror or str(error)}",
            help=help,
            cause=error,
        )


def _flush(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
