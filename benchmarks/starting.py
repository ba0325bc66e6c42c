"""Start time of processes: spec to first logits, and `check`; with caches empty or filled."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from archdsl.bench.candidates import save_subject
from archdsl.bench.results import Workload
from archdsl.bench.runner import Call, Candidate

SMALL = ("vocab=100", "context=16", "D=48", "heads=4", "depth=1")

THEIRS = """
import sys, torch, transformers
config = transformers.AutoConfig.from_pretrained(sys.argv[1])
model = getattr(transformers, config.architectures[0]).from_pretrained(sys.argv[1]).eval()
with torch.no_grad():
    model(torch.arange(8)[None]).logits.numpy()
"""


def workloads(folder: Path, small: bool) -> list[Workload]:
    settings = SMALL if small else ()
    given = {name: int(size) for name, _, size in (each.partition("=") for each in settings)}
    model = save_subject(folder, "gpt2.arch", given, "CPU")
    np.save(folder / "tokens.npy", np.arange(8)[None])
    ours = [sys.executable, "-m", "archdsl"]
    spec = ["gpt2.arch", *(word for each in settings for word in ("--set", each))]
    run = [*ours, "run", *spec, "--weights", str(model.weights), "--device", "CPU"]
    run += ["--input", f"tokens={folder / 'tokens.npy'}"]
    peer = [sys.executable, "-c", THEIRS, str(model.published)]
    return [
        Workload(
            f"GPT-2, from nothing to logits, {caches}",
            (
                Candidate("archdsl", process, {"command": run, "cold": cold}),
                Candidate(
                    "PyTorch",
                    process,
                    {"command": peer, "cold": False},
                    ("torch", "transformers"),
                ),
            ),
        )
        for caches, cold in (("caches filled", False), ("caches empty", True))
    ] + [
        Workload(
            "check of GPT-2",
            (Candidate("archdsl", process, {"command": [*ours, "check", *spec]}),),
        )
    ]


def process(command: Sequence[str], cold: bool = False) -> Call:
    """Runs a whole command; with `cold`, all caches are empty."""

    def once() -> None:
        with tempfile.TemporaryDirectory() as empty:
            caches = {"XDG_CACHE_HOME": empty, "CACHEDB": f"{empty}/tinygrad.db"}
            environment = {**os.environ, **(caches if cold else {})}
            # Python may write bytecode files, as for installed packages.
            environment.pop("PYTHONDONTWRITEBYTECODE", None)
            subprocess.run(command, env=environment, check=True, capture_output=True)

    return once
