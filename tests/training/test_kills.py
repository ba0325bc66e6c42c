"""A run that is killed at any moments ends with the weights of one that is not.

The processes do nothing but write checkpoints and metrics most of the time.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.training.fakes import computed

ROOT = Path(__file__).parents[2]


def run(folder: Path, kind: str, steps: int, kill_after: float | None = None) -> float:
    """Trains in a process, which is killed so many seconds after its first step; returns the
    seconds from its first step to its end."""
    command = [sys.executable, "-m", "tests.training.train_once", str(folder), kind, str(steps)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ARCHDSL_PROGRAMS": "1"}
    environment["XDG_CACHE_HOME"] = str(folder.parent / "cache")
    with subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        begin = time.perf_counter()
        if kill_after is not None:
            time.sleep(kill_after)
            process.kill()
        assert process.wait() == (0 if kill_after is None else -9)
    return time.perf_counter() - begin


@pytest.mark.parametrize(
    ("kind", "kills", "steps"),
    [
        pytest.param("array", 3, 100, marks=pytest.mark.long),
        pytest.param("compiled", 20, 600, marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_ends_with_the_same_weights(
    tmp_path: Path, kind: str, kills: int, steps: int
) -> None:
    seconds = run(tmp_path / "whole", kind, steps)
    rng = random.Random(kills)
    for _ in range(kills):
        run(tmp_path / "killed", kind, steps, rng.uniform(0, 0.8 * seconds / kills))
    run(tmp_path / "killed", kind, steps)
    assert computed(tmp_path / "killed") == computed(tmp_path / "whole")
