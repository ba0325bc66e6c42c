"""tinygrad's cache on disk, with a checksum of each entry: a part of the seam with tinygrad.

tinygrad keeps compiled kernels in an SQLite file and runs what it finds there. Here an entry
is stored with a checksum of its table, key and value, under a table's name of its own. An
entry that does not match is made again. A file that SQLite cannot read is deleted.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sqlite3
import sys
from typing import Any, TypeAlias

from tinygrad import helpers
from tinygrad.helpers import diskcache_get as _get
from tinygrad.helpers import diskcache_put as _put

from archdsl.cache import digest

Key: TypeAlias = "dict[str, Any] | str | int"

_SUFFIX = "_checked"


def diskcache_get(table: str, key: Key) -> Any:
    """Returns what was stored for a key, or None if it is missing or damaged."""
    try:
        stored = _get(table + _SUFFIX, key)
    except Exception as error:  # SQLite or pickle may raise anything for a damaged file
        _recover(error)
        return None
    match stored:
        case (bytes(checksum), bytes(content)) if checksum == _checksum(table, key, content):
            return pickle.loads(content)
    return None


def diskcache_put(table: str, key: Key, val: Any, prepickled: bool = False) -> Any:
    """Stores a value for a key, and returns it. What cannot be stored is left out."""
    if helpers.CACHELEVEL >= 1:
        content = val if prepickled else pickle.dumps(val)
        entry = (_checksum(table, key, content), content)
        try:
            _put(table + _SUFFIX, key, entry)
        except (sqlite3.Error, OSError) as error:
            if _recover(error):
                with contextlib.suppress(sqlite3.Error, OSError):
                    _put(table + _SUFFIX, key, entry)
    return val


def _checksum(table: str, key: Key, content: bytes) -> bytes:
    return digest([repr((table, key)).encode(), content])


def _recover(error: Exception) -> bool:
    """Deletes the file if it is damaged, so that the next access creates it; returns whether it
    was."""
    connection = vars(helpers)["_db_connection"]
    # The subclasses, such as OperationalError, are for a locked file, a full disk and the like.
    if type(error) is not sqlite3.DatabaseError:
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.rollback()  # else other processes would wait for its end
        return False
    if connection is not None:
        with contextlib.suppress(sqlite3.Error):
            connection.close()
    vars(helpers)["_db_connection"] = None
    vars(helpers)["_db_tables"].clear()
    for suffix in ("", "-wal", "-shm"):  # an old log would be applied to the new file
        with contextlib.suppress(OSError):
            os.unlink(helpers.CACHEDB + suffix)
    return True


def _install() -> None:
    """Has all of tinygrad use these two functions."""
    modules = [each for name, each in list(sys.modules.items()) if name.startswith("tinygrad")]
    for before, after in ((_get, diskcache_get), (_put, diskcache_put)):
        for module in modules:
            if vars(module).get(before.__name__) is before:
                vars(module)[before.__name__] = after


_install()
