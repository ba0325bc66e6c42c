"""Finds the model of a run: its spec, its best weights and its tokenizer.

It imports nothing that takes long, so every command can look whether a path is a run.
"""

from __future__ import annotations

from pathlib import Path

from archdsl.diagnostics import fail
from archdsl.frozen import Frozen

SPEC, SETTINGS, MODEL = "spec.arch", "settings.toml", "model.safetensors"
CHECKPOINTS, LAST, BEST, ADAPTER = "checkpoints", "last", "best", "adapter"


class TrainedRun(Frozen):
    """The folder of a run, the weights of one of its checkpoints, and its tokenizer."""

    folder: Path
    weights: Path
    tokenizer: Path | None

    @property
    def spec(self) -> Path:
        return self.folder / SPEC


def find_run(path: str | Path) -> TrainedRun | None:
    """The run of a folder, with the weights of the least validation loss, or without
    validation the last ones. The path may also be `best`, `last` or `checkpoints/STEP` in it.

    None if the path is no run. Raises `ArchError` (`file`) if the run has no checkpoint.
    """
    place = Path(path).absolute()
    folders = (place, place.parent, place.parent.parent)
    folder = next((each for each in folders if (each / SETTINGS).is_file()), None)
    if folder is None or not (folder / SPEC).is_file():
        return None
    if place == folder:
        places = [folder / name / MODEL for name in (BEST, LAST)]
    elif place.name in (BEST, LAST) or place.parent.name == CHECKPOINTS:
        places = [place / MODEL]
    else:
        return None
    weights = next((each for each in places if each.is_file()), None)
    if weights is None:
        fail(
            "file",
            f"{path}: the run has no checkpoint",
            expected=f"{places[-1]}",
            help="a run writes its first checkpoint before its first step",
        )
    return TrainedRun(folder, weights, next(iter(sorted(folder.glob("tokenizer*"))), None))
