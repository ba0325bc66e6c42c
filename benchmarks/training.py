"""A training step with AdamW: a small GPT, ViT-Ti, and the Transformer base."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from archdsl.bench.candidates import INPUT_NAMES, Subject, inputs, save_subject
from archdsl.bench.results import Workload
from archdsl.bench.runner import THREADS, Call, Candidate

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
TRANSFORMER = {"rate": 0.0}  # the base of Vaswani et al. 2017, without dropout
SMALL_TRANSFORMER = {
    **TRANSFORMER,
    "vocab": 50,
    "context": 16,
    "D": 48,
    "heads": 4,
    "hidden": 96,
    "depth": 2,
}
LENGTH = 64  # of source and target, in tokens
RATE, DECAY, BETAS = 3e-4, 0.01, (0.9, 0.999)


def workloads(folder: Path, small: bool) -> list[Workload]:
    made = []
    for name, spec, full, less, torch_step in (
        ("GPT", "gpt2.arch", GPT, SMALL_GPT, theirs),
        ("ViT-Ti", "dosovitskiy2020.arch", VIT, SMALL_VIT, theirs),
        (
            "Transformer base",
            "vaswani2017.arch",
            TRANSFORMER,
            SMALL_TRANSFORMER,
            torch_transformer,
        ),
    ):
        own = folder / name
        own.mkdir()
        settings: dict[str, Any] = less if small else full
        options = {
            "subject": save_subject(own, spec, settings, "CPU"),
            "rows": 2 if small else 8,
        }
        if torch_step is torch_transformer:
            options["length"] = LENGTH
        candidates = (
            Candidate("archdsl", ours, options),
            Candidate("plain tinygrad", plain_tinygrad, options),
            Candidate("PyTorch", torch_step, options, ("torch", "transformers")),
            Candidate(
                "PyTorch, compiled",
                torch_step,
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
    """archdsl: the step of `model.fit`."""
    from archdsl.backend.optimizers import Rule
    from archdsl.execution.inputs import check
    from archdsl.execution.train_step import TrainStep

    model = subject.load_archdsl()
    rule = Rule("adamw", weight_decay=DECAY, beta2=BETAS[1])
    step = TrainStep(model.executable, rule, clip=None)
    given = check(model.graph, batch(subject, rows, length), labels=True)

    def once() -> np.ndarray:
        return np.array([step([given], RATE, (0, 0)).loss])

    return once


def plain_tinygrad(subject: Subject, rows: int, length: int = 2**30) -> Call:
    """The same model on tinygrad's kernels, with its AdamW and its `TinyJit`."""
    from tinygrad import Tensor, TinyJit
    from tinygrad.helpers import Context
    from tinygrad.nn.optim import AdamW, OptimizerGroup
    from tinygrad.nn.state import get_parameters

    from archdsl.backend import interpret
    from archdsl.execution.inputs import check
    from archdsl.model import build

    model = build(
        subject.spec, None, subject.settings, subject.device, subject.dtype, 0, "tinygrad"
    )
    if subject.weights:
        model.load(subject.weights)
    optimizer = OptimizerGroup(
        *(
            AdamW(weights, lr=RATE, b1=BETAS[0], b2=BETAS[1], weight_decay=decay)
            for weights, decay in decays(list(model.parameters.values()))
        )
    )
    for each in optimizer.optimizers:
        Tensor.realize(*get_parameters(each))  # allocated once, not in every step
    executable = model.executable

    def step(**given: Tensor) -> Tensor:
        optimizer.zero_grad()  # type: ignore[no-untyped-call]
        program = executable.lowered(executable.graph, given, trains=True)
        loss = interpret.loss(executable.run(program), given)
        loss.backward()
        return loss.realize(*optimizer.schedule_step())

    tensors = {
        name: Tensor(each, device=model.device).realize()
        for name, each in check(model.graph, batch(subject, rows, length), labels=True).items()
    }
    captured = TinyJit(step)

    def once() -> np.ndarray:
        with Context(TRAINING=1):  # type: ignore[no-untyped-call]
            return np.atleast_1d(captured(**tensors).numpy())

    return once


def decays(weights: list[Any]) -> list[tuple[list[Any], float]]:
    """Matrices, which decay, and vectors, which do not."""
    matrices = [each for each in weights if each.squeeze().ndim > 1]
    vectors = [each for each in weights if each.squeeze().ndim <= 1]
    return [(matrices, DECAY), (vectors, 0.0)]


def theirs(subject: Subject, rows: int, compiled: bool = False) -> Call:
    """transformers on PyTorch, eager or compiled."""
    import torch

    model = subject.load_transformers()
    given = {name: torch.from_numpy(array) for name, array in batch(subject, rows).items()}
    labels = given["label"] if "label" in given else given["tokens"]
    named = {INPUT_NAMES[name]: tensor for name, tensor in given.items() if name in INPUT_NAMES}
    call: Callable[..., Any] = torch.compile(model) if compiled else model
    return torch_step_of(model, lambda: call(**named, labels=labels).loss)


def torch_transformer(
    subject: Subject, rows: int, length: int = 2**30, compiled: bool = False
) -> Call:
    """`torch.nn.Transformer`, eager or compiled."""
    import torch

    from archdsl.formats.checkpoint import read_checkpoint
    from benchmarks.torch_transformer import Transformer

    torch.set_num_threads(THREADS)
    assert subject.weights is not None
    stored = read_checkpoint(subject.weights).tensors
    weights = {name: torch.from_numpy(each.read().copy()) for name, each in stored.items()}
    heads = int(subject.settings.get("heads", 8))  # type: ignore[arg-type]
    model = Transformer(weights, heads)
    given = {
        name: torch.from_numpy(array) for name, array in batch(subject, rows, length).items()
    }
    call: Callable[..., Any] = torch.compile(model) if compiled else model
    return torch_step_of(model, lambda: call(given["source"], given["target"]))


def torch_step_of(model: Any, loss_of: Callable[[], Any]) -> Call:
    """A step of AdamW on PyTorch; `loss_of` computes the loss."""
    import torch

    torch.set_grad_enabled(True)
    groups = [
        {"params": weights, "weight_decay": decay}
        for weights, decay in decays(list(model.parameters()))
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=BETAS)

    def once() -> np.ndarray:
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        optimizer.step()
        return np.atleast_1d(loss.detach().numpy())

    return once
