"""Runs in numbers: how far they are, their losses, and the settings in which they differ."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from archdsl.diagnostics import fail
from archdsl.frozen import Frozen
from archdsl.training import metrics
from archdsl.training.run_folder import read_environment, read_settings, read_spec
from archdsl.training.run_lock import is_locked
from archdsl.training.trained import SETTINGS

RECENT = 20  # steps over which the loss and the speed are taken
_DEEPEST = 3  # folders below a given one
_SPEED = "_per_second"


class Summary(Frozen):
    """A run so far.

    - `loss` is the mean over the last 20 steps, `valid` the last validation loss, `best_valid`
      the least one, at `best_step`.
    - `rate` is the learning rate of the last step, `speed` the median over the last 20, in
      `unit`s per second.
    - `state` is "running" if a process trains, "complete" after the last step, else "stopped".
    - `model` is the name of the model, `spec` the text of it.
    """

    folder: str
    state: str
    step: int
    steps: int
    loss: float | None
    valid: float | None
    best_step: int | None
    best_valid: float | None
    rate: float | None
    speed: float | None
    unit: str
    seconds: float
    model: str
    data: str
    dtype: str
    spec: str
    settings: Mapping[str, Any]


def find_runs(folder: Path) -> list[Path]:
    """The runs in a folder, or the folder itself, by name. Raises `ArchError` without any."""
    found = [
        each.parent
        for depth in range(_DEEPEST + 1)
        for each in folder.glob("*/" * depth + SETTINGS)
        if (each.parent / metrics.NAME).is_file()
    ]
    if not found:
        fail(
            "file",
            f"{folder}: there is no run",
            expected=f"a folder with {SETTINGS} and {metrics.NAME}, or folders in it that have",
        )
    return sorted(found)


def summarize(folder: Path) -> Summary:
    """The summary of a run. Raises `ArchError` if a file of it cannot be read."""
    settings, environment = read_settings(folder), read_environment(folder)
    spec = read_spec(folder)
    recent: deque[dict[str, Any]] = deque(maxlen=RECENT)
    valid: dict[int, float] = {}
    try:
        for each in metrics.read(folder / metrics.NAME):
            if "loss" in each:
                recent.append(each)
            if each.get("valid") is not None:
                valid[each["step"]] = each["valid"]
    except OSError as error:
        fail("file", f"{folder / metrics.NAME}: cannot read: {error.strerror}", cause=error)
    last: dict[str, Any] = recent[-1] if recent else {"step": 0, "seconds": 0.0}
    speed = next((name for name in last if name.endswith(_SPEED)), f"tokens{_SPEED}")
    losses = [each["loss"] for each in recent if each["loss"] is not None]
    best = min(valid, key=lambda step: valid[step], default=None)
    return Summary(
        str(folder),
        _state(folder, last["step"], settings.steps),
        last["step"],
        settings.steps,
        sum(losses) / len(losses) if losses else None,
        valid[max(valid)] if valid else None,
        best,
        None if best is None else valid[best],
        last.get("rate"),
        median(each[speed] for each in recent) if recent else None,
        speed.removesuffix(_SPEED),
        last["seconds"],
        next((line.split()[1] for line in spec.splitlines() if line.startswith("model ")), ""),
        str(environment.get("data")),
        str(environment.get("dtype")),
        spec,
        asdict(settings),
    )


def differing(runs: Sequence[Summary]) -> dict[str, list[Any]]:
    """What differs between runs: settings, data, dtype, and the model; one value per run."""
    rows = {"data": [each.data for each in runs], "dtype": [each.dtype for each in runs]}
    rows |= {name: [each.settings[name] for each in runs] for name in runs[0].settings}
    specs = list(dict.fromkeys(each.spec for each in runs))
    rows["model"] = [f"{each.model} {specs.index(each.spec) + 1}" for each in runs]
    return {name: row for name, row in rows.items() if any(each != row[0] for each in row)}


def _state(folder: Path, step: int, steps: int) -> str:
    if is_locked(folder):
        return "running"
    return "complete" if step >= steps else "stopped"
