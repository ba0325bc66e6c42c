"""The folder of what archdsl keeps between runs because it takes a while to make.

Nothing in it is needed: what is gone, damaged, or made by another version is made again.
"""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/archdsl`, which may not be there yet."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "archdsl"
