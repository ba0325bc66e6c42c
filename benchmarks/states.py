"""Mamba-2, 129 million weights: prompts of growing length, and tokens behind them.

The time of a prompt should grow as its length does, and that of a token should not grow.
"""

from __future__ import annotations

from pathlib import Path

from archdsl.bench import candidates
from archdsl.bench.candidates import Subject, save_subject
from archdsl.bench.results import Workload
from archdsl.bench.runner import Candidate
from archdsl.graph.cost import cost

TORCH = ("torch", "transformers")
SMALL = {"vocab": 100, "D": 32, "heads": 4, "head_size": 16, "states": 8, "depth": 2}


def workloads(folder: Path, small: bool) -> list[Workload]:
    model = save_subject(folder, "mamba2.arch", SMALL if small else {}, "CPU")
    lengths, new = ((8, 16), 2) if small else ((512, 2048, 8192, 16384), 16)
    return [
        *(prefill(model, length) for length in lengths),
        *(decode(model, length, new) for length in (lengths[0], lengths[-1])),
    ]


def prefill(model: Subject, length: int) -> Workload:
    options = {"subject": model, "length": length}
    return Workload(
        f"Mamba-2, prefill of {length}",
        (
            Candidate("archdsl", candidates.prefill, options),
            Candidate("PyTorch", candidates.transformers_prefill, options, TORCH),
        ),
        "tokens",
        length,
        flops=cost(model.graph(), {"T": length}).flops,
    )


def decode(model: Subject, length: int, new: int) -> Workload:
    options = {"subject": model, "length": length, "new": new}
    return Workload(
        f"Mamba-2, decoding behind {length}",
        (
            Candidate("archdsl", candidates.decode, options),
            Candidate("PyTorch", candidates.transformers_decode, options, TORCH),
        ),
        "tokens",
        new,
        bytes=new * candidates.read_bytes(model.graph(), model.dtype),
    )
