"""A training step with AdamW: a small GPT, and ViT-Ti."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from archdsl.bench.candidates import INPUT_NAMES, Subject, inputs, save_subject
from archdsl.bench.results import Workload
from archdsl.bench.runner import Call, Candidate

GPT = {"vocab": 256, "context": 256, "D": 384, "heads": 6, "depth": 6}
VIT = {"D": 192, "heads": 3, "inner": 768, "depth": 12}
SMALL_GPT = {"vocab": 50, "context": 16, "D": 48, "heads": 4, "depth": 2}
SMALL_VIT = {
    "image": 32,
    "patch": 8,
    "D": 48,
    "heads": 4,
    "depth": 2,
    "inner": 96,
    "classes": 10,
}
RATE = 3e-4


def workloads(folder: Path, small: bool) -> list[Workload]:
    made = []
    for name, spec, full, less in (
        ("GPT", "gpt2.arch", GPT, SMALL_GPT),
        ("ViT-Ti", "dosovitskiy2020.arch", VIT, SMALL_VIT),
    ):
        own = folder / name
        own.mkdir()
        settings: dict[str, Any] = less if small else full
        options = {
            "subject": save_subject(own, spec, settings, "CPU"),
            "rows": 2 if small else 8,
        }
        candidates = (
            Candidate("archdsl", ours, options),
            Candidate("PyTorch", theirs, options, ("torch", "transformers")),
            Candidate(
                "PyTorch, compiled",
                theirs,
                {**options, "compiled": True},
                ("torch", "transformers"),
            ),
        )
        made.append(Workload(f"{name}, a step of AdamW", candidates, "steps"))
    return made


def batch(subject: Subject, rows: int, length: int = 2**30) -> dict[str, Any]:
    """Returns inputs and labels by their names in the spec, by default of maximal length."""
    graph = subject.graph()
    given: dict[str, Any] = dict(inputs(graph, rows, length))
    for label in graph.labels:
        given[label.name] = np.arange(rows) % (label.type.below or 1)
    return given


def ours(subject: Subject, rows: int, length: int = 2**30) -> Call:
    """archdsl, with the training step captured as a program."""
    from tinygrad import Tensor
    from tinygrad.helpers import Context
    from tinygrad.nn.optim import AdamW
    from tinygrad.nn.state import get_parameters

    from archdsl.backend import interpret
    from archdsl.backend.program import Program
    from archdsl.execution.inputs import check

    model = subject.load_archdsl()
    optimizer = AdamW(list(model.parameters.values()), lr=RATE, weight_decay=0.01)
    Tensor.realize(*get_parameters(optimizer))  # allocated once, not in every step

    def step(**given: Tensor) -> Tensor:
        optimizer.zero_grad()
        executable = model.executable
        program = executable.lowered(executable.graph, given, trains=True)
        loss = interpret.loss(executable.run(program), given)
        loss.backward()
        return loss.realize(*optimizer.schedule_step())

    tensors = {
        name: Tensor(each, device=model.device).realize()
        for name, each in check(model.graph, batch(subject, rows, length), labels=True).items()
    }

    with Context(TRAINING=1):
        program = Program(step, model.device)

    def once() -> np.ndarray:
        with Context(TRAINING=1):
            return np.atleast_1d(program(**tensors).numpy())

    return once


def theirs(subject: Subject, rows: int, compiled: bool = False) -> Call:
    """transformers on PyTorch, eager or compiled."""
    import torch

    model = subject.load_transformers()
    torch.set_grad_enabled(True)
    given = {name: torch.from_numpy(array) for name, array in batch(subject, rows).items()}
    labels = given["label"] if "label" in given else given["tokens"]
    named = {INPUT_NAMES[name]: tensor for name, tensor in given.items() if name in INPUT_NAMES}
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    call: Callable[..., Any] = torch.compile(model) if compiled else model

    def once() -> np.ndarray:
        optimizer.zero_grad()
        loss = call(**named, labels=labels).loss
        loss.backward()
        optimizer.step()
        return np.atleast_1d(loss.detach().numpy())

    return once
