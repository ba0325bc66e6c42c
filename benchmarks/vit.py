"""ViT-B/16, batches of one and eight images, compared with PyTorch and ONNX Runtime."""

from __future__ import annotations

import multiprocessing
import warnings
from pathlib import Path

from archdsl.bench import candidates
from archdsl.bench.candidates import Subject, inputs, last_position, save_subject
from archdsl.bench.results import Workload
from archdsl.bench.runner import THREADS, Call, Candidate
from archdsl.graph.cost import cost

TORCH = ("torch", "transformers")
SMALL = {"image": 32, "patch": 8, "D": 48, "heads": 4, "depth": 2, "inner": 96, "classes": 10}


def workloads(folder: Path, small: bool) -> list[Workload]:
    model = save_subject(folder, "dosovitskiy2020.arch", SMALL if small else {}, "CPU")
    return [_forward(model, rows) for rows in ((1,) if small else (1, 8))]


def _forward(model: Subject, rows: int) -> Workload:
    options = {"subject": model, "rows": rows, "length": 1}
    compiled = {**options, "compiled": True}
    onnx = {"subject": model, "rows": rows}
    return Workload(
        f"ViT-B/16, batch of {rows}",
        (
            Candidate("archdsl", candidates.forward, options),
            Candidate("PyTorch", candidates.transformers_forward, options, TORCH),
            Candidate("PyTorch, compiled", candidates.transformers_forward, compiled, TORCH),
            Candidate("ONNX Runtime", by_onnx, onnx, (*TORCH, "onnx", "onnxruntime")),
        ),
        "images",
        rows,
        flops=rows * cost(model.graph()).flops,
    )


def by_onnx(subject: Subject, rows: int) -> Call:
    """ONNX Runtime, one forward pass of the model exported by PyTorch."""
    path = Path(str(subject.published)).with_name(f"{rows}.onnx")
    # In another process, so that PyTorch's memory is not counted.
    process = multiprocessing.get_context("spawn").Process(
        target=write_onnx, args=(subject, rows, path)
    )
    process.start()
    process.join()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    pixels = inputs(subject.graph(), rows, 1)["pixels"]
    return lambda: last_position(session.run(None, {"pixels": pixels})[0])


def write_onnx(subject: Subject, rows: int, path: Path) -> None:
    """Exports the model of transformers for batches of this size."""
    import torch

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = subject.load_transformers()

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.model(pixels).logits

    pixels = torch.from_numpy(inputs(subject.graph(), rows, 1)["pixels"])
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # the older exporter is deprecated, but needs no other package
        torch.onnx.export(
            Logits().eval(), (pixels,), path, input_names=["pixels"], dynamo=False
        )
