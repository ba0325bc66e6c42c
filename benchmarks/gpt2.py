"""GPT-2, 124 million weights: prefill of a prompt (time to the first token), and decoding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from archdsl.bench import candidates
from archdsl.bench.candidates import Subject, read_bytes, save_subject
from archdsl.bench.results import Workload
from archdsl.bench.runner import Candidate
from archdsl.graph.cost import cost
from archdsl.graph.ops import OPS
from archdsl.graph.sites import sites
from benchmarks import plain_tinygrad

TORCH = ("torch", "transformers")
SMALL = {"vocab": 100, "context": 64, "D": 48, "heads": 4, "depth": 2}


def workloads(folder: Path, small: bool) -> list[Workload]:
    model = save_subject(folder, "gpt2.arch", SMALL if small else {}, "CPU")
    lengths, new = ((16,), 4) if small else ((128, 512, 1024), 32)
    return [*(prefill(model, length) for length in lengths), decode(model, lengths[0], new)]


def prefill(model: Subject, length: int) -> Workload:
    options = {"subject": model, "length": length}
    return Workload(
        f"GPT-2, prefill of {length}",
        (
            Candidate("archdsl", candidates.prefill, options),
            Candidate("PyTorch", candidates.transformers_prefill, options, TORCH),
            Candidate(
                "PyTorch, compiled",
                candidates.transformers_prefill,
                {**options, "compiled": True},
                TORCH,
            ),
            Candidate("plain tinygrad", plain_tinygrad.prefill, options),
        ),
        "tokens",
        length,
        flops=prefill_flops(model, length),
    )


def prefill_flops(model: Subject, length: int) -> float:
    """FLOPs of a prefill: the whole model, with logits of the last token only."""
    graph = model.graph()
    logits = dict(graph.outputs)["logits"]
    ((node, here),) = ((node, here) for node, _, here in sites(graph) if node.id == logits)
    others = OPS[node.op].flops(here).at({"T": length}) * (length - 1) / length
    return cost(graph, {"T": length}).flops - others


def forward(model: Subject, rows: int, length: int) -> Workload:
    options = {"subject": model, "rows": rows, "length": length}
    return Workload(
        f"GPT-2, batch of {rows}",
        (
            Candidate("archdsl", candidates.forward, options),
            Candidate("PyTorch", candidates.transformers_forward, options, TORCH),
        ),
        "rows",
        rows,
        flops=rows * cost(model.graph(), {"T": length}).flops,
    )


def decode(model: Subject, length: int, new: int) -> Workload:
    options = {"subject": model, "length": length, "new": new}
    return Workload(
        f"GPT-2, decoding behind {length}",
        (
            Candidate("archdsl", candidates.decode, options),
            *(
                Candidate(f"archdsl, {bits}", candidates.decode, {**options, "subject": other})
                for bits, other in {
                    "bfloat16": replace(model, dtype="bfloat16"),
                    "8 bits": replace(model, quantize="int8"),
                }.items()
            ),
            Candidate("PyTorch", candidates.transformers_decode, options, TORCH),
            Candidate("plain tinygrad", plain_tinygrad.decode, options),
        ),
        "tokens",
        new,
        bytes=new * read_bytes(model.graph(), model.dtype),
    )
