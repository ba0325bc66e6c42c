"""The metrics of a run as event files of TensorBoard, written by tensorboardX."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from archdsl.diagnostics import fail

NAME = "tensorboard"  # the folder of the event files, in that of a run


@contextmanager
def event_writer(
    folder: Path, step: int, wanted: bool
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A function that writes the numbers of a line of metrics, in the folder of a run.

    `step` is where the run begins or continues: TensorBoard drops later points of an earlier
    start. If the events are not `wanted`, the function does nothing. Raises `ArchError`
    (`file`) if tensorboardX is missing.
    """
    if not wanted:
        yield lambda entries: None
        return
    writer = _library().SummaryWriter(
        str(folder / NAME), purge_step=step + 1, filename_suffix=f".{step}"
    )

    def write(entries: Mapping[str, Any]) -> None:
        for name, value in entries.items():
            if name != "step" and isinstance(value, float):
                writer.add_scalar(name, value, entries["step"])
        texts = {name: value for name, value in entries.items() if isinstance(value, str)}
        for name, value in texts.items():
            writer.add_text(name, value, entries["step"])

    try:
        yield write
    finally:
        writer.close()


def _library() -> Any:
    try:
        return import_module("tensorboardX")
    except ImportError as error:
        fail(
            "file",
            "`tensorboard` needs the package tensorboardX",
            help="pip install 'archdsl[tensorboard]'",
            cause=error,
        )
