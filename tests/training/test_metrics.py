"""The lines of metrics."""

from __future__ import annotations

import math
from pathlib import Path

from archdsl.training import metrics


def test_lines_after_a_step_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / metrics.NAME
    log = metrics.Metrics(path)
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
    again = metrics.Metrics(path)
    again.append(step=4, loss=0.5)
    again.close()
    assert [each["step"] for each in metrics.read(path)] == [1, 2, 3, 4]
