"""A process that trains: `python -m tests.training.train_once FOLDER compiled|array STEPS`.

It continues the run of the folder if there is one, and prints a line when its first step is
done.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from archdsl.training.events import Event
from tests.training import fakes
from tests.training.test_fit import compiled

SETTINGS = {"batch": 4, "eval_every": 7, "save_every": 3, "learning_rate": 0.01, "keep": 1}


def main(folder: Path, kind: str, steps: int) -> None:
    started = False

    def report(event: Any) -> None:
        nonlocal started
        if isinstance(event, Event) and not started:
            sys.stdout.write("started\n")
            sys.stdout.flush()
            started = True

    options: Any = {"resume": folder.exists(), "report": report}
    if kind == "compiled":
        options |= {**SETTINGS, "steps": steps, "ema": 0.9}
        compiled().fit(folder, data=fakes.DATA, **options)
    else:
        changes: Any = SETTINGS
        fakes.fit(folder, replace(fakes.SETTINGS, steps=steps, **changes), **options)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
