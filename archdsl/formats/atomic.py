"""Replaces a file in one step: a reader sees the old content or the new, never a part."""

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
    """A temporary path in the folder of `path`; at the end of the block it replaces `path`.

    The temporary file exists and is empty. When the block ends, it is flushed to disk and
    renamed. If the block raises, it is removed and `path` is unchanged. Symbolic links are
    followed, and the permissions of `path` are kept.

    Raises ArchError (`file`) if the file cannot be written.

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
                f"{path}: cannot write: not a regular file",
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
            _flush(target.parent)  # which has the new name
    except OSError as error:
        # An OSError about another file is not ours to report.
        if error.filename not in (None, str(temporary), str(target)):
            raise
        missing = isinstance(error, FileNotFoundError) and not target.parent.exists()
        help = f"mkdir -p {target.parent}" if missing else "give a writable path"
        fail(
            "file",
            f"{path}: cannot write: {error.strerror or str(error)}",
            help=help,
            cause=error,
        )


def _flush(path: Path) -> None:
    """Waits until a file or folder is written to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
