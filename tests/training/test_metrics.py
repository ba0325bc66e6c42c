"""The lines of metrics."""

from __future__ import annotations

import math
import struct
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from archdsl.diagnostics import ArchError
from archdsl.training import metrics
from tests.training.fakes import SETTINGS, fit


def test_lines_after_a_step_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / metrics.NAME
    log = metrics.Metrics(path, lambda entries: None)
    for step in range(1, 5):
        log.append(step=step, loss=step / 3)
    log.append(step=4, valid=math.nan, sample="é\n")
    log.close()
    with path.open("a") as file:
        file.write('{"step": 5, "lo')  # a process was killed
    before = list(metrics.read(path))
    assert before[-1] == {"step": 4, "valid": None, "sample": "é\n"}
    metrics.truncate(path, 3)
    assert list(metrics.read(path)) == before[:3]
    assert before[2]["loss"] == 1.0
    again = metrics.Metrics(path, lambda entries: None)
    again.append(step=4, loss=0.5)
    again.close()
    assert [each["step"] for each in metrics.read(path)] == [1, 2, 3, 4]


BOARD = replace(SETTINGS, steps=4, eval_every=2, tensorboard=True)


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The points that the event files have, by name; those after a restart replace others."""
    from tensorboardX.proto import event_pb2

    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted((folder / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            event = event_pb2.Event.FromString(data[12 : 12 + size])
            data = data[size + 16 :]
            if event.HasField("session_log"):
                for points in found.values():
                    points[:] = [each for each in points if each[0] < event.step]
            for each in event.summary.value:
                found.setdefault(each.tag, []).append((event.step, each.simple_value))
    return found


@pytest.mark.long
@pytest.mark.reference("tensorboardX")
def test_events_are_those_of_the_metrics(tmp_path: Path) -> None:
    def interrupt(event: Any) -> None:
        if getattr(event, "step", 0) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, BOARD, report=interrupt)
    fit(tmp_path, BOARD, resume=True)
    found, lines = events(tmp_path), list(metrics.read(tmp_path / metrics.NAME))
    for name in ("loss", "valid", "rate"):
        right = [(each["step"], pytest.approx(each[name])) for each in lines if name in each]
        assert found[name] == right


def test_events_need_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ArchError, match="needs the package tensorboardX"):
        fit(tmp_path, BOARD)
    monkeypatch.undo()
    assert fit(tmp_path, replace(BOARD, tensorboard=False)).step == 4
