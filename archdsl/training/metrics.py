"""The metrics of a run: `metrics.jsonl`, one object of JSON per line.

A step has `step`, `loss`, `terms` (the loss of each term), `norm`, `rate`, a speed such as
`tokens_per_second`, and `seconds`. An evaluation has `step`, `valid` and `terms`. A sample has
`step` and `sample`. A number that is not finite is null.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from archdsl.files import open_file
from archdsl.formats.atomic import replacing
from archdsl.formats.strict_json import finite
from archdsl.training.checkpoints import cleaning

NAME = "metrics.jsonl"


class Metrics:
    """Appends lines to the metrics of a run; `mirror` gets their entries too."""

    def __init__(self, path: Path, mirror: Callable[[Mapping[str, Any]], None]):
        self._path, self._mirror = path, mirror
        with cleaning(path):
            self._file = path.open("ab", buffering=0)

    def append(self, **entries: Any) -> None:
        """Writes a line. It is safe from the end of this process, not from that of the machine:
        see `flush`."""
        data = (json.dumps(finite(entries), ensure_ascii=False) + "\n").encode()
        with cleaning(self._path):
            while data:
                data = data[self._file.write(data) :]
        self._mirror(entries)

    def flush(self) -> None:
        """Waits until all lines are on the disk."""
        with cleaning(self._path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file that are whole; a killed process may leave a part of one.

    Raises OSError.
    """
    with open_file(path) as stream:
        for line in stream:
            try:
                entries = json.loads(line)
            except ValueError:
                continue
            if isinstance(entries, dict) and type(entries.get("step")) is int:
                yield entries


def truncate(path: Path, step: int) -> None:
    """Drops what came after a step, which will be computed again."""
    if not path.exists():
        return
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for entries in read(path):
            if entries["step"] <= step:
                stream.write(json.dumps(entries, ensure_ascii=False) + "\n")
