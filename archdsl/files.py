"""Opens the files that a user or another file names: regular files only.

A folder, a device such as /dev/zero and a named pipe are refused before anything is read:
reading them may never end. `read_bytes` also bounds the size.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

MOST = 1 << 30  # bytes of a file that is read at once


def open_file(path: str | Path) -> BinaryIO:
    """Opens a regular file for reading bytes; raises OSError for anything else."""
    # Without O_NONBLOCK, opening a named pipe waits for its writer.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError:  # a NUL character
        raise OSError(errno.EINVAL, "the name is not valid", str(path)) from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kind = "it is a folder" if stat.S_ISDIR(mode) else "it is not a regular file"
        raise OSError(errno.EINVAL, kind, str(path))
    return os.fdopen(descriptor, "rb")


def read_bytes(path: str | Path, most: int = MOST) -> bytes:
    """Returns the content of a regular file; raises OSError if it has more than `most` bytes.

    >>> read_bytes("/dev/zero")
    Traceback (most recent call last):
    OSError: [Errno 22] it is not a regular file: '/dev/zero'
    """
    with open_file(path) as stream:
        # Some files of /proc have the size 0, and content.
        size = os.fstat(stream.fileno()).st_size
        data = b""
        if size <= most:
            # `read` allocates what it is asked for.
            data = stream.read(min(size, most) + 1)
            if len(data) > size:
                data += stream.read(most - len(data) + 1)
    if max(size, len(data)) > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes", str(path))
    return data
