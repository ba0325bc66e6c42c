"""Replaces a file in one step: a reader sees the old content or the new, never a part."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from archdsl.diagnostics import fail


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path in the folder of `path`; at the end of the block it replaces `path`.

    The temporary file exists and is empty. When the block ends, it is flushed to disk and
    renamed. If the block raises, it is removed and `path` is unchanged. Symbolic links are
    followed, and the permissions of `path` are kept. Temporary files that killed processes left
    in the folder are deleted.

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
        _delete_abandoned(target.parent)
        descriptor = os.open(temporary, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            _lock(descriptor)  # until the end, also of a process that is killed
            yield temporary
            if target.exists():
                shutil.copymode(target, temporary)
            flush(temporary)
            os.replace(temporary, target)
        finally:
            os.close(descriptor)
            temporary.unlink(missing_ok=True)
        if os.name == "posix":
            flush(target.parent)  # which has the new name
    except OSError as error:
        # An OSError about another file is not ours to report.
        if error.filename not in (None, str(temporary), str(target)):
            raise
        help = "give a writable path"
        if isinstance(error, FileNotFoundError) and not target.parent.exists():
            help = f"mkdir -p {target.parent}"
        elif error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            help = "free space on this disk, or give a path on another one"
        fail(
            "file",
            f"{path}: cannot write: {error.strerror or str(error)}",
            help=help,
            cause=error,
        )


def _delete_abandoned(folder: Path) -> None:
    """Deletes temporary files that are a minute old and that no process has locked."""
    for path in folder.glob(".archdsl-*.partial"):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
            try:
                old = time.time() - os.fstat(descriptor).st_mtime > 60
                if old and _lock(descriptor):
                    path.unlink()
            finally:
                os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Locks a file for this process, if the system can; returns whether it did."""
    try:
        import fcntl  # not on Windows

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


def flush(path: Path) -> None:
    """Waits until a file, or the names in a folder, are written to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
